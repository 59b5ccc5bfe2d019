package local

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"gonum.org/v1/gonum/floats"
)

// sound reports what is wrong with a fit, whatever it was fitted to.
func sound(f *Fit, s *Solver, data Samples) string {
	y := floats.Norm(s.y, 2) // scaled and less the mean's
	for _, v := range [][]float64{f.W, f.Cov, f.B, f.Resid, {f.Freedom}} {
		for _, x := range v {
			if math.IsNaN(x) || math.IsInf(x, 0) {
				return "is not finite"
			}
		}
	}
	sorted := slices.Clone(f.Support)
	slices.Sort(sorted)
	switch m := len(data.Y); {
	case floats.Norm(f.Resid, 2) > (1+1e-6)*y:
		return "leaves a residual larger than y"
	case len(f.Resid) != m || len(f.B) != len(f.Support) || len(f.Cov) != len(f.W)*len(f.W):
		return "has parts of other lengths"
	case len(f.Support) > max(0, s.Sparsity) || len(slices.Compact(sorted)) != len(f.Support):
		return "has too many or equal indices"
	case f.Freedom < -1e-6 || f.Freedom > float64(m)+1e-6:
		return "has used up more than its samples"
	}
	return ""
}

// TestEdges fits and contributes where there is little or nothing to fit.
func TestEdges(t *testing.T) {
	const d, rank, k = 12, 2, 3
	r := rand.New(rand.NewPCG(3, 3))
	w := newWorld(r, d, rank, 0.1, 0.05)
	sizes := func(m int) func() (*lowrank.Model, Samples) {
		return func() (*lowrank.Model, Samples) { return &w.model, w.user(r, m, k).samples }
	}
	samples := func(f func(*Samples)) func() (*lowrank.Model, Samples) {
		return func() (*lowrank.Model, Samples) {
			s := w.user(r, 20, k).samples
			f(&s)
			return &w.model, s
		}
	}
	model := func(f func(*lowrank.Model)) func() (*lowrank.Model, Samples) {
		return func() (*lowrank.Model, Samples) {
			m := w.model
			m.U, m.Prior = slices.Clone(m.U), slices.Clone(m.Prior)
			f(&m)
			return &m, w.user(r, 20, k).samples
		}
	}
	column := func(s *Samples, j int, f func(i int) float64) {
		for i := range s.Y {
			s.X[i*d+j] = f(i)
		}
	}
	cases := []struct {
		name     string
		sparsity int
		draw     func() (*lowrank.Model, Samples)
	}{
		{"m < d", k, sizes(d - 2)},
		{"m < r + k", k, sizes(rank + k - 1)},
		{"m < r", k, sizes(rank - 1)},
		{"no samples", k, sizes(0)},
		{"a constant column", k, samples(func(s *Samples) { column(s, 3, func(int) float64 { return 1 }) })},
		{"constant columns only", k, samples(func(s *Samples) { fill(s.X, 1) })},
		{"equal columns", k, samples(func(s *Samples) {
			column(s, 3, func(i int) float64 { return s.X[i*d+4] })
			column(s, 5, func(i int) float64 { return -2 * s.X[i*d+4] })
		})},
		{"almost equal columns", k, samples(func(s *Samples) {
			column(s, 3, func(i int) float64 { return s.X[i*d+4] * (1 + 1e-9*float64(i)) })
		})},
		{"zero columns", k, samples(func(s *Samples) { column(s, 0, func(int) float64 { return 0 }) })},
		{"X = 0", k, samples(func(s *Samples) { clear(s.X) })},
		{"y = 0", k, samples(func(s *Samples) { clear(s.Y) })},
		{"equal rows", k, samples(func(s *Samples) {
			for i := range s.Y {
				copy(s.X[i*d:(i+1)*d], s.X[:d])
			}
		})},
		{"k = 0", 0, sizes(20)},
		{"k = d", d, sizes(60)},
		{"k > d", d + 5, sizes(60)},
		{"k < 0", -1, sizes(20)},
		{"r = 0", k, model(func(m *lowrank.Model) { m.Rank, m.U, m.Prior = 0, nil, nil })},
		{"a zero column of U", k, model(func(m *lowrank.Model) { clear(m.U[:d]) })},
		{"U = 0", k, model(func(m *lowrank.Model) { clear(m.U) })},
		{"equal columns of U", k, model(func(m *lowrank.Model) { copy(m.U[d:], m.U[:d]) })},
		{"a singular prior", k, model(func(m *lowrank.Model) { m.Prior = []float64{1, 1, 1, 1} })},
		{"a prior of wide range", k, model(func(m *lowrank.Model) { m.Prior = []float64{1e12, 0, 0, 1e-12} })},
		{"a zero prior", k, model(func(m *lowrank.Model) { clear(m.Prior) })},
		{"a flat prior", k, model(func(m *lowrank.Model) { m.Prior = nil })},
		{"an unknown noise level", k, model(func(m *lowrank.Model) { m.NoiseVariance = 0 })},
		{"an unknown noise level and prior", k, model(func(m *lowrank.Model) { m.Prior, m.NoiseVariance = nil, 0 })},
		{"a mean and a scale", k, model(func(m *lowrank.Model) { m.Mean, m.Scale = normal(r, d), 7 })},
		{"compact columns", k, samples(func(s *Samples) { *s = compact(s, d, []int32{1, 4, 5, 11}) })},
		{"no columns", k, samples(func(s *Samples) { *s = compact(s, d, []int32{}) })},
		{"tiny values", k, samples(func(s *Samples) { floats.Scale(1e-200, s.X); floats.Scale(1e-200, s.Y) })},
		{"small values", k, samples(func(s *Samples) { floats.Scale(1e-40, s.X) })},
		{"large values", k, samples(func(s *Samples) { floats.Scale(1e45, s.X); floats.Scale(1e45, s.Y) })},
		{"large X, small y", k, samples(func(s *Samples) { floats.Scale(1e45, s.X); floats.Scale(1e-45, s.Y) })},
		{"small X, large y", k, samples(func(s *Samples) { floats.Scale(1e-45, s.X); floats.Scale(1e45, s.Y) })},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for range 20 {
				m, data := c.draw()
				for _, hard := range []bool{false, true} {
					s := Solver{Sparsity: c.sparsity, HardThreshold: hard}
					fit, err := s.Solve(m, data)
					if err != nil {
						t.Fatal(err)
					}
					if wrong := sound(fit, &s, data); wrong != "" {
						t.Fatalf("the fit (hard threshold: %v) %s: %+v", hard, wrong, fit)
					}
				}
				for _, state := range states(m) {
					contribute(t, state, data, c.sparsity)
				}
			}
		})
	}
}

func fill(x []float64, v float64) {
	for i := range x {
		x[i] = v
	}
}

// compact keeps the given columns of samples of d features.
func compact(s *Samples, d int, columns []int32) Samples {
	out := Samples{X: []float64{}, Y: s.Y, Columns: columns}
	for i := range s.Y {
		for _, f := range columns {
			out.X = append(out.X, s.X[i*d+int(f)])
		}
	}
	return out
}

// states are one before each kind of release that a model can be part of,
// with and without whitening.
func states(m *lowrank.Model) []*lowrank.State {
	r := rand.New(rand.NewPCG(5, 5))
	var out []*lowrank.State
	for _, c := range []lowrank.Config{
		{Features: lowrank.Standard, Update: lowrank.Gradient},
		{Features: lowrank.Standard, Update: lowrank.LeastSquares, Sketch: 3},
		{Features: lowrank.Unscaled, Update: lowrank.Gradient, Centred: true},
		{Features: lowrank.Unscaled, Update: lowrank.LeastSquares, Centred: true},
		{Features: lowrank.OneHot, Update: lowrank.Gradient, Centred: true},
	} {
		c.Dim, c.Rank, c.Rounds, c.Sketch = m.Dim, m.Rank, 1, min(c.Sketch, m.Dim)
		for step := range c.Phases() {
			s := c.Start()
			s.Step = step
			mean := s.Model.Mean
			s.Model = *m
			if m.Mean == nil {
				s.Model.Mean = mean
			}
			s.Basis = m.U
			if c.Features == lowrank.Unscaled && step > 0 {
				s.White.Diagonal = make([]float64, m.Dim)
				for j := range s.White.Diagonal {
					s.White.Diagonal[j] = 0.5 + r.Float64()
				}
			}
			if c.Features == lowrank.Unscaled && step > 1 {
				s.White.Dense = normal(r, m.Dim*m.Dim)
			}
			out = append(out, s)
		}
	}
	return out
}

// contribute checks that a contribution is finite, of bounded norm in each of
// its parts, and leaves the samples alone. It returns it.
func contribute(t interface {
	Helper()
	Fatalf(string, ...any)
}, state *lowrank.State, data Samples, sparsity int) []float64 {
	t.Helper()
	phase, _ := state.Phase()
	layout := state.Config.Layout(phase.Kind)
	dst := make([]float64, layout.Len())
	fill(dst, math.NaN())
	x, y := slices.Clone(data.X), slices.Clone(data.Y)
	c := Contributor{Solver: Solver{Sparsity: sparsity}}
	if err := c.Contribute(dst, state, data); err != nil {
		t.Fatalf("%s of %+v: %v", phase.Kind, state.Config, err)
	}
	if !slices.Equal(x, data.X) || !slices.Equal(y, data.Y) {
		t.Fatalf("%s of %+v: the samples were changed", phase.Kind, state.Config)
	}
	for _, p := range layout {
		if n := floats.Norm(layout.Part(p.Name, dst), 2); !(n <= p.Bound*(1+1e-9)) {
			t.Fatalf("%s of %+v: part %s has norm %v, bound %v", phase.Kind, state.Config, p.Name, n, p.Bound)
		}
	}
	return dst
}

// TestNothingToSay: contributions that rounding alone would make are zero.
func TestNothingToSay(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	w := newWorld(r, 12, 2, 0.1, 0.05)
	for _, state := range states(&w.model) {
		phase, _ := state.Phase()
		for range 20 {
			none := contribute(t, state, Samples{}, 3)
			if floats.Norm(none, 2) != 0 {
				t.Errorf("%s without samples: %v", phase.Kind, none)
			}
			one := contribute(t, state, w.user(r, 1, 3).samples, 3)
			if phase.Kind == lowrank.Initialise && floats.Norm(one, 2) != 0 {
				t.Errorf("pairs of one sample: %v", one)
			}
		}
	}
}

func TestRefuses(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	w := newWorld(r, 12, 2, 0.1, 0.05)
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		name   string
		change func(m *lowrank.Model, s *Samples)
		want   error
	}{
		{"NaN in X", func(_ *lowrank.Model, s *Samples) { s.X[7] = nan }, ErrNotFinite},
		{"infinity in X", func(_ *lowrank.Model, s *Samples) { s.X[7] = inf }, ErrNotFinite},
		{"1e200 in X", func(_ *lowrank.Model, s *Samples) { s.X[7] = 1e200 }, ErrNotFinite},
		{"NaN in y", func(_ *lowrank.Model, s *Samples) { s.Y[7] = nan }, ErrNotFinite},
		{"infinity in y", func(_ *lowrank.Model, s *Samples) { s.Y[7] = -inf }, ErrNotFinite},
		{"1e200 in y", func(_ *lowrank.Model, s *Samples) { s.Y[7] = 1e200 }, ErrNotFinite},
		{"NaN in U", func(m *lowrank.Model, _ *Samples) { m.U[3] = nan }, ErrNotFinite},
		{"1e200 in U", func(m *lowrank.Model, _ *Samples) { m.U[3] = 1e200 }, ErrNotFinite},
		{"NaN in the mean", func(m *lowrank.Model, _ *Samples) { m.Mean[3] = nan }, ErrNotFinite},
		{"NaN in the prior", func(m *lowrank.Model, _ *Samples) { m.Prior[3] = nan }, ErrNotFinite},
		{"infinite prior", func(m *lowrank.Model, _ *Samples) { m.Prior[3] = inf }, ErrNotFinite},
		{"NaN as scale", func(m *lowrank.Model, _ *Samples) { m.Scale = nan }, ErrNotFinite},
		{"infinite scale", func(m *lowrank.Model, _ *Samples) { m.Scale = inf }, ErrNotFinite},
		{"scale that overflows y", func(m *lowrank.Model, _ *Samples) { m.Scale = 1e-300 }, ErrNotFinite},
		{"NaN as noise", func(m *lowrank.Model, _ *Samples) { m.NoiseVariance = nan }, ErrNotFinite},
		{"negative noise", func(m *lowrank.Model, _ *Samples) { m.NoiseVariance = -1 }, ErrModel},
		{"negative scale", func(m *lowrank.Model, _ *Samples) { m.Scale = -1 }, ErrModel},
		{"indefinite prior", func(m *lowrank.Model, _ *Samples) { m.Prior[3] = -2 }, ErrModel},
		{"short prior", func(m *lowrank.Model, _ *Samples) { m.Prior = m.Prior[:3] }, ErrModel},
		{"short U", func(m *lowrank.Model, _ *Samples) { m.U = m.U[:3] }, ErrModel},
		{"short mean", func(m *lowrank.Model, _ *Samples) { m.Mean = m.Mean[:3] }, ErrModel},
		{"negative rank", func(m *lowrank.Model, _ *Samples) { m.Rank = -1 }, ErrModel},
		{"short X", func(_ *lowrank.Model, s *Samples) { s.X = s.X[1:] }, ErrSamples},
		{"short y", func(_ *lowrank.Model, s *Samples) { s.Y = s.Y[1:] }, ErrSamples},
		{"unsorted columns", func(_ *lowrank.Model, s *Samples) { s.Columns = []int32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 10} }, ErrSamples},
		{"equal columns", func(_ *lowrank.Model, s *Samples) { s.Columns = make([]int32, 12) }, ErrSamples},
		{"column out of range", func(_ *lowrank.Model, s *Samples) { s.Columns = []int32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12} }, ErrSamples},
		{"negative column", func(_ *lowrank.Model, s *Samples) { s.Columns = []int32{-1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11} }, ErrSamples},
	} {
		data := w.user(r, 20, 3).samples
		m := w.model
		m.U, m.Prior, m.Mean = slices.Clone(m.U), slices.Clone(m.Prior), make([]float64, 12)
		c.change(&m, &data)
		s := Solver{Sparsity: 3}
		if fit, err := s.Solve(&m, data); !errors.Is(err, c.want) || fit != nil {
			t.Errorf("%s: Solve returns %v, want %v", c.name, err, c.want)
		}
		state := (lowrank.Config{Dim: 12, Rank: 2, Features: lowrank.Standard, Rounds: 1}).Start()
		state.Step, state.Model, state.Basis = 1, m, m.U
		phase, _ := state.Phase()
		dst := make([]float64, state.Config.Layout(phase.Kind).Len())
		fill(dst, 1)
		con := Contributor{Solver: s}
		if err := con.Contribute(dst, state, data); !errors.Is(err, c.want) {
			t.Errorf("%s: Contribute returns %v, want %v", c.name, err, c.want)
		}
		if floats.Norm(dst, 2) != 0 {
			t.Errorf("%s: Contribute failed, and left %v", c.name, dst)
		}
	}
}

func TestContributeRefusesStates(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	w := newWorld(r, 12, 2, 0.1, 0.05)
	for name, change := range map[string]func(*lowrank.State){
		"over":                           func(s *lowrank.State) { s.Step = 2 },
		"before the first":               func(s *lowrank.State) { s.Step = -1 },
		"no U":                           func(s *lowrank.State) { s.Model.U, s.Basis, s.Model.Rank, s.Model.Prior = nil, nil, 0, nil },
		"another dimension":              func(s *lowrank.State) { s.Config.Dim = 11 },
		"short basis":                    func(s *lowrank.State) { s.Basis = s.Basis[1:] },
		"a center of none":               func(s *lowrank.State) { s.Center = make([]float64, 12) },
		"a whitening of none":            func(s *lowrank.State) { s.White.Diagonal = []float64{} },
		"a short whitening":              func(s *lowrank.State) { s.White.Dense = make([]float64, 12) },
		"a sketch wider than it is high": func(s *lowrank.State) { s.Step, s.Config.Sketch = 0, 13 },
		"no balance":                     func(s *lowrank.State) { s.Balance = 0 },
		"NaN in the whitening":           func(s *lowrank.State) { s.White.Diagonal = make([]float64, 12); s.White.Diagonal[3] = math.NaN() },
	} {
		state := (lowrank.Config{Dim: 12, Rank: 2, Features: lowrank.Standard, Rounds: 1}).Start()
		state.Step, state.Model, state.Basis = 1, w.model, w.model.U
		phase, _ := state.Phase()
		dst := make([]float64, state.Config.Layout(phase.Kind).Len())
		change(state)
		var c Contributor
		err := c.Contribute(dst, state, w.user(r, 20, 3).samples)
		if !errors.Is(err, ErrModel) && !errors.Is(err, ErrNotFinite) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
