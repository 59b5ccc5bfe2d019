package client

import (
	"math"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"gonum.org/v1/gonum/floats"
)

// Fit is the personal part of a user's model and what the solver knows of it.
// It is valid until the solver's next Solve.
type Fit struct {
	W       []float64 // r
	Cov     []float64 // r x r: posterior covariance of w; zero under a flat prior
	Support []int     // of b, indices into the columns of X
	B       []float64 // on Support
	Resid   []float64 // m: y - X (mean + U w + b)
	// Freedom is the number of parameters that the fit has used up: the trace
	// of the map from y to the fitted values.
	Freedom float64
}

// Solver computes w and b for one user after another, given U. It has no
// tuning knobs and, once its storage has grown to the largest user, does not
// allocate. It serves one goroutine.
type Solver struct {
	// Sparsity is k, the most non-zeros of b.
	Sparsity int
	// HardThreshold chooses b by the paper's schedule instead of by pursuit.
	HardThreshold bool

	m, p, r int
	x       []float64
	u       [][]float64 // r columns of U (and the mean), on the user's columns
	ubuf    []float64
	mean    []float64
	y       []float64
	xu      []float64 // r x m
	t       []float64 // r x p: (XU)^T X
	gram    []float64 // r x r: A^T A + prior precision
	chol    []float64
	q       []float64 // r x p: L^-1 (XU)^T X
	z       []float64 // r: L^-1 (XU)^T y
	a0      []float64 // p: X^T y
	col     []float64
	prec    []float64
	tmp     []float64
	norm2   []float64 // p: squared norms of X's columns
	trace   float64   // of gram
	pursuit pursuit
	hard    hard
	fit     Fit
}

// noisePrior is the weight, in samples, of the typical user's noise beside the
// user's own.
const noisePrior = 10.0

// Solve fits w and b to the samples under the model.
func (s *Solver) Solve(model *lowrank.Model, data Samples) *Fit {
	s.load(model, data)
	s.profile()
	s.project(model, model.NoiseVariance)
	s.sparse(model)
	s.finish(model, model.NoiseVariance)
	if model.Prior != nil {
		// The user's own noise: what the fit leaves, and the typical user's in
		// so far as the samples are few.
		free := max(0, float64(s.m)-s.fit.Freedom)
		rss := floats.Dot(s.fit.Resid, s.fit.Resid)
		own := (rss + noisePrior*model.NoiseVariance) / (free + noisePrior)
		s.project(model, own)
		for t, j := range s.pursuit.support {
			s.gramColumn(s.pursuit.gram[t], j)
		}
		s.pursuit.solve()
		s.finish(model, own)
	}
	return &s.fit
}

func (s *Solver) load(model *lowrank.Model, data Samples) {
	d, r := model.Dim, model.Rank
	p := d
	if data.Columns != nil {
		p = len(data.Columns)
	}
	s.m, s.p, s.r, s.x = len(data.Y), p, r, data.X
	s.u = grow(s.u, r)
	if data.Columns == nil {
		for c := range r {
			s.u[c] = model.Column(c)
		}
	} else {
		s.ubuf = grow(s.ubuf, r*p)
		for c := range r {
			s.u[c] = s.ubuf[c*p : (c+1)*p]
			full := model.Column(c)
			for j, f := range data.Columns {
				s.u[c][j] = full[f]
			}
		}
	}
	s.y = grow(s.y, s.m)
	copy(s.y, data.Y)
	if scale := model.ResponseScale(); scale != 1 {
		floats.Scale(1/scale, s.y)
	}
	if model.Mean != nil {
		s.mean = grow(s.mean, p)
		if data.Columns == nil {
			copy(s.mean, model.Mean)
		} else {
			for j, f := range data.Columns {
				s.mean[j] = model.Mean[f]
			}
		}
		for i := range s.m {
			s.y[i] -= floats.Dot(s.row(i), s.mean)
		}
	}
}

func (s *Solver) row(i int) []float64 { return s.x[i*s.p : (i+1)*s.p] }

// profile computes, in one pass over X, all that the choice of the support
// needs once w is profiled out.
func (s *Solver) profile() {
	m, p, r := s.m, s.p, s.r
	s.xu, s.t, s.q = grow(s.xu, r*m), grow(s.t, r*p), grow(s.q, r*p)
	s.gram, s.chol = grow(s.gram, r*r), grow(s.chol, r*r)
	s.z, s.a0, s.tmp = grow(s.z, r), grow(s.a0, p), grow(s.tmp, max(r, 1))
	s.norm2 = grow(s.norm2, p)
	s.pursuit.resize(p, s.room())
	norm2 := s.pursuit.norm2
	clear(s.t)
	clear(s.a0)
	clear(norm2)
	for i := range m {
		row := s.row(i)
		for c := range r {
			v := floats.Dot(row, s.u[c])
			s.xu[c*m+i] = v
			floats.AddScaled(s.t[c*p:(c+1)*p], v, row)
		}
		floats.AddScaled(s.a0, s.y[i], row)
		for j, v := range row {
			norm2[j] += v * v
		}
	}
	var trace float64
	for a := range r {
		for b := range a + 1 {
			v := floats.Dot(s.xu[a*m:(a+1)*m], s.xu[b*m:(b+1)*m])
			s.gram[a*r+b], s.gram[b*r+a] = v, v
		}
		trace += s.gram[a*r+a]
	}
	s.trace = trace
	for j, v := range norm2 {
		s.pursuit.floor[j] = dependent * v
	}
	copy(s.norm2, norm2)
}

// project takes out of the columns of X, and of y, what w explains when the
// response noise has the given variance.
func (s *Solver) project(model *lowrank.Model, variance float64) {
	m, p, r := s.m, s.p, s.r
	s.prec = grow(s.prec, r*r)
	clear(s.prec)
	if model.Prior != nil {
		// Precision sigma^2 S^-1, in the units of A^T A.
		copy(s.chol, model.Prior)
		if invertSPD(s.prec, s.chol, r) {
			floats.Scale(variance, s.prec)
		} else {
			clear(s.prec)
		}
	}
	// Fewer samples than coordinates, or columns that coincide: the least
	// ridge that squares leave visible gives the minimum-norm w.
	for ridge := 0.0; ; ridge = max(100*ridge, 1e-10*(s.trace+1e-300)) {
		floats.AddTo(s.chol, s.gram, s.prec)
		for a := range r {
			s.chol[a*r+a] += ridge
		}
		if cholesky(s.chol, r) {
			break
		}
	}
	for c := range r {
		s.z[c] = floats.Dot(s.xu[c*m:(c+1)*m], s.y)
	}
	forward(s.chol, r, s.z)
	copy(s.q, s.t)
	alpha, norm2 := s.pursuit.alpha, s.pursuit.norm2
	copy(alpha, s.a0)
	copy(norm2, s.norm2)
	for c := range r { // forward substitution, a row of p columns at a time
		qc := s.q[c*p : (c+1)*p]
		for a := range c {
			floats.AddScaled(qc, -s.chol[c*r+a], s.q[a*p:(a+1)*p])
		}
		floats.Scale(1/s.chol[c*r+c], qc)
		floats.AddScaled(alpha, -s.z[c], qc)
		for j, v := range qc {
			norm2[j] -= v * v
		}
	}
}

// room is the most indices that b may have: k, and as many as the samples can
// tell. An index costs its coefficient and the choice among p columns, whose
// price in the same unit is its share of the information, ln(p/n).
func (s *Solver) room() int {
	n := 0
	for n < min(s.Sparsity, s.p) {
		next := float64(n + 1)
		if float64(s.r)+next*(1+math.Log(float64(s.p)/next)) >= float64(s.m) {
			break
		}
		n++
	}
	return n
}

// gramColumn stores c_j^T c_s for all j in dst.
func (s *Solver) gramColumn(dst []float64, j int) {
	clear(dst)
	for i := range s.m {
		row := s.row(i)
		floats.AddScaled(dst, row[j], row)
	}
	for c := range s.r {
		qc := s.q[c*s.p : (c+1)*s.p]
		floats.AddScaled(dst, -qc[j], qc)
	}
}

func (s *Solver) sparse(model *lowrank.Model) {
	k := s.room()
	if k == 0 {
		return
	}
	if s.pursuit.gramOf == nil {
		s.pursuit.gramOf = s.gramColumn
	}
	q := &s.pursuit
	if s.HardThreshold {
		copy(q.resid, q.alpha)
		copy(q.left, q.norm2)
		for _, j := range s.threshold(k) {
			if q.left[j] > q.floor[j] {
				q.push(j)
			}
		}
		q.solve()
		return
	}
	q.greedy(k)
	q.refine(10 * k)
	// Single exchanges can end in a local minimum. What gives it away is a
	// residual that the noise level, which all users share, does not explain.
	for _, width := range searchWidths {
		if model.NoiseVariance == 0 || s.residual() <= 4*model.NoiseVariance*float64(s.m-s.r-k) {
			return
		}
		q.search(k, width)
		q.refine(10 * k)
	}
}

// searchWidths are the beams that are tried in turn.
var searchWidths = [...]int{16, 64}

// residual is the residual sum of squares of the support at hand.
func (s *Solver) residual() float64 {
	return floats.Dot(s.y, s.y) - floats.Dot(s.z, s.z) - s.pursuit.energy
}

func (s *Solver) finish(model *lowrank.Model, variance float64) {
	m, p, r := s.m, s.p, s.r
	f, q := &s.fit, &s.pursuit
	n := len(q.support)
	f.Support = q.support
	f.B = q.coef[:n]
	f.W = grow(f.W, r)
	f.Cov = grow(f.Cov, r*r)
	f.Resid = grow(f.Resid, m)
	copy(f.W, s.z)
	for c := range r {
		for a, j := range q.support {
			f.W[c] -= s.q[c*p+j] * f.B[a]
		}
	}
	backward(s.chol, r, f.W)
	copy(f.Resid, s.y)
	for c, w := range f.W {
		floats.AddScaled(f.Resid, -w, s.xu[c*m:(c+1)*m])
	}
	for i := range m {
		row := s.row(i)
		for a, j := range q.support {
			f.Resid[i] -= f.B[a] * row[j]
		}
	}
	f.Freedom = float64(min(r, m) + n)
	clear(f.Cov)
	if model.Prior == nil {
		return
	}
	// Cov / sigma^2 = M^-1 + (M^-1 T_S) K (M^-1 T_S)^T.
	for c := range r {
		col := f.Cov[c*r : (c+1)*r]
		col[c] = 1
		forward(s.chol, r, col)
		backward(s.chol, r, col)
	}
	s.sub(n)
	f.Freedom = float64(r+n) - floats.Dot(f.Cov, s.prec)
	floats.Scale(variance, f.Cov)
}

// sub adds the share of the support's uncertainty to Cov.
func (s *Solver) sub(n int) {
	if n == 0 {
		return
	}
	r, p, q := s.r, s.p, &s.pursuit
	s.col = grow(s.col, n*r)
	for a, j := range q.support {
		v := s.col[a*r : (a+1)*r]
		for c := range r {
			v[c] = s.q[c*p+j]
		}
		backward(s.chol, r, v)
	}
	for a := range n {
		for b := range n {
			k := q.k[a*n+b]
			for c := range r {
				floats.AddScaled(s.fit.Cov[c*r:(c+1)*r], k*s.col[a*r+c], s.col[b*r:(b+1)*r])
			}
		}
	}
}

// Fit returns the last Solve's result.
func (s *Solver) Fit() *Fit { return &s.fit }

// CrossResidual stores X^T resid (p) in dst: the residual's correlation with
// every column.
func (s *Solver) CrossResidual(dst []float64) {
	clear(dst)
	for i, e := range s.fit.Resid {
		floats.AddScaled(dst, e, s.row(i))
	}
}

// CrossGram returns (XU)^T X, r x p.
func (s *Solver) CrossGram() []float64 { return s.t }
