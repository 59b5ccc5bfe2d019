package lowrank

import (
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// quadratic is a population without noise: user i's parameters are
// mean + U w_i, X_i^T X_i is given, and w_i is known.
type quadratic struct {
	d, r int
	mean []float64 // d, zero where the method has none
	u    []float64
	w    [][]float64
	gram []*mat.SymDense
	free []float64 // weight m - f of the curvature
	// weights are free times the users' 1/||.|| in the last gradientSum.
	weights []float64
}

// newQuadratic draws n users, of isotropic features or of any.
func newQuadratic(rng *rand.Rand, d, r, n int, isotropic bool) *quadratic {
	q := &quadratic{d: d, r: r, mean: make([]float64, d), u: randomBasis(rng, d, r)}
	for range n {
		q.w = append(q.w, gaussian(rng, r, 1))
		free := 1 + 9*rng.Float64()
		q.free = append(q.free, free)
		var gram *mat.SymDense
		if isotropic {
			gram = mat.NewSymDense(d, nil)
			for i := range d {
				gram.SetSym(i, i, free)
			}
		} else {
			x := gaussianMatrix(rng, 3, d)
			gram = symmetrised(multiply(x.T(), x))
		}
		q.gram = append(q.gram, gram)
	}
	return q
}

// coordinates is w~ of user i.
func (q *quadratic) coordinates(i int, centred bool) *mat.VecDense {
	w := q.w[i]
	if centred {
		w = append([]float64{1}, w...)
	}
	return mat.NewVecDense(len(w), w)
}

// columns is the true [mean U], or U.
func (q *quadratic) columns(centred bool) *mat.Dense {
	u := q.u
	if centred {
		u = append(append([]float64(nil), q.mean...), u...)
	}
	return columns(u, q.d)
}

// gradientSum is the sum of [G ; kappa P]/||.|| at the state's own mean and U,
// each user's w being the true one.
func (q *quadratic) gradientSum(s *State) []float64 {
	centred := s.Config.Centred
	at := columns(append(append([]float64(nil), s.Center...), s.Basis...), q.d)
	var off mat.Dense
	off.Sub(at, q.columns(centred))
	var sum []float64
	q.weights = nil
	for i := range q.w {
		w := q.coordinates(i, centred)
		ww := multiply(w, w.T())
		g := multiply(q.gram[i], &off, ww)
		one := mat.DenseCopyOf(g.T()).RawMatrix().Data
		ww.Scale(q.free[i], ww)
		p := pack(ww)
		floats.Scale(s.Balance, p)
		one = append(one, p...)
		norm := floats.Norm(one, 2)
		q.weights = append(q.weights, q.free[i]/norm)
		floats.Scale(1/norm, one)
		if sum == nil {
			sum = make([]float64, len(one))
		}
		floats.Add(sum, one)
	}
	return sum
}

// leastSquaresSum is the sum of [B ; A]/||.||, and the A and B that the
// normal equations of the same weighted users have.
func (q *quadratic) leastSquaresSum(centred bool) (sum []float64, a *mat.Dense, b *mat.VecDense) {
	for i := range q.w {
		w := q.coordinates(i, centred)
		ww := multiply(w, w.T())
		var ai mat.Dense
		ai.Kronecker(ww, q.gram[i])
		bi := mat.DenseCopyOf(multiply(q.gram[i], q.columns(centred), ww).T()).RawMatrix().Data
		one := append(append([]float64(nil), bi...), pack(&ai)...)
		weight := 1 / floats.Norm(one, 2)
		floats.Scale(weight, one)
		ai.Scale(weight, &ai)
		if sum == nil {
			sum, a, b = make([]float64, len(one)), new(mat.Dense), mat.NewVecDense(len(bi), nil)
			a.CloneFrom(&ai)
			a.Zero()
		}
		floats.Add(sum, one)
		a.Add(a, &ai)
		b.AddScaledVec(b, weight, mat.NewVecDense(len(bi), bi))
	}
	return sum, a, b
}

func TestGradientLandsOnTheMinimiser(t *testing.T) {
	const d, r, users = 12, 3, 30
	for _, centred := range []bool{false, true} {
		rng := seeded(1)
		q := newQuadratic(rng, d, r, users, true)
		c := Config{Dim: d, Rank: r, Rounds: 2, Features: Standard, Centred: centred, Update: Gradient}
		if centred {
			q.mean = gaussian(rng, d, 0.1)
		}
		s := started(c, randomBasis(rng, d, r))
		next := advance(t, s, map[string][]float64{PartMain: q.gradientSum(s)}, 0)
		requireSound(t, next)
		if e := subspaceDistance(q.u, next.Basis, d); e > 1e-9 {
			t.Errorf("centred %v: one Newton step leaves U at distance %v", centred, e)
		}
		if centred {
			requireMeanAndPrior(t, q, next)
		}
	}
}

// requireMeanAndPrior checks the centred M-step against its closed form: the
// mean of theta moves to mean + U mean(w), and the prior is the covariance of
// U w, both over the users as weighted in the sum.
func requireMeanAndPrior(t *testing.T, q *quadratic, next *State) {
	t.Helper()
	mean, second, mass := mat.NewVecDense(q.r, nil), mat.NewDense(q.r, q.r, nil), 0.0
	for i, weight := range q.weights {
		w := q.coordinates(i, false)
		mean.AddScaledVec(mean, weight, w)
		ww := multiply(w, w.T())
		ww.Scale(weight, ww)
		second.Add(second, ww)
		mass += weight
	}
	mean.ScaleVec(1/mass, mean)
	second.Scale(1/mass, second)
	second.Sub(second, multiply(mean, mean.T()))
	u := columns(q.u, q.d)
	var center mat.Dense
	center.Add(mat.NewVecDense(q.d, q.mean), multiply(u, mean))
	requireClose(t, "mean", mat.NewVecDense(q.d, next.Center), &center, 1e-9)
	v := columns(next.Basis, q.d)
	prior := mat.NewDense(q.r, q.r, next.Model.Prior)
	requireClose(t, "covariance of U w", multiply(v, prior, v.T()), multiply(u, second, u.T()), 1e-9)
}

// TestLeastSquaresIsTheNormalEquations: U's span is that of the solution of
// A vec(U) = vec(V).
func TestLeastSquaresIsTheNormalEquations(t *testing.T) {
	const d, r, users = 8, 2, 40
	for _, centred := range []bool{false, true} {
		rng := seeded(2)
		q := newQuadratic(rng, d, r, users, false)
		c := Config{Dim: d, Rank: r, Rounds: 2, Features: Standard, Centred: centred, Update: LeastSquares}
		if centred {
			q.mean = gaussian(rng, d, 0.1)
		}
		sum, a, b := q.leastSquaresSum(centred)
		// Noise in the responses, so that the solution is not the truth.
		noise := gaussian(rng, b.Len(), 0.1)
		floats.Add(sum[:b.Len()], noise)
		b.AddVec(b, mat.NewVecDense(b.Len(), noise))
		var x mat.VecDense
		if err := x.SolveVec(a, b); err != nil {
			t.Fatal(err)
		}
		s := started(c, randomBasis(rng, d, r))
		next := advance(t, s, map[string][]float64{PartMain: sum}, 0)
		requireSound(t, next)
		u := x.RawVector().Data
		if centred {
			mean := u[:d]
			u = u[d:]
			// The M-step moved the mean within U's span.
			v := columns(next.Basis, d)
			var off mat.Dense
			off.Sub(mat.NewVecDense(d, next.Center), mat.NewVecDense(d, mean))
			off.Sub(&off, multiply(v, v.T(), &off))
			if e := mat.Norm(&off, 2); e > 1e-9 {
				t.Errorf("the mean is off by %v", e)
			}
		}
		want, _ := thinQR(columns(u, d))
		if e := subspaceDistance(want, next.Basis, d); e > 1e-9 {
			t.Errorf("centred %v: U at distance %v from the normal equations' solution", centred, e)
		}
		if e := subspaceDistance(q.u, want, d); e < 1e-3 {
			t.Errorf("the solution is the truth itself, at %v: the test shows nothing", e)
		}
	}
}

// TestPriorOfUncentred: S has the shape of the users' second moment of w and
// the trace that the histogram of ||w|| says.
func TestPriorOfUncentred(t *testing.T) {
	const d, r = 10, 2
	rng := seeded(3)
	c := Config{Dim: d, Rank: r, Rounds: 2, Features: Standard, Update: Gradient}
	s := started(c, randomBasis(rng, d, r))
	p := mat.NewSymDense(r, []float64{3, 1, 1, 2})
	sizes := make([]float64, histogramBins)
	sizes[Bin(1.5)] = 100
	main := make([]float64, c.Layout(Refine)[0].Len)
	copy(main[d*r:], pack(p))
	next := advance(t, s, map[string][]float64{PartMain: main, PartSize: sizes}, 0)
	_, square, _ := typical(sizes, 0)
	var want, got mat.Dense
	want.Scale(square/mat.Trace(p), p)
	// No gradient: U stays, up to the signs of its columns.
	turn := multiply(columns(s.Basis, d).T(), columns(next.Basis, d))
	got.Product(turn, mat.NewDense(r, r, next.Model.Prior), turn.T())
	requireClose(t, "prior", &got, &want, 1e-12)

	// A size that does not stand out leaves the prior flat, and so does a
	// preconditioner that does not.
	if next := advance(t, s, map[string][]float64{PartMain: main}, 0); next.Model.Prior != nil {
		t.Errorf("prior %v of unknown size", next.Model.Prior)
	}
	if next := advance(t, s, map[string][]float64{PartMain: main, PartSize: sizes}, 1); next.Model.Prior != nil {
		t.Errorf("prior %v from noise", next.Model.Prior)
	}
}

// TestNobodyContributes: a round of zeros leaves U, mean and prior where they
// were.
func TestNobodyContributes(t *testing.T) {
	for _, update := range []Update{Gradient, LeastSquares} {
		c := Config{Dim: 6, Rank: 2, Rounds: 2, Features: Standard, Centred: true, Update: update}
		s := started(c, randomBasis(seeded(4), 6, 2))
		next := advance(t, s, nil, 0)
		requireClose(t, "U", columns(next.Basis, 6), columns(s.Basis, 6), 0)
		requireClose(t, "prior", mat.NewDense(2, 2, next.Model.Prior), mat.NewDense(2, 2, s.Model.Prior), 0)
		if next.Change > 1e-14 || floats.Norm(next.Center, 2) != 0 {
			t.Errorf("%s: moved by %v, mean %v", update, next.Change, next.Center)
		}
	}
}

// TestRetract: the span and the distribution of U w stay.
func TestRetract(t *testing.T) {
	const d, r = 9, 3
	rng := seeded(5)
	u := gaussian(rng, d*r, 1)
	g := gaussianMatrix(rng, r, 2*r)
	prior := multiply(g, g.T())
	before := multiply(columns(u, d), prior, columns(u, d).T())
	s := &State{Config: Config{Dim: d, Rank: r}, Basis: append([]float64(nil), u...)}
	s.Model.Prior = append([]float64(nil), prior.RawMatrix().Data...)
	if err := s.retract(0); err != nil {
		t.Fatal(err)
	}
	requireSound(t, withBalance(s))
	v := columns(s.Basis, d)
	requireClose(t, "U, projected on its span", multiply(v, v.T(), columns(u, d)), columns(u, d), 1e-12)
	requireClose(t, "U S U^T", multiply(v, mat.NewDense(r, r, s.Model.Prior), v.T()), before, 1e-10*mat.Norm(before, 2))
}

// TestRetractOfDependentColumns: a column that a step has made a multiple of
// another becomes a new direction, in which the prior is at its floor.
func TestRetractOfDependentColumns(t *testing.T) {
	const d, floor = 5, 0.01
	u := make([]float64, 2*d)
	u[0], u[d] = 1, 2
	s := withBalance(&State{Config: Config{Dim: d, Rank: 2}, Basis: u})
	s.Model.Prior = []float64{1, 0, 0, 1}
	if err := s.retract(floor); err != nil {
		t.Fatal(err)
	}
	requireSound(t, s)
	values, _, err := eigen(symmetrised(mat.NewDense(2, 2, s.Model.Prior)))
	if err != nil || floats.Distance(values, []float64{floor, 5}, 2) > 1e-12 {
		t.Errorf("prior of eigenvalues %v, %v", values, err)
	}
}

func withBalance(s *State) *State {
	s.Balance = 1
	return s
}

// TestGradientUnderNoise: a step is the gradient's gain over the curvature,
// and no curvature counts for less than twice its noise.
func TestGradientUnderNoise(t *testing.T) {
	const d, r, sd = 4, 2, 0.5
	c := Config{Dim: d, Rank: r, Rounds: 1, Features: Standard, Update: Gradient}
	s := started(c, []float64{1, 0, 0, 0, 0, 1, 0, 0})
	sdP := sd / s.Balance
	p := mat.NewDiagDense(r, []float64{s.Balance * 20 * sdP, s.Balance * sdP})
	main := append([]float64{0, 0, -2, 0, 0, 0, 0, -0.8}, pack(p)...) // noise 1 in norm
	next := advance(t, s, map[string][]float64{PartMain: main}, sd)
	want, _ := thinQR(columns([]float64{1, 0, 2 * 0.75 / (20 * sdP), 0, 0, 1, 0, 0}, d))
	if e := subspaceDistance(want, next.Basis, d); e > 1e-12 {
		t.Errorf("U at distance %v from the damped step", e)
	}
	main[2*d-1] = -4
	next = advance(t, s, map[string][]float64{PartMain: main}, sd)
	want, _ = thinQR(columns([]float64{1, 0, 2 * 0.75 / (20 * sdP), 0, 0, 1, 0, 4 * (1 - 1.0/16) / (2 * sdP)}, d))
	if e := subspaceDistance(want, next.Basis, d); e > 1e-12 {
		t.Errorf("U at distance %v from the damped step, curvature %v in noise %v", e, sdP, sdP)
	}
}

// TestGradientWithoutCurvature: a column that nobody weighs is no division by
// zero.
func TestGradientWithoutCurvature(t *testing.T) {
	c := Config{Dim: 3, Rank: 2, Rounds: 1, Features: Standard, Update: Gradient}
	s := started(c, []float64{1, 0, 0, 0, 1, 0})
	main := append([]float64{0, 0, 0.1, 0, 0, 0.1}, 1, 0, 0)
	requireSound(t, advance(t, s, map[string][]float64{PartMain: main}, 0))
}

// TestLeastSquaresUnderNoise: the proximal term shortens the step by what the
// noise adds to the curvature, which is nowhere negative.
func TestLeastSquaresUnderNoise(t *testing.T) {
	const d, sd = 3, 0.2
	c := Config{Dim: d, Rank: 1, Rounds: 1, Features: Standard, Update: LeastSquares}
	s := started(c, []float64{1, 0, 0})
	a := mat.NewDiagDense(d, []float64{5, 4, -0.1})
	main := append([]float64{5, 2, 0.3}, pack(a)...) // B = A U + (0, 2, 0.3)
	next := advance(t, s, map[string][]float64{PartMain: main}, sd)
	proximal := spectralNoise(sd, d)
	want, _ := thinQR(columns([]float64{1, 2 / (4 + proximal), 0.3 / proximal}, d))
	if e := subspaceDistance(want, next.Basis, d); e > 1e-12 {
		t.Errorf("U at distance %v from the damped step", e)
	}
}

// TestLeastSquaresPriorUnderNoise: the partial trace that gives the users'
// total weight averages d entries, and so has noise sd/sqrt(d).
func TestLeastSquaresPriorUnderNoise(t *testing.T) {
	const d = 4
	c := Config{Dim: d, Rank: 1, Rounds: 1, Features: Standard, Centred: true, Update: LeastSquares}
	s := started(c, []float64{1, 0, 0, 0})
	var a mat.Dense
	a.Kronecker(mat.NewDense(2, 2, []float64{1, 0, 0, 0.5}), identity(d))
	now := append(make([]float64, d), s.Basis...)
	b := multiply(&a, mat.NewVecDense(2*d, now)).RawMatrix().Data
	main := append(b, pack(&a)...)
	for _, tc := range []struct{ sd, prior float64 }{
		{2 * 0.2, 0.5},        // weight 1 is 5 standard deviations
		{2 * 0.3, firstPrior}, // 3.3: nothing learned
	} {
		next := advance(t, s, map[string][]float64{PartMain: main}, tc.sd)
		if got := next.Model.Prior[0]; got < 0.99*tc.prior || got > 1.01*tc.prior {
			t.Errorf("noise %v: prior %v, want %v", tc.sd, got, tc.prior)
		}
	}
}

// TestPriorFloorOfUncentred: a direction without any w keeps a hundredth of
// the average variance.
func TestPriorFloorOfUncentred(t *testing.T) {
	c := Config{Dim: 3, Rank: 2, Rounds: 1, Features: Standard, Update: Gradient}
	s := started(c, []float64{1, 0, 0, 0, 1, 0})
	sizes := make([]float64, histogramBins)
	sizes[Bin(1)] = 100
	_, square, _ := typical(sizes, 0)
	next := advance(t, s, map[string][]float64{PartMain: {0, 0, 0, 0, 0, 0, 1, 0, 0}, PartSize: sizes}, 0)
	want := []float64{square, 0, 0, smallestShare * square / 2}
	if !floats.EqualApprox(next.Model.Prior, want, 1e-14) {
		t.Errorf("prior %v, want %v", next.Model.Prior, want)
	}
}
