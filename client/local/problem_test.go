package local

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"gonum.org/v1/gonum/floats"
)

// problem is one user of the AMHT-LRS model, with the truth.
type problem struct {
	samples Samples
	model   *lowrank.Model
	theta   []float64 // d: U w + b
	b       []float64 // d
}

// world is a population: U*, and a model as after the first rounds.
type world struct {
	d, rank int
	truth   []float64 // U*, column by column
	sigma   float64
	model   lowrank.Model
}

// newWorld draws U* with orthonormal columns. The model's U is that plus a
// perturbation of norm about off; its prior and noise level are the truth.
func newWorld(r *rand.Rand, d, rank int, sigma, off float64) *world {
	w := &world{d: d, rank: rank, sigma: sigma, truth: orthonormal(r, d, rank)}
	w.model = lowrank.Model{Dim: d, Rank: rank, U: slices.Clone(w.truth), Prior: identity(rank), NoiseVariance: sigma * sigma}
	floats.AddScaled(w.model.U, off/math.Sqrt(float64(d*rank)), normal(r, d*rank))
	return w
}

// user draws a user with m samples: x ~ N(0, I), w ~ N(0, I), b with k
// non-zeros of magnitude in [1, 5), and noise of deviation sigma.
func (w *world) user(r *rand.Rand, m, k int) problem {
	d := w.d
	p := problem{model: &w.model, theta: make([]float64, d), b: make([]float64, d)}
	for c := range w.rank {
		floats.AddScaled(p.theta, r.NormFloat64(), w.truth[c*d:(c+1)*d])
	}
	for _, j := range r.Perm(d)[:k] {
		p.b[j] = (1 + 4*r.Float64()) * float64(1-2*r.IntN(2))
	}
	floats.Add(p.theta, p.b)
	p.samples.X = normal(r, m*d)
	p.samples.Y = make([]float64, m)
	for i := range m {
		p.samples.Y[i] = floats.Dot(p.samples.X[i*d:(i+1)*d], p.theta) + w.sigma*r.NormFloat64()
	}
	return p
}

func normal(r *rand.Rand, n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = r.NormFloat64()
	}
	return x
}

func identity(n int) []float64 {
	a := make([]float64, n*n)
	for i := range n {
		a[i*n+i] = 1
	}
	return a
}

// orthonormal returns d x r, column by column.
func orthonormal(r *rand.Rand, d, rank int) []float64 {
	u := normal(r, d*rank)
	for c := range rank {
		col := u[c*d : (c+1)*d]
		for range 2 {
			for a := range c {
				other := u[a*d : (a+1)*d]
				floats.AddScaled(col, -floats.Dot(col, other), other)
			}
		}
		floats.Scale(1/floats.Norm(col, 2), col)
	}
	return u
}
