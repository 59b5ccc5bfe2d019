package local

import (
	"fmt"
	"math"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/floats"
)

// Fit is the personal part of a user's model and what the solver knows of it,
// in units of the model's response scale. It is valid until the solver's next
// Solve; Personal is what to keep.
type Fit struct {
	W       []float64 // r
	Cov     []float64 // r x r: posterior covariance of w; zero unless the model has a prior
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
// with S the model's prior over w or, without one, that of the user's own
// responses. It has no tuning knobs and, once its storage has grown to the
// largest user, does not allocate. It serves one goroutine; no call depends on
// those before it.
//
// With p columns of X and s swaps (mostly 0 or 1) a fit makes 2r + k + s + 3
// passes over the 8 m p bytes of X, in all
//
//	m p (2r + k + s + 3) + p (r^2 + r (3k + s) + k^2 (s + 3/2))
//
// multiply-adds to leading order; m p more with a mean. The users whose
// residual the noise level does not explain take a beam search on top, with
// up to p passes more.
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

	prior  []float64 // r x r: S^-1
	shared bool      // whether the prior is the model's
	power  float64   // mean square of y
	gram   []float64 // r x r: A^T A
	prec   []float64 // r x r: sigma^2 S^-1, and a ridge where it takes one
	chol   []float64 // r x r: L, L L^T = M = A^T A + prec
	q      []float64 // r x p: L^-1 A^T X
	z      []float64 // r: L^-1 A^T y

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
	first := model.NoiseVariance
	if model.Prior == nil {
		first = 0
	}
	s.project(first)
	s.choose(model.NoiseVariance)
	s.finish(first)
	// The user's own noise: what the fit leaves, and the typical user's in so
	// far as the samples are few. Before that is known, a sample of the user's
	// whole response stands for it.
	typical, weight := model.NoiseVariance, noisePrior
	if model.Prior == nil {
		typical, weight = s.power, 1
	}
	free := max(0, float64(s.m)-s.fit.Freedom)
	rss := floats.Dot(s.fit.Resid, s.fit.Resid)
	own := (rss + weight*typical) / (free + weight)
	for t, j := range s.pursuit.support {
		s.deflate(s.pursuit.gram[t], j, -1)
	}
	s.project(own)
	for t, j := range s.pursuit.support {
		s.deflate(s.pursuit.gram[t], j, 1)
	}
	s.pursuit.solve()
	s.finish(own)
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
	s.shared = model.Prior != nil
	s.power = 0
	if m > 0 {
		s.power = floats.Dot(s.y, s.y) / float64(m)
	}
	if model.Prior == nil {
		// w explains no more than the response's power: the user's own prior,
		// w ~ N(0, (power/r) I), is next to flat unless the samples are few.
		if s.power > 0 {
			for c := range r {
				s.prior[c*r+c] = float64(r) / s.power
			}
		}
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

// Fit returns the result of the last Solve, or of the last Contribute that
// fitted, if it did not fail.
func (s *Solver) Fit() *Fit { return &s.fit }
