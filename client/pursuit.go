package client

import (
	"math"

	"gonum.org/v1/gonum/floats"
)

// pursuit chooses the support of b by orthogonal least squares (Chen,
// Billings, Luo 1989; "OMP" with each candidate judged by the fit it would
// give) and then by swaps: drop one index, add the one that lowers the
// residual most, while the fit improves. Everything happens in the geometry
// that is left when w is profiled out, where column j of X is
//
//	c_j = x_j - A M^-1 A^T x_j,   A = X U,   M = A^T A + prior precision,
//
// so that the support is chosen as if the best w for it were already known.
// It needs only correlations, never the projected columns: the Gram column
// of each index that it touches costs one pass over X.
type pursuit struct {
	p     int       // columns of X
	alpha []float64 // p: c_j^T y
	norm2 []float64 // p: ||c_j||^2
	floor []float64 // p: below this norm2 a column counts as dependent

	support []int
	gram    [][]float64 // per support index, p: c_j^T c_s
	k       []float64   // |S| x |S|: inverse of the support's Gram matrix
	coef    []float64   // |S|: b on the support
	energy  float64     // how much the support lowers the residual sum of squares

	gramOf func(dst []float64, s int) // stores c_j^T c_s for all j

	w, resid, left, sub []float64
	beam                beam
}

// dependent is the share of a column's squared norm that must survive the
// projection for the column to be usable: below, it is a combination of what
// is already in the fit, to the precision that squaring leaves.
const dependent = 1e-9

func (q *pursuit) resize(p, k int) {
	q.p = p
	q.alpha = grow(q.alpha, p)
	q.norm2 = grow(q.norm2, p)
	q.floor = grow(q.floor, p)
	q.resid = grow(q.resid, p)
	q.left = grow(q.left, p)
	q.w = grow(q.w, k*p)
	q.k = grow(q.k, k*k)
	q.sub = grow(q.sub, k*k)
	q.coef = grow(q.coef, k)
	for len(q.gram) < k {
		q.gram = append(q.gram, nil)
	}
	for i := range k {
		q.gram[i] = grow(q.gram[i], p)
	}
	q.support = q.support[:0]
	q.energy = 0
}

// greedy adds up to k indices, each time the one that lowers the residual
// most.
func (q *pursuit) greedy(k int) {
	copy(q.resid, q.alpha)
	copy(q.left, q.norm2)
	for len(q.support) < k {
		best, gain := -1, 0.0
		for j, a := range q.resid[:q.p] {
			if q.left[j] > q.floor[j] && a*a > gain*q.left[j] {
				best, gain = j, a*a/q.left[j]
			}
		}
		if best < 0 {
			break
		}
		q.push(best)
	}
}

// push adds index s to the support and takes its direction out of resid and
// left.
func (q *pursuit) push(s int) {
	t := len(q.support)
	g := q.gram[t]
	q.gramOf(g, s)
	q.support = append(q.support, s)
	// h = the new column, orthogonal to the support before it, against all.
	h := q.w[t*q.p : (t+1)*q.p]
	copy(h, g)
	for u := range t {
		hu := q.w[u*q.p : (u+1)*q.p]
		floats.AddScaled(h, -hu[s], hu)
	}
	floats.Scale(1/math.Sqrt(h[s]), h)
	a := q.resid[s] / h[s]
	floats.AddScaled(q.resid[:q.p], -a, h)
	for j, v := range h {
		q.left[j] -= v * v
	}
	q.left[s] = 0
}

// refine swaps until no swap improves the fit, at most limit times.
func (q *pursuit) refine(limit int) {
	for range limit {
		if !q.solve() || !q.swap() {
			return
		}
	}
	q.solve()
}

// solve computes K, the coefficients and the energy of the support.
func (q *pursuit) solve() bool {
	n := len(q.support)
	if n == 0 {
		return false
	}
	for a := range n {
		for b := range n {
			q.sub[a*n+b] = q.gram[a][q.support[b]]
		}
	}
	if !invertSPD(q.k[:n*n], q.sub[:n*n], n) {
		return false
	}
	q.energy = 0
	for a := range n {
		var c float64
		for b, s := range q.support {
			c += q.k[a*n+b] * q.alpha[s]
		}
		q.coef[a] = c
		q.energy += c * q.alpha[q.support[a]]
	}
	return true
}

// swap performs the best single exchange, if it improves the fit.
//
// With h_a = sum_t K_at g_t / sqrt(K_aa), the direction of column a that is
// orthogonal to the others of the support, dropping a turns the residual
// correlation into resid + (coef_a / sqrt(K_aa)) h_a and the free norms into
// left + h_a^2, and costs coef_a^2 / K_aa.
func (q *pursuit) swap() bool {
	n, p := len(q.support), q.p
	copy(q.resid, q.alpha)
	copy(q.left, q.norm2)
	for a := range n {
		floats.AddScaled(q.resid[:p], -q.coef[a], q.gram[a])
		h := q.w[a*p : (a+1)*p]
		clear(h)
		for t := range n {
			floats.AddScaled(h, q.k[a*n+t], q.gram[t])
		}
		for j, v := range h {
			q.left[j] -= v * q.gram[a][j]
		}
	}
	from, to, best := -1, -1, 1e-9*q.energy
	for a := range n {
		h := q.w[a*p : (a+1)*p]
		inv := 1 / q.k[a*n+a]
		c := q.coef[a] * inv
		cost := q.coef[a] * c
		for j, v := range h {
			left := q.left[j] + v*v*inv
			r := q.resid[j] + c*v
			// The index itself scores exactly its cost, so it is no candidate.
			if r*r > (cost+best)*left && left > q.floor[j] && j != q.support[a] {
				from, to, best = a, j, r*r/left-cost
			}
		}
	}
	if from < 0 {
		return false
	}
	for _, s := range q.support {
		if s == to {
			return false
		}
	}
	q.support[from] = to
	q.gramOf(q.gram[from], to)
	return true
}
