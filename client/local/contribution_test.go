package local

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"gonum.org/v1/gonum/mat"
)

// setting is a state and a user, and the same as dense matrices.
type setting struct {
	state *lowrank.State
	data  Samples
	fit   *Fit
	x     *mat.Dense    // m x d: whitened, X W
	y     *mat.VecDense // m: scaled
	b     *mat.VecDense // d: the user's, on the features as they are
	wt    *mat.VecDense // w~
	v     *mat.Dense    // posterior covariance of w~
	basis *mat.Dense    // d x columns: [center B], or B
	raw   *mat.Dense    // m x d: X
}

// newSetting draws a user, half of them in compact columns, for a state
// before the release at the given step of the schedule.
func newSetting(t *testing.T, r *rand.Rand, c lowrank.Config, step, m int) *setting {
	t.Helper()
	d, rank := c.Dim, c.Rank
	s := c.Start()
	s.Step, s.Balance = step, 0.3+r.Float64()
	s.Model.Scale, s.Model.NoiseVariance, s.Model.Prior = 2, 0.2, identity(rank)
	white := mat.NewDense(d, d, identity(d))
	switch kind := c.Phases()[step].Kind; {
	case c.Features == lowrank.Unscaled && kind == lowrank.Moments:
		s.White.Diagonal = make([]float64, d)
		for j := range d {
			s.White.Diagonal[j] = 0.5 + r.Float64()
			white.Set(j, j, s.White.Diagonal[j])
		}
	case c.Features == lowrank.Unscaled && kind != lowrank.Scales:
		s.White.Dense = normal(r, d*d)
		white = mat.NewDense(d, d, s.White.Dense)
	}
	s.Basis = orthonormal(r, d, rank)
	if c.Centred {
		s.Center = normal(r, d)
		s.Model.Mean = make([]float64, d)
		s.White.Raw(s.Model.Mean, s.Center)
	}
	s.Model.Rank, s.Model.U = rank, make([]float64, d*rank)
	for k := range rank {
		s.White.Raw(s.Model.Column(k), s.Basis[k*d:(k+1)*d])
	}

	o := &setting{state: s, x: &mat.Dense{}, b: mat.NewVecDense(d, nil)}
	full := Samples{X: normal(r, m*d), Y: normal(r, m)}
	o.data = full
	if r.IntN(2) == 0 {
		columns := []int32{0, 2, 3, 5}
		for i := range m {
			for f := range d {
				if !slices.Contains(columns, int32(f)) {
					full.X[i*d+f] = 0
				}
			}
		}
		o.data = compact(&full, d, columns)
	}
	o.raw = mat.NewDense(m, d, full.X)
	o.x.Mul(o.raw, white)
	o.y = mat.NewVecDense(m, slices.Clone(full.Y))
	o.y.ScaleVec(0.5, o.y)
	solver := Solver{Sparsity: 2}
	model := s.Model
	if c.Phases()[step].Kind != lowrank.Refine {
		model.Rank, model.U, model.Prior, model.NoiseVariance = 0, nil, nil, 0
	}
	fit, err := solver.Solve(&model, o.data)
	if err != nil {
		t.Fatal(err)
	}
	o.fit = fit
	for a, j := range fit.Support {
		o.b.SetVec(o.data.feature(j), fit.B[a])
	}
	wt, first := fit.W, 0
	basis := s.Basis
	if c.Centred {
		wt, first = append([]float64{1}, fit.W...), 1
		basis = append(slices.Clone(s.Center), basis...)
	}
	if len(wt) == 0 {
		return o
	}
	cols := len(wt)
	o.wt = mat.NewVecDense(cols, wt)
	o.v = mat.NewDense(cols, cols, nil)
	for a := range len(fit.W) {
		for b := range len(fit.W) {
			o.v.Set(a+first, b+first, fit.Cov[a*len(fit.W)+b])
		}
	}
	if len(basis) == d*cols {
		o.basis = mat.DenseCopyOf(mat.NewDense(cols, d, basis).T())
	}
	return o
}

// objective is half the expected residual sum of squares, E over w.
func (o *setting) objective(basis *mat.Dense) float64 {
	var theta, e, xb mat.VecDense
	theta.MulVec(basis, o.wt)
	e.MulVec(o.x, &theta)
	xb.MulVec(o.raw, o.b)
	e.AddVec(&e, &xb)
	e.SubVec(o.y, &e)
	var xu, xuv, spread mat.Dense
	xu.Mul(o.x, basis)
	xuv.Mul(&xu, o.v)
	spread.Mul(&xuv, xu.T())
	return (mat.Dot(&e, &e) + mat.Trace(&spread)) / 2
}

// pack is the upper triangle with off-diagonal entries times sqrt(2).
func pack(a mat.Matrix) []float64 {
	var out []float64
	n, _ := a.Dims()
	for i := range n {
		out = append(out, a.At(i, i))
		for j := i + 1; j < n; j++ {
			out = append(out, math.Sqrt2*a.At(i, j))
		}
	}
	return out
}

// same fails unless got is want, scaled to the given norm, up to rounding or
// the error of a finite difference.
func same(t *testing.T, what string, got, want []float64, norm float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d coordinates, not %d", what, len(got), len(want))
	}
	n := mat.Norm(mat.NewVecDense(len(want), want), 2)
	for i := range want {
		if !(math.Abs(got[i]-norm*want[i]/n) <= 1e-7) {
			t.Fatalf("%s: coordinate %d is %v, not %v", what, i, got[i], norm*want[i]/n)
		}
	}
}

func columnwise(a *mat.Dense) []float64 { return mat.DenseCopyOf(a.T()).RawMatrix().Data }

// secondMoment is w~ w~^T + V.
func (o *setting) secondMoment() *mat.Dense {
	var p mat.Dense
	p.Outer(1, o.wt, o.wt)
	p.Add(&p, o.v)
	return &p
}

var updates = []lowrank.Config{
	{Dim: 7, Rank: 2, Features: lowrank.Standard, Rounds: 1},
	{Dim: 7, Rank: 3, Features: lowrank.Unscaled, Rounds: 1, Centred: true},
	{Dim: 7, Rank: 0, Features: lowrank.Unscaled, Rounds: 1, Centred: true},
}

// TestGradient: [G ; kappa P] of norm 1, with G the gradient of the expected
// residual sum of squares by finite differences, and the histograms' bins.
func TestGradient(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 21))
	for _, c := range updates {
		c.Update = lowrank.Gradient
		for range 20 {
			o := newSetting(t, r, c, len(c.Phases())-1, 15)
			d, cols := o.basis.Dims()
			g := mat.NewDense(d, cols, nil)
			for i := range d {
				for j := range cols {
					at := o.basis.At(i, j)
					o.basis.Set(i, j, at+0.5)
					up := o.objective(o.basis)
					o.basis.Set(i, j, at-0.5) // exact for a square
					g.Set(i, j, up-o.objective(o.basis))
					o.basis.Set(i, j, at)
				}
			}
			free := 15 - o.fit.Freedom
			p := o.secondMoment()
			p.Scale(free, p)
			ratio := mat.Norm(g, 2) / mat.Norm(p, 2)
			p.Scale(o.state.Balance, p)
			want := append(columnwise(g), pack(p)...)

			dst := contribute(t, o.state, o.data, 2)
			layout := c.Layout(lowrank.Refine)
			same(t, "main", layout.Part(lowrank.PartMain, dst), want, 1)
			bins := map[string]float64{
				lowrank.PartNoise:   math.Sqrt(mat.Dot(mat.NewVecDense(15, o.fit.Resid), mat.NewVecDense(15, o.fit.Resid)) / free),
				lowrank.PartBalance: ratio,
			}
			if !c.Centred {
				bins[lowrank.PartSize] = math.Sqrt(mat.Trace(o.secondMoment()))
			}
			for name, x := range bins {
				part := layout.Part(name, dst)
				want := make([]float64, len(part))
				lowrank.MarkBin(want, x)
				if !slices.Equal(part, want) {
					t.Errorf("%s = %v: marked %v", name, x, part)
				}
			}
		}
	}
}

// TestLeastSquares: [B ; A] of norm 1, A = (w~ w~^T + V) (x) X^T X.
func TestLeastSquares(t *testing.T) {
	r := rand.New(rand.NewPCG(22, 22))
	for _, c := range updates {
		c.Update = lowrank.LeastSquares
		for range 10 {
			o := newSetting(t, r, c, len(c.Phases())-1, 15)
			var gram, a, b mat.Dense
			gram.Mul(o.x.T(), o.x)
			a.Kronecker(o.secondMoment(), &gram)
			var e, xe mat.VecDense
			e.MulVec(o.raw, o.b)
			e.SubVec(o.y, &e)
			xe.MulVec(o.x.T(), &e)
			b.Outer(1, &xe, o.wt)
			dst := contribute(t, o.state, o.data, 2)
			same(t, "main", c.Layout(lowrank.Refine).Part(lowrank.PartMain, dst), append(columnwise(&b), pack(&a)...), 1)
		}
	}
}

// TestPairwise: the double sum over pairs of samples, and its sketch.
func TestPairwise(t *testing.T) {
	r := rand.New(rand.NewPCG(23, 23))
	for _, sketch := range []int{0, 4} {
		for _, c := range updates[:2] {
			c.Sketch = sketch
			for range 10 {
				step := slices.IndexFunc(c.Phases(), func(p lowrank.Phase) bool { return p.Kind == lowrank.Initialise })
				o := newSetting(t, r, c, step, 8)
				sum := mat.NewDense(c.Dim, c.Dim, nil)
				for i := range 8 {
					for j := range 8 {
						if i != j {
							var pair mat.Dense
							pair.Outer(o.fit.Resid[i]*o.fit.Resid[j], o.x.RowView(i), o.x.RowView(j))
							sum.Add(sum, &pair)
						}
					}
				}
				want := pack(sum)
				if sketch > 0 {
					var m mat.Dense
					m.Mul(sum, mat.NewDense(sketch, c.Dim, o.state.Omega()).T())
					want = columnwise(&m)
				}
				dst := contribute(t, o.state, o.data, 2)
				same(t, "main", c.Layout(lowrank.Initialise).Part(lowrank.PartMain, dst), want, 1)
			}
		}
	}
}

// TestStatistics of the features: scales, moments, items, and the responses'
// size.
func TestStatistics(t *testing.T) {
	r := rand.New(rand.NewPCG(24, 24))
	unscaled := updates[1]
	oneHot := unscaled
	oneHot.Features = lowrank.OneHot
	d := unscaled.Dim
	for range 20 {
		o := newSetting(t, r, unscaled, 0, 9)
		size := 2 * math.Sqrt(mat.Dot(o.y, o.y)/9)
		dst := contribute(t, o.state, o.data, 2)
		layout := unscaled.Layout(lowrank.Scales)
		main := layout.Part(lowrank.PartMain, dst)
		bins := len(main) / d
		want := make([]float64, len(main))
		for j := range d {
			x := o.raw.ColView(j)
			if b := lowrank.ScaleBin(math.Sqrt(mat.Dot(x, x) / 9)); b >= 0 {
				want[j*bins+b] = 1 / math.Sqrt(float64(d))
			}
		}
		if !slices.Equal(main, want) {
			t.Fatalf("scales: %v, not %v", main, want)
		}
		response := layout.Part(lowrank.PartResponse, dst)
		if response[lowrank.Bin(size)] == 0 {
			t.Fatalf("responses of size %v marked in %v", size, response)
		}

		o = newSetting(t, r, unscaled, 1, 9)
		var gram mat.Dense
		var cross mat.VecDense
		gram.Mul(o.x.T(), o.x)
		cross.MulVec(o.x.T(), o.y)
		cross.ScaleVec(1/math.Sqrt(mat.Dot(o.y, o.y)/9), &cross)
		dst = contribute(t, o.state, o.data, 2)
		same(t, "moments", unscaled.Layout(lowrank.Moments).Part(lowrank.PartMain, dst), append(pack(&gram), cross.RawVector().Data...), 1)

		// Items: ratings of five of six, and the constant.
		o = newSetting(t, r, oneHot, 0, 5)
		o.data = Samples{X: make([]float64, 5*d), Y: normal(r, 5)}
		want = make([]float64, 2*d)
		for i, f := range r.Perm(d - 1)[:5] {
			o.data.X[i*d+f], o.data.X[i*d+d-1] = 1, 1
			want[f] = math.Sqrt2 / 2 / math.Sqrt(5)
			want[d+f] = want[f] * o.data.Y[i] / rms(o.data.Y)
		}
		dst = contribute(t, o.state, o.data, 2)
		same(t, "items", oneHot.Layout(lowrank.Items).Part(lowrank.PartMain, dst), want, 1)
	}
}
