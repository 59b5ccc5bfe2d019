package local

import (
	"math"
	"slices"

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

	grams gramColumns

	// p: what is left of alpha and norm2 once the support is in the fit.
	resid, left []float64
	w           []float64 // |S| x p: directions of the support's columns
	sub         []float64
	beam        beam
}

// gramColumns stores c_j^T c_s for all j in dst.
type gramColumns interface{ gramColumn(dst []float64, s int) }

// dependent is the share of a column's squared norm that must survive the
// projection for the column to be usable: below, it is a combination of what
// is already in the fit, to the precision that squaring leaves.
const dependent = 1e-9

// smallestGain is the share of the energy that a swap must add: less is
// rounding, and swaps could go round in circles.
const smallestGain = 1e-9

// reset makes room for k of p columns, and empties the support.
func (q *pursuit) reset(grams gramColumns, p, k int) {
	q.p, q.grams = p, grams
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
	q.start()
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

// start makes resid and left those of the empty support.
func (q *pursuit) start() {
	copy(q.resid, q.alpha)
	copy(q.left, q.norm2)
}

// push adds index s to the support and takes its direction out of resid and
// left.
func (q *pursuit) push(s int) {
	t := len(q.support)
	g := q.gram[t]
	q.grams.gramColumn(g, s)
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

// solve computes K, the coefficients and the energy of the support. An index
// whose column depends on those before it, to working precision, leaves the
// support. It reports whether any is left.
func (q *pursuit) solve() bool {
	q.energy = 0
	for {
		n := len(q.support)
		for a := range n {
			for b := range n {
				q.sub[a*n+b] = q.gram[a][q.support[b]]
			}
		}
		bad := cholesky(q.sub[:n*n], n)
		if bad == n {
			break
		}
		q.support = slices.Delete(q.support, bad, bad+1)
		g := q.gram[bad]
		copy(q.gram[bad:n], q.gram[bad+1:n])
		q.gram[n-1] = g
	}
	n := len(q.support)
	for c := range n {
		unit(q.k[c*n:(c+1)*n], c)
		cholSolve(q.sub, n, q.k[c*n:(c+1)*n])
	}
	for a := range n {
		var c float64
		for b, s := range q.support {
			c += q.k[a*n+b] * q.alpha[s]
		}
		q.coef[a] = c
		q.energy += c * q.alpha[q.support[a]]
	}
	return n > 0
}

// swap performs the best single exchange, if it improves the fit.
//
// With h_a = sum_t K_at g_t / sqrt(K_aa), the direction of column a that is
// orthogonal to the others of the support, dropping a turns the residual
// correlation into resid + (coef_a / sqrt(K_aa)) h_a and the free norms into
// left + h_a^2, and costs coef_a^2 / K_aa.
func (q *pursuit) swap() bool {
	n, p := len(q.support), q.p
	q.start()
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
	for _, s := range q.support {
		q.left[s] = math.Inf(-1) // no candidate
	}
	from, to, best := -1, -1, smallestGain*q.energy
	for a := range n {
		h := q.w[a*p : (a+1)*p]
		inv := 1 / q.k[a*n+a]
		c := q.coef[a] * inv
		cost := q.coef[a] * c
		for j, v := range h {
			left := q.left[j] + v*v*inv
			r := q.resid[j] + c*v
			if left > q.floor[j] && r*r > (cost+best)*left {
				from, to, best = a, j, r*r/left-cost
			}
		}
	}
	if from < 0 {
		return false
	}
	q.support[from] = to
	q.grams.gramColumn(q.gram[from], to)
	return true
}
