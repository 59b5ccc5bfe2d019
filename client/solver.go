package client

import (
	"fmt"
	"math"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/floats"
)

// Fit is the personal part of a user's model and what the solver knows of it,
// in units of the model's response scale. It is valid until the solver's next
// Solve; Personal is what to keep.
type Fit struct {
	W       []float64 // r
	Cov     []float64 // r x r: posterior covariance of w; zero under a flat prior
	Support []int     // of b, indices into the columns of X, in no order
	B       []float64 // on Support
	Resid   []float64 // m: y - X (mean + U w + b)
	// Freedom is the number of parameters that the fit has used up: the trace
	// of the map from y to the fitted values.
	Freedom float64
}

// Solver computes w and b for one user after another, given U: steps 1 and 2
// of the alternation (Pal et al., Algorithm 1) as one problem,
//
//	min ||y - X (mean + U w + b)||^2 + sigma^2 w^T S^-1 w,   ||b||_0 <= k,
//
// with S the model's prior over w, and no prior term without one. It has no
// tuning knobs and, once its storage has grown to the largest user, does not
// allocate. It serves one goroutine; no call depends on those before it.
//
// A fit costs m p (2r + 2 + k + s) multiply-adds in passes over X, where s is
// the number of swaps (mostly 0 or 1) and p the columns of X, and O(p k (r +
// k)) beside them in each swap. It reads the 8 m p bytes of X 2r + k + s + 3
// times.
type Solver struct {
	// Sparsity is k, the most non-zeros of b.
	Sparsity int
	// HardThreshold chooses b by the paper's schedule instead of by pursuit.
	HardThreshold bool

	m, p, r int
	x       []float64 // m x p, the samples' own
	y       []float64 // m: the responses less the mean's, scaled
	u       []float64 // r x p: columns of U, on the user's columns
	mean    []float64 // p

	xu    []float64 // r x m: A = X U
	t     []float64 // r x p: A^T X
	a0    []float64 // p: X^T y
	norm2 []float64 // p: squared norms of X's columns

	prior []float64 // r x r: S^-1
	gram  []float64 // r x r: A^T A
	prec  []float64 // r x r: sigma^2 S^-1, and a ridge where it takes one
	chol  []float64 // r x r: L, L L^T = M = A^T A + prec
	q     []float64 // r x p: L^-1 A^T X
	z     []float64 // r: L^-1 A^T y

	column  []float64 // m
	rows    []float64 // k x r
	pursuit pursuit
	hard    hard
	fit     Fit
}

// noisePrior is the weight, in samples, of the typical user's noise beside the
// user's own.
const noisePrior = 10.0

// Solve fits w and b to the samples under the model. Without samples w is the
// prior's mean, zero. Fails with ErrModel, ErrSamples or ErrNotFinite; there
// is no fit then.
func (s *Solver) Solve(model *lowrank.Model, data Samples) (*Fit, error) {
	if err := checkModel(model); err != nil {
		return nil, err
	}
	if err := data.check(model.Dim); err != nil {
		return nil, err
	}
	return s.solve(model, data)
}

// checkModel fails with ErrModel or ErrNotFinite.
func checkModel(m *lowrank.Model) error {
	d, r := m.Dim, m.Rank
	switch {
	case d < 0 || r < 0 || len(m.U) != d*r:
		return fmt.Errorf("%w: U has %d entries for %d x %d", ErrModel, len(m.U), d, r)
	case m.Mean != nil && len(m.Mean) != d:
		return fmt.Errorf("%w: a mean of %d features instead of %d", ErrModel, len(m.Mean), d)
	case m.Prior != nil && len(m.Prior) != r*r:
		return fmt.Errorf("%w: a prior of %d entries for rank %d", ErrModel, len(m.Prior), r)
	case !(m.Scale*m.Scale <= largestSquare), !(math.Abs(m.NoiseVariance) <= largestSquare):
		return fmt.Errorf("%w: scale %v, noise variance %v", ErrNotFinite, m.Scale, m.NoiseVariance)
	case m.Scale < 0, m.NoiseVariance < 0:
		return fmt.Errorf("%w: scale %v, noise variance %v", ErrModel, m.Scale, m.NoiseVariance)
	}
	return checkSize("model", m.U, m.Mean, m.Prior)
}

// solve is Solve for a model and samples that have passed their checks.
func (s *Solver) solve(model *lowrank.Model, data Samples) (*Fit, error) {
	if err := s.load(model, data); err != nil {
		return nil, err
	}
	s.profile()
	s.project(model.NoiseVariance)
	s.choose(model.NoiseVariance)
	s.finish(model.NoiseVariance)
	if model.Prior != nil {
		// The user's own noise: what the fit leaves, and the typical user's in
		// so far as the samples are few.
		free := max(0, float64(s.m)-s.fit.Freedom)
		rss := floats.Dot(s.fit.Resid, s.fit.Resid)
		own := (rss + noisePrior*model.NoiseVariance) / (free + noisePrior)
		for t, j := range s.pursuit.support {
			s.deflate(s.pursuit.gram[t], j, -1)
		}
		s.project(own)
		for t, j := range s.pursuit.support {
			s.deflate(s.pursuit.gram[t], j, 1)
		}
		s.pursuit.solve()
		s.finish(own)
	}
	f := &s.fit
	for _, v := range [...][]float64{f.W, f.Cov, f.B, f.Resid} {
		if !(floats.Dot(v, v) <= math.MaxFloat64) {
			return nil, fmt.Errorf("%w: the fit", ErrNotFinite)
		}
	}
	return f, nil
}

// load takes over the samples, and the model on their columns.
func (s *Solver) load(model *lowrank.Model, data Samples) error {
	m, p, r := len(data.Y), data.Width(model.Dim), model.Rank
	s.m, s.p, s.r, s.x = m, p, r, data.X
	s.u = restrict(s.u, model.U, model.Dim, data.Columns)
	s.y = grow(s.y, m)
	copy(s.y, data.Y)
	if scale := model.ResponseScale(); scale != 1 {
		floats.Scale(1/scale, s.y)
	}
	if model.Mean != nil {
		s.mean = restrict(s.mean, model.Mean, model.Dim, data.Columns)
		gemv(blas.NoTrans, -1, s.x, m, p, s.mean, s.y)
	}
	if err := checkSize("scaled responses", s.y); err != nil {
		return err
	}
	s.prior = grow(s.prior, r*r)
	clear(s.prior)
	if model.Prior == nil {
		return nil
	}
	s.chol = grow(s.chol, r*r)
	if !s.factor(model.Prior, s.prior) { // s.prior is zero
		return fmt.Errorf("%w: the prior is no covariance", ErrModel)
	}
	for c := range r {
		unit(s.prior[c*r:(c+1)*r], c)
		cholSolve(s.chol, r, s.prior[c*r:(c+1)*r])
	}
	return nil
}

// restrict stores the columns of x, each of d features, on the features
// listed, all if columns is nil.
func restrict(dst, x []float64, d int, columns []int32) []float64 {
	if columns == nil {
		dst = grow(dst, len(x))
		copy(dst, x)
		return dst
	}
	dst = dst[:0]
	for ; len(x) >= d && d > 0; x = x[d:] {
		for _, f := range columns {
			dst = append(dst, x[f])
		}
	}
	return dst
}

// profile computes, in passes over X, all that the choice of the support
// needs once w is profiled out.
func (s *Solver) profile() {
	m, p, r := s.m, s.p, s.r
	s.xu, s.t, s.q = grow(s.xu, r*m), grow(s.t, r*p), grow(s.q, r*p)
	s.gram, s.chol, s.prec = grow(s.gram, r*r), grow(s.chol, r*r), grow(s.prec, r*r)
	s.z, s.a0, s.norm2 = grow(s.z, r), grow(s.a0, p), grow(s.norm2, p)
	s.column = grow(s.column, m)
	clear(s.xu)
	clear(s.t)
	clear(s.a0)
	clear(s.norm2)
	for c := range r {
		a := s.xu[c*m : (c+1)*m]
		gemv(blas.NoTrans, 1, s.x, m, p, s.u[c*p:(c+1)*p], a)
		gemv(blas.Trans, 1, s.x, m, p, a, s.t[c*p:(c+1)*p])
	}
	gemv(blas.Trans, 1, s.x, m, p, s.y, s.a0)
	for i := range m {
		for j, v := range s.row(i) {
			s.norm2[j] += v * v
		}
	}
	for a := range r {
		for b := range a + 1 {
			v := floats.Dot(s.xu[a*m:(a+1)*m], s.xu[b*m:(b+1)*m])
			s.gram[a*r+b], s.gram[b*r+a] = v, v
		}
	}
	s.pursuit.reset(s, p, s.room())
	for j, v := range s.norm2 {
		s.pursuit.floor[j] = max(dependent*v, smallestSquare)
	}
}

// project takes out of the columns of X, and of y, what w explains when the
// response noise has the given variance.
func (s *Solver) project(variance float64) {
	m, p, r := s.m, s.p, s.r
	floats.ScaleTo(s.prec, variance, s.prior) // in the units of A^T A
	s.factor(s.gram, s.prec)
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

// factor stores the Cholesky factor of a + b, r x r and positive
// semidefinite, in chol. Where it is singular (fewer samples than coordinates,
// columns of U that coincide) the least ridge that squares leave visible is
// added to b: the minimum-norm solution, to working precision. It reports
// whether it found a factor; without one, chol is the identity.
func (s *Solver) factor(a, b []float64) bool {
	r := s.r
	var trace float64
	for c := range r {
		trace += a[c*r+c] + b[c*r+c]
	}
	for ridge := max(1e-10*trace, smallestSquare); ; ridge *= 100 {
		floats.AddTo(s.chol, a, b)
		if cholesky(s.chol, r) == r {
			return true
		}
		if !(ridge <= max(trace, smallestSquare)) {
			break
		}
		for c := range r {
			b[c*r+c] += ridge
		}
	}
	for c := range r {
		unit(s.chol[c*r:(c+1)*r], c)
	}
	return false
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

// choose finds the support of b.
func (s *Solver) choose(noiseVariance float64) {
	q, k := &s.pursuit, s.room()
	if k == 0 {
		return
	}
	if s.HardThreshold {
		q.start()
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
		if noiseVariance == 0 || s.residual() <= 4*noiseVariance*float64(s.m-s.r-k) {
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

// gramColumn stores c_j^T c_s for all j in dst, see pursuit.
func (s *Solver) gramColumn(dst []float64, j int) {
	for i := range s.m {
		s.column[i] = s.x[i*s.p+j]
	}
	clear(dst)
	gemv(blas.Trans, 1, s.x, s.m, s.p, s.column, dst)
	s.deflate(dst, j, 1)
}

// deflate takes f times what w explains out of the Gram column of j:
// x_j^T X - q_j^T q.
func (s *Solver) deflate(dst []float64, j int, f float64) {
	for c := range s.r {
		qc := s.q[c*s.p : (c+1)*s.p]
		floats.AddScaled(dst, -f*qc[j], qc)
	}
}

func (s *Solver) row(i int) []float64 { return s.x[i*s.p : (i+1)*s.p] }

// Fit returns the last Solve's result.
func (s *Solver) Fit() *Fit { return &s.fit }

// crossResidual stores X^T resid (p) in dst: the residual's correlation with
// every column.
func (s *Solver) crossResidual(dst []float64) {
	clear(dst)
	gemv(blas.Trans, 1, s.x, s.m, s.p, s.fit.Resid, dst)
}

// gemv adds f X v, or f X^T v, to dst; X is m x p.
func gemv(t blas.Transpose, f float64, x []float64, m, p int, v, dst []float64) {
	if m == 0 || p == 0 {
		return
	}
	blas64.Gemv(t, f, blas64.General{Rows: m, Cols: p, Stride: p, Data: x},
		blas64.Vector{N: len(v), Inc: 1, Data: v}, 1, blas64.Vector{N: len(dst), Inc: 1, Data: dst})
}
