package lowrank

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

func gaussian(rng *rand.Rand, n int, sd float64) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = sd * rng.NormFloat64()
	}
	return x
}

func gaussianMatrix(rng *rand.Rand, n, m int) *mat.Dense {
	return mat.NewDense(n, m, gaussian(rng, n*m, 1))
}

// randomBasis is a random d x r basis, stored column by column.
func randomBasis(rng *rand.Rand, d, r int) []float64 {
	q, _ := thinQR(gaussianMatrix(rng, d, r))
	return q
}

// columns is the d x r matrix that is stored column by column.
func columns(x []float64, d int) *mat.Dense {
	return mat.DenseCopyOf(mat.NewDense(len(x)/d, d, x).T())
}

// pack is the inverse of unpack.
func pack(m mat.Matrix) []float64 {
	n, _ := m.Dims()
	var out []float64
	for i := range n {
		out = append(out, m.At(i, i))
		for j := i + 1; j < n; j++ {
			out = append(out, math.Sqrt2*m.At(i, j))
		}
	}
	return out
}

// multiply is the product of its arguments.
func multiply(factors ...mat.Matrix) *mat.Dense {
	var out mat.Dense
	out.Product(factors...)
	return &out
}

// subspaceDistance is ||(I - A A^T) B||_2 for orthonormal bases of d x r.
func subspaceDistance(a, b []float64, d int) float64 {
	am, bm := columns(a, d), columns(b, d)
	var off mat.Dense
	off.Sub(bm, multiply(am, am.T(), bm))
	return mat.Norm(&off, 2)
}

func requireClose(t *testing.T, what string, got, want mat.Matrix, tolerance float64) {
	t.Helper()
	var diff mat.Dense
	diff.Sub(got, want)
	if e := mat.Norm(&diff, 2); !(e <= tolerance) {
		t.Fatalf("%s: off by %.3g, allowed %.3g\n got %v\nwant %v", what, e, tolerance,
			mat.Formatted(got, mat.Prefix("     ")), mat.Formatted(want, mat.Prefix("     ")))
	}
}

func identity(n int) *mat.DiagDense {
	d := mat.NewDiagDense(n, nil)
	for i := range n {
		d.SetDiag(i, 1)
	}
	return d
}

// advance steps over one release whose parts are given by name; the others
// stay zero.
func advance(t *testing.T, s *State, parts map[string][]float64, sd float64) *State {
	t.Helper()
	phase, ok := s.Phase()
	if !ok {
		t.Fatal("no release is left")
	}
	layout := s.Config.Layout(phase.Kind)
	sum := make([]float64, layout.Len())
	for name, x := range parts {
		part := layout.Part(name, sum)
		if len(part) != len(x) {
			t.Fatalf("part %q has %d coordinates, not %d", name, len(part), len(x))
		}
		copy(part, x)
	}
	next, err := s.Advance(sum, sd)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// started is the state of a schedule of initialisation and updates only, just
// before the first update, at U.
func started(c Config, u []float64) *State {
	s := c.Start()
	for s.Config.Phases()[s.Step].Kind != Refine {
		s.Step++
	}
	s.Basis = append([]float64(nil), u...)
	if c.Centred {
		s.Model.Prior = make([]float64, c.Rank*c.Rank)
		for i := range c.Rank {
			s.Model.Prior[i*c.Rank+i] = firstPrior
		}
	}
	s.materialise()
	return s
}

// configurations are schedules of all kinds, small enough for any test.
func configurations() []Config {
	var out []Config
	for _, features := range []Features{Standard, Unscaled, OneHot} {
		for _, centred := range []bool{false, true} {
			for _, update := range []Update{Gradient, LeastSquares} {
				for _, rank := range []int{0, 1, 3} {
					for _, sketch := range []int{0, 5} {
						if sketch > 0 && rank == 0 {
							continue
						}
						out = append(out, Config{
							Dim: 6, Rank: rank, Rounds: 3, Features: features,
							Centred: centred, Update: update, Sketch: sketch,
						})
					}
				}
			}
		}
	}
	return out
}

func (c Config) String() string {
	return fmt.Sprintf("%s/centred=%v/%s/rank=%d/sketch=%d", c.Features, c.Centred, c.Update, c.Rank, c.Sketch)
}

// requireSound checks what holds of any state, whatever was summed.
func requireSound(t interface {
	Helper()
	Fatalf(string, ...any)
}, s *State) {
	t.Helper()
	if err := s.check(); err != nil {
		t.Fatalf("step %d: %v", s.Step, err)
	}
	d := s.Config.Dim
	for a := 0; a < len(s.Basis)/d; a++ {
		for b := range a + 1 {
			want := 0.0
			if a == b {
				want = 1
			}
			if dot := floats.Dot(s.column(a), s.column(b)); math.Abs(dot-want) > 1e-10 {
				t.Fatalf("step %d: columns %d and %d of U have product %v", s.Step, a, b, dot)
			}
		}
	}
	if n := floats.Norm(s.Center, 2); n > largestMean*(1+1e-12) {
		t.Fatalf("step %d: the mean has norm %v", s.Step, n)
	}
	if r := s.Config.Rank; s.Model.Prior != nil {
		values, _, err := eigen(symmetrised(mat.NewDense(r, r, s.Model.Prior)))
		if err != nil || !(values[0] > 0) {
			t.Fatalf("step %d: prior of eigenvalues %v, %v", s.Step, values, err)
		}
	}
	if !(s.Balance > 0) || s.Model.NoiseVariance < 0 || s.Model.Scale < 0 {
		t.Fatalf("step %d: balance %v, noise variance %v, scale %v", s.Step, s.Balance, s.Model.NoiseVariance, s.Model.Scale)
	}
}
