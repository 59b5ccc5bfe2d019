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
// under a flat prior) and f the degrees of freedom that the user's own fit
// has used up. m - f is the curvature that is left of the user's samples once
// w and b follow U, so the step is the full one at any m.
//
// Both parts of a contribution carry the same weight 1/||.||, so the step
// [mean U] -= (sum G) (sum P)^-1 is that of a weighted M-estimator: it needs
// no clip to be learned, does not shrink as clipping the gradient alone does,
// and bounds what an outlier can do. kappa ("balance") only sets how the norm
// is shared between the two.
func (s *State) gradient(sum []float64, sd float64) {
	d, cols := s.Config.Dim, s.Config.columns()
	precondition := unpack(sum[d*cols:], cols)
	precondition.ScaleSym(1/s.Balance, precondition)
	sdP := sd / s.Balance
	var eigen mat.EigenSym
	if !eigen.Factorize(precondition, true) {
		return
	}
	values := eigen.Values(nil)
	if !(values[cols-1] > 0) {
		return // nobody had anything to say
	}
	var vectors, turned, step mat.Dense
	eigen.VectorsTo(&vectors)
	turned.Mul(vectors.T(), mat.NewDense(cols, d, sum[:d*cols]))
	for c, v := range values {
		row := turned.RawRowView(c)
		// What the noise alone could have made of the gradient is no reason to
		// move: the rest of the way, and no more, is (an empirical Kalman gain,
		// between U_l and the noised Newton estimate).
		shrink(row, sd)
		floats.Scale(1/max(v, 2*sdP, 1e-10*values[cols-1]), row)
	}
	step.Mul(&vectors, &turned)
	s.move(&step)
	s.learnPrior(precondition, sdP)
	s.retract()
}

// move subtracts a step, cols x d, from the mean (its first row, if the
// method is centred) and U.
func (s *State) move(step *mat.Dense) {
	first := 0
	if s.Config.Centred {
		first = 1
		floats.Sub(s.Center, step.RawRowView(0))
		s.boundMean()
	}
	for c := range s.Config.Rank {
		floats.Sub(s.column(c), step.RawRowView(c+first))
	}
}

// learnPrior makes the users' second moment of w the prior: the M-step for
// w ~ N(0, S). A centred method first moves the mean of w into the mean of
// theta; another does not know the users' total weight, so S is right up to a
// factor, which scalePrior supplies.
func (s *State) learnPrior(p *mat.SymDense, sd float64) {
	r := s.Config.Rank
	if r == 0 {
		return
	}
	if !s.Config.Centred {
		s.Model.Prior = make([]float64, r*r)
		var trace float64
		for a := range r {
			for b := range r {
				s.Model.Prior[a*r+b] = p.At(a, b)
			}
			trace += p.At(a, a)
		}
		if !(trace > 4*sd*math.Sqrt(float64(r))) {
			s.Model.Prior = nil
			return
		}
		floats.Scale(1/trace, s.Model.Prior)
		floorEigenvalues(s.Model.Prior, r, 0.01/float64(r))
		return
	}
	mass := p.At(0, 0)
	if !(mass > 4*sd) {
		return
	}
	for a := range r {
		wa := p.At(0, a+1) / mass
		floats.AddScaled(s.Center, wa, s.column(a))
		for b := range r {
			s.Model.Prior[a*r+b] = p.At(a+1, b+1)/mass - wa*p.At(0, b+1)/mass
		}
	}
	floorEigenvalues(s.Model.Prior, r, max(smallestPrior, sd/mass/4))
}

// scalePrior gives the prior of a method that is not centred its size, the
// mean square of ||w||; ok says whether that is known.
func (s *State) scalePrior(square float64, ok bool) {
	if !ok {
		s.Model.Prior = nil
		return
	}
	floats.Scale(square, s.Model.Prior)
}

// smallestPrior keeps the prior over w from becoming singular, in units of
// the response's variance.
const smallestPrior = 1e-4

// floorEigenvalues raises the eigenvalues of a symmetric matrix to a floor.
func floorEigenvalues(a []float64, n int, floor float64) {
	s := mat.NewSymDense(n, nil)
	for i := range n {
		for j := i; j < n; j++ {
			s.SetSym(i, j, (a[i*n+j]+a[j*n+i])/2)
		}
	}
	var eigen mat.EigenSym
	if !eigen.Factorize(s, true) {
		return
	}
	var v mat.Dense
	eigen.VectorsTo(&v)
	clear(a)
	for c, l := range eigen.Values(nil) {
		for i := range n {
			for j := range n {
				a[i*n+j] += max(l, floor) * v.At(i, c) * v.At(j, c)
			}
		}
	}
}

// retract brings U back to orthonormal columns, U = Q R, and the prior over w
// with it: U w = Q (R w).
func (s *State) retract() {
	d, r := s.Config.Dim, s.Config.Rank
	if r == 0 {
		return
	}
	u := mat.DenseCopyOf(mat.NewDense(r, d, s.Basis).T())
	var qr mat.QR
	qr.Factorize(u)
	var q, upper mat.Dense
	qr.QTo(&q)
	qr.RTo(&upper)
	for c := range r {
		mat.Col(s.column(c), c, &q)
	}
	if s.Model.Prior == nil {
		return
	}
	rr := upper.Slice(0, r, 0, r)
	var t, cov mat.Dense
	t.Mul(rr, mat.NewDense(r, r, s.Model.Prior))
	cov.Mul(&t, rr.T())
	s.Model.Prior = make([]float64, r*r)
	for a := range r {
		for b := range r {
			s.Model.Prior[a*r+b] = (cov.At(a, b) + cov.At(b, a)) / 2
		}
	}
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
func (s *State) leastSquares(sum []float64, sd float64) {
	d, cols := s.Config.Dim, s.Config.columns()
	n := d * cols
	a := unpack(sum[n:], n)
	var now []float64
	if s.Config.Centred {
		now = append(now, s.Center...)
	}
	now = append(now, s.Basis...)
	var eigen mat.EigenSym
	if !eigen.Factorize(a, true) {
		return
	}
	values := eigen.Values(nil)
	if !(values[n-1] > 0) {
		return
	}
	// x - now = (A + proximal I)^-1 (B - A now), eigenvalues of A at least 0.
	proximal := spectralNoise(sd, n)
	var v mat.Dense
	eigen.VectorsTo(&v)
	right := mat.NewVecDense(n, append([]float64(nil), sum[:n]...))
	var an, c, step mat.VecDense
	an.MulVec(a, mat.NewVecDense(n, now))
	right.SubVec(right, &an)
	c.MulVec(v.T(), right)
	for i, l := range values {
		curvature := max(l, 0) + proximal
		if curvature > 1e-10*values[n-1] {
			c.SetVec(i, -c.AtVec(i)/curvature)
		} else {
			c.SetVec(i, 0)
		}
	}
	step.MulVec(&v, &c)
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
	s.learnPrior(p, sd/math.Sqrt(float64(d)))
	s.retract()
}
