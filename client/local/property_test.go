package local

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"pgregory.net/rapid"
)

// anything draws a model and samples of any shape and size: heavy-tailed
// values of any scale up to 1e40, and columns and rows that repeat or vanish.
func anything(r *rand.Rand, d, m, rank int, compacted bool) (*lowrank.Model, Samples) {
	w := newWorld(r, d, min(rank, d), 0.1, math.Exp(4*r.NormFloat64()))
	w.model.NoiseVariance *= float64(r.IntN(3))
	if r.IntN(3) == 0 {
		w.model.Prior = nil
	}
	if r.IntN(3) == 0 {
		w.model.Mean = normal(r, d)
	}
	if r.IntN(3) == 0 {
		w.model.Scale = math.Exp(8 * r.NormFloat64())
	}
	s := Samples{X: normal(r, m*d), Y: normal(r, m)}
	tail, size := 5*r.Float64(), math.Pow(10, 30*(2*r.Float64()-1))
	for i, v := range s.X {
		s.X[i] = v * math.Exp(tail*r.NormFloat64()) * size
	}
	for i, v := range s.Y {
		s.Y[i] = v * math.Exp(tail*r.NormFloat64())
	}
	for range r.IntN(4) { // column b becomes a multiple of column a, or zero
		a, b, f := r.IntN(d), r.IntN(d), float64(r.IntN(3)-1)
		for i := range m {
			s.X[i*d+b] = f * s.X[i*d+a]
		}
	}
	if m > 0 && r.IntN(4) == 0 {
		copy(s.X[(m-1)*d:], s.X[:d])
	}
	if compacted {
		var columns []int32
		for f := range int32(d) {
			if r.IntN(2) == 0 {
				columns = append(columns, f)
			}
		}
		s = compact(&s, d, append([]int32{}, columns...))
	}
	return &w.model, s
}

func checkAnything(t interface {
	Helper()
	Fatalf(string, ...any)
}, seed uint64, d, m, rank, k int, compacted, hard bool) {
	t.Helper()
	model, data := anything(rand.New(rand.NewPCG(seed, 0)), d, m, rank, compacted)
	s := Solver{Sparsity: k, HardThreshold: hard}
	fit, err := s.Solve(model, data)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if wrong := sound(fit, &s, data); wrong != "" {
		t.Fatalf("the fit %s: %+v", wrong, fit)
	}
	for _, state := range states(model) {
		contribute(t, state, data, k)
	}
}

func TestAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		checkAnything(t, rapid.Uint64().Draw(t, "seed"),
			rapid.IntRange(1, 15).Draw(t, "d"), rapid.IntRange(0, 40).Draw(t, "m"),
			rapid.IntRange(0, 4).Draw(t, "r"), rapid.IntRange(0, 6).Draw(t, "k"),
			rapid.Bool().Draw(t, "compact"), rapid.Bool().Draw(t, "hard"))
	})
}

func FuzzAnything(f *testing.F) {
	f.Add(uint64(1), byte(10), byte(20), byte(2), byte(3), false, false)
	f.Add(uint64(2), byte(5), byte(3), byte(4), byte(6), true, true)
	f.Fuzz(func(t *testing.T, seed uint64, d, m, rank, k byte, compacted, hard bool) {
		checkAnything(t, seed, 1+int(d%16), int(m%64), int(rank%5), int(k%8), compacted, hard)
	})
}

// TestStorage: a fit does not depend on what its solver fitted before.
func TestStorage(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	old := Solver{}
	shared := Contributor{}
	for range 300 {
		model, data := anything(r, 1+r.IntN(15), r.IntN(40), r.IntN(4), r.IntN(2) == 0)
		k, hard := r.IntN(6), r.IntN(2) == 0
		fresh := Solver{Sparsity: k, HardThreshold: hard}
		old.Sparsity, old.HardThreshold = k, hard
		a, err := fresh.Solve(model, data)
		if err != nil {
			t.Fatal(err)
		}
		b, err := old.Solve(model, data)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(a.W, b.W) || !slices.Equal(a.Cov, b.Cov) || !slices.Equal(a.B, b.B) ||
			!slices.Equal(a.Support, b.Support) || !slices.Equal(a.Resid, b.Resid) || a.Freedom != b.Freedom {
			t.Fatalf("a fresh solver finds %+v, a used one %+v", a, b)
		}
		shared.Solver.Sparsity = k
		for _, state := range states(model) {
			want := contribute(t, state, data, k)
			got := make([]float64, len(want))
			if err := shared.Contribute(got, state, data); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("step %d of %+v: a used contributor differs", state.Step, state.Config)
			}
		}
	}
}

// TestNoAllocation, once storage has grown.
func TestNoAllocation(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	w := newWorld(r, 12, 2, 0.1, 0.05)
	data := w.user(r, 30, 3).samples
	for _, hard := range []bool{false, true} {
		for _, state := range states(&w.model) {
			phase, _ := state.Phase()
			dst := make([]float64, state.Config.Layout(phase.Kind).Len())
			c := Contributor{Solver: Solver{Sparsity: 3, HardThreshold: hard}}
			if n := testing.AllocsPerRun(10, func() {
				if err := c.Contribute(dst, state, data); err != nil {
					t.Fatal(err)
				}
			}); n != 0 {
				t.Errorf("%s of %+v: %v allocations", phase.Kind, state.Config, n)
			}
		}
	}
	model := w.model
	p := &Personal{W: []float64{1, 2}, B: []Entry{{3, 1}}}
	if n := testing.AllocsPerRun(10, func() {
		if _, err := Predict(&model, p, data.X[:12], nil); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Predict: %v allocations", n)
	}
}
