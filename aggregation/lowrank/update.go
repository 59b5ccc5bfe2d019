package lowrank

import (
	"math"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// gradient takes the Newton step from what the users sent,
//
//	[ G_i ; kappa P_i ] / ||.||,
//	G_i = -X^T e w~^T + X^T X U V,   P_i = (m - f) (w~ w~^T + V),
//
// in whitened features, with e the residual, w~ = (1, w) where the method is
// centred and w else, V the posterior covariance of w (the E-step of EM; zero
// while no prior is learned) and f the degrees of freedom that the user's own fit
// has used up. m - f is the curvature that is left of the user's samples once
// w and b follow U, so the step is the full one at any m.
//
// Both parts of a contribution carry the same weight 1/||.||, so the step
// [mean U] -= (sum G) (sum P)^-1 is that of a weighted M-estimator: it needs
// no clip to be learned, does not shrink as clipping the gradient alone does,
// and bounds what an outlier can do. kappa ("balance") only sets how the norm
// is shared between the two. size is the mean square of ||w||, 0 if unknown.
func (s *State) gradient(sum []float64, sd, size float64) error {
	d, cols := s.Config.Dim, s.Config.columns()
	precondition := unpack(sum[d*cols:], cols)
	precondition.ScaleSym(1/s.Balance, precondition)
	sdP := sd / s.Balance
	values, vectors, err := eigen(precondition)
	if err != nil {
		return err
	}
	largest := values[cols-1]
	if !(largest > 0) {
		return nil // nobody had anything to say
	}
	// No curvature is taken as less than what noise or rounding make of none:
	// 2 sdP is the noise's spectral norm at two columns, the fewest that couple.
	least := max(2*sdP, rounding*largest)
	var turned, step mat.Dense
	turned.Mul(vectors.T(), mat.NewDense(cols, d, sum[:d*cols]))
	for c, v := range values {
		row := turned.RawRowView(c)
		// What the noise alone could have made of the gradient is no reason to
		// move: the rest of the way, and no more, is (an empirical Kalman gain,
		// between U_l and the noised Newton estimate).
		shrink(row, sd)
		floats.Scale(1/max(v, least), row)
	}
	step.Mul(vectors, &turned)
	s.move(&step)
	return s.retract(s.learnPrior(precondition, sdP, size))
}

// rounding is the share of a matrix' largest eigenvalue below which one says
// nothing: the matrix is a sum over many users, in double precision.
const rounding = 1e-10

// move subtracts a step, cols x d, from the mean (its first row, if the
// method is centred) and U.
func (s *State) move(step *mat.Dense) {
	first := 0
	if s.Config.Centred {
		first = 1
		floats.Sub(s.Center, step.RawRowView(0))
	}
	for c := range s.Config.Rank {
		floats.Sub(s.column(c), step.RawRowView(c+first))
	}
}

// learnPrior makes the users' second moment of w the prior, w ~ N(0, S): the
// M-step. p is the users' sum of w~ w~^T + V, with noise sd. A centred method
// first moves the mean of w into the mean of theta. Another does not know the
// users' total weight, so p gives S up to a factor: its trace is size, the mean
// square of ||w||, and where that is not known there is no prior.
//
// Returns the floor of S's eigenvalues: a direction in which no w was seen
// must stay open to later rounds, and noise must not make one negative.
func (s *State) learnPrior(p *mat.SymDense, sd, size float64) (floor float64) {
	r := s.Config.Rank
	if r == 0 {
		return 0
	}
	prior := mat.NewDense(r, r, make([]float64, r*r))
	if !s.Config.Centred {
		trace := mat.Trace(p)
		if !(size > 0 && trace > detection*sd*math.Sqrt(float64(r))) {
			s.Model.Prior = nil
			return 0
		}
		prior.Scale(size/trace, p)
		s.Model.Prior = prior.RawMatrix().Data
		return smallestShare * size / float64(r)
	}
	mass := p.At(0, 0)
	if !(mass > detection*sd) {
		return smallestPrior
	}
	for a := range r {
		wa := p.At(0, a+1) / mass
		floats.AddScaled(s.Center, wa, s.column(a))
		for b := range r {
			prior.Set(a, b, p.At(a+1, b+1)/mass-wa*p.At(0, b+1)/mass)
		}
	}
	s.Model.Prior = prior.RawMatrix().Data
	return max(smallestPrior, sd/mass/4)
}

// The prior over w is not singular: an eigenvalue is at least smallestPrior, in
// units of the response's variance, or smallestShare of the average one where
// the method knows no such unit.
const (
	smallestPrior = 1e-4
	smallestShare = 0.01
)

// retract brings U back to orthonormal columns, U = Q R, and the prior over w
// with it: U w = Q (R w), so S becomes R S R^T, eigenvalues at least floor.
func (s *State) retract(floor float64) error {
	d, r := s.Config.Dim, s.Config.Rank
	if r == 0 {
		return nil
	}
	q, upper := thinQR(mat.NewDense(r, d, s.Basis).T())
	s.Basis = q
	if s.Model.Prior == nil {
		return nil
	}
	prior := mat.NewDense(r, r, s.Model.Prior)
	prior.Product(upper, prior, upper.T())
	return floorEigenvalues(s.Model.Prior, r, floor)
}

// leastSquares minimises sum_i ||X_i (U w_i + b_i) - y_i||^2 over U from the
// users' statistics
//
//	[ A_i ; B_i ] / ||.||,   A_i = (w~ w~^T + V) (x) X^T X,
//	B_i = X^T (y - X b) w~^T
//
// in whitened features (AMHT-LRS, Pal et al., Algorithm 1, line "U"; here each
// user's statistics are bounded by their own norm, which is less noise than
// the product of the worst cases that the paper clips to). The noise's
// spectral norm is added to A as a proximal term towards the U at hand, so
// that directions without signal stay where they are.
func (s *State) leastSquares(sum []float64, sd, size float64) error {
	d, cols := s.Config.Dim, s.Config.columns()
	n := d * cols
	a := unpack(sum[n:], n)
	values, vectors, err := eigen(a)
	if err != nil {
		return err
	}
	largest := values[n-1]
	if !(largest > 0) {
		return nil // nobody had anything to say
	}
	// now - x = (A + proximal I)^-1 (A now - B), eigenvalues of A at least 0.
	var now []float64
	if s.Config.Centred {
		now = append(now, s.Center...)
	}
	now = append(now, s.Basis...)
	proximal := spectralNoise(sd, n)
	var residual, turned, step mat.VecDense
	residual.MulVec(a, mat.NewVecDense(n, now))
	residual.SubVec(&residual, mat.NewVecDense(n, sum[:n]))
	turned.MulVec(vectors.T(), &residual)
	for i, v := range values {
		f := 0.0
		if curvature := max(v, 0) + proximal; curvature > rounding*largest {
			f = 1 / curvature
		}
		turned.SetVec(i, f*turned.AtVec(i))
	}
	step.MulVec(vectors, &turned)
	s.move(mat.NewDense(cols, d, step.RawVector().Data))
	// The second moment of w~ is A's partial trace over the features.
	p := mat.NewSymDense(cols, nil)
	for i := range cols {
		for j := i; j < cols; j++ {
			var t float64
			for f := range d {
				t += a.At(i*d+f, j*d+f)
			}
			p.SetSym(i, j, t/float64(d))
		}
	}
	return s.retract(s.learnPrior(p, sd/math.Sqrt(float64(d)), size))
}
