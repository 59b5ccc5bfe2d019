package lowrank

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"testing"

	"github.com/undertone-fl/undertone/aggregation"
	"pgregory.net/rapid"
)

// deepCopy shares no memory with s.
func deepCopy(s *State) *State {
	c := *s
	for _, x := range []*[]float64{
		&c.Model.U, &c.Model.Mean, &c.Model.Prior, &c.White.Diagonal, &c.White.Dense, &c.Basis, &c.Center,
	} {
		*x = slices.Clone(*x)
	}
	return &c
}

// TestAdvanceOnAnything: whatever finite numbers are summed, a step gives a
// sound state or ErrNotFinite, does not panic, and leaves its receiver and the
// sum as they were.
func TestAdvanceOnAnything(t *testing.T) { rapid.Check(t, advanceOnAnything) }

func FuzzAdvance(f *testing.F) { f.Fuzz(rapid.MakeFuzz(advanceOnAnything)) }

func advanceOnAnything(t *rapid.T) {
	c := rapid.SampledFrom(configurations()).Draw(t, "config")
	size := rapid.SampledFrom([]float64{0, 5e-324, 1e-300, 1e-160, 1e-9, 1, 1e9, 1e150, 1e300})
	s := c.Start()
	for {
		phase, ok := s.Phase()
		if !ok {
			return
		}
		n := c.Layout(phase.Kind).Len()
		base, sd := size.Draw(t, "size"), size.Draw(t, "sd")
		sum := gaussian(seeded(rapid.Uint64().Draw(t, "seed")), n, base)
		for range rapid.IntRange(0, 4).Draw(t, "outliers") {
			sum[rapid.IntRange(0, n-1).Draw(t, "at")] = rapid.Float64().Draw(t, "outlier")
		}
		for i, v := range sum {
			if math.IsInf(v, 0) {
				sum[i] = math.Copysign(math.MaxFloat64, v)
			}
		}
		before, sumBefore := deepCopy(s), slices.Clone(sum)
		next, err := s.Advance(sum, sd)
		if !reflect.DeepEqual(s, before) || !slices.Equal(sum, sumBefore) {
			t.Fatalf("%v: %s changed what it was given", c, phase.Kind)
		}
		if err != nil {
			if !errors.Is(err, ErrNotFinite) || next != nil {
				t.Fatalf("%v: %s: %v, and a state: %v", c, phase.Kind, err, next != nil)
			}
			return
		}
		requireSound(t, next)
		if next.Step != s.Step+1 {
			t.Fatalf("step %d after %d", next.Step, s.Step)
		}
		s = next
	}
}

// TestPureNoise: without any signal the model stays bounded through a whole
// schedule, at any size of the noise.
func TestPureNoise(t *testing.T) {
	for i, c := range configurations() {
		for _, sd := range []float64{1e-3, 1, 1e3} {
			s := c.Start()
			rng := seeded(uint64(i))
			for phase, ok := s.Phase(); ok; phase, ok = s.Phase() {
				next, err := s.Advance(gaussian(rng, c.Layout(phase.Kind).Len(), sd), sd)
				if err != nil {
					t.Fatalf("%v: %s: %v", c, phase.Kind, err)
				}
				requireSound(t, next)
				s = next
			}
			if r := c.Rank; len(s.Basis) != r*c.Dim || s.Model.Rank != r || c.Centred && r > 0 && s.Model.Prior == nil {
				t.Errorf("%v: ends with %d numbers in U of rank %d, prior %v", c, len(s.Basis), s.Model.Rank, s.Model.Prior)
			}
		}
	}
}

// TestStateRoundTrip: a checkpoint goes on exactly where it stopped.
func TestStateRoundTrip(t *testing.T) {
	for i, c := range configurations() {
		s := c.Start()
		rng := seeded(uint64(i))
		for {
			encoded, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			var back State
			if err := json.Unmarshal(encoded, &back); err != nil {
				t.Fatal(err)
			}
			again, err := json.Marshal(&back)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(s, &back) || !bytes.Equal(encoded, again) {
				t.Fatalf("%v, step %d: read back as\n%s\nwritten as\n%s", c, s.Step, again, encoded)
			}
			phase, ok := s.Phase()
			if !ok {
				break
			}
			sum := gaussian(rng, c.Layout(phase.Kind).Len(), 1)
			for i := range sum {
				sum[i] += 3
			}
			next, err := s.Advance(sum, 0.1)
			if err != nil {
				t.Fatal(err)
			}
			fromBack, err := back.Advance(sum, 0.1)
			if err != nil || !reflect.DeepEqual(next, fromBack) {
				t.Fatalf("%v, step %d: goes on differently, %v", c, s.Step, err)
			}
			s = next
		}
	}
}

func TestAdvanceErrors(t *testing.T) {
	c := Config{Dim: 3, Rank: 1, Rounds: 0, Features: Standard}
	s := c.Start()
	good := make([]float64, c.Layout(Initialise).Len())
	good[0] = 1
	for _, n := range []int{0, len(good) - 1, len(good) + 1} {
		if _, err := s.Advance(make([]float64, n), 0); !errors.Is(err, aggregation.ErrLength) {
			t.Errorf("a sum of %d coordinates: %v", n, err)
		}
	}
	for _, sd := range []float64{-1, math.NaN(), math.Inf(1)} {
		if _, err := s.Advance(good, sd); !errors.Is(err, ErrNotFinite) {
			t.Errorf("noise of standard deviation %v: %v", sd, err)
		}
	}
	for _, v := range []float64{math.NaN(), math.Inf(-1)} {
		bad := slices.Clone(good)
		bad[2] = v
		if _, err := s.Advance(bad, 0); !errors.Is(err, ErrNotFinite) {
			t.Errorf("a sum that holds %v: %v", v, err)
		}
	}
	end, err := s.Advance(good, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := end.Advance(good, 0); !errors.Is(err, ErrFinished) {
		t.Errorf("after the last release: %v", err)
	}
}

// TestResponseScale: the first release of a centred schedule sets it, within
// its bin's width.
func TestResponseScale(t *testing.T) {
	c := Config{Dim: 4, Rank: 1, Rounds: 1, Features: Unscaled, Centred: true}
	bins := make([]float64, histogramBins)
	bins[Bin(30)] = 500
	s := advance(t, c.Start(), map[string][]float64{PartResponse: bins}, 1)
	if !within(s.Model.Scale, 30, math.Sqrt2) {
		t.Errorf("scale %v, want about 30", s.Model.Scale)
	}
	if s := advance(t, c.Start(), map[string][]float64{PartResponse: bins}, 500); s.Model.ResponseScale() != 1 {
		t.Errorf("scale %v out of noise", s.Model.Scale)
	}
}

// TestDiagonalMoments: above LargestMoment each feature is whitened by itself,
// and the mean is the regression on each alone.
func TestDiagonalMoments(t *testing.T) {
	c := Config{Dim: LargestMoment + 1, Features: Standard, Centred: true, Rounds: 1}
	sum := make([]float64, c.Layout(Moments).Len())
	for j := range c.Dim {
		sum[j] = 1 // the mean second moment
	}
	sum[0], sum[1] = 4, 0.25
	sum[c.Dim] = 2 // x_0 y
	s, err := c.Start().Advance(sum, 0)
	if err != nil {
		t.Fatal(err)
	}
	unit := float64(c.Dim) / (float64(c.Dim) + 3 - 0.75)
	if got, want := s.White.Diagonal[0], 1/math.Sqrt(4*unit); !within(got, want, 1.0001) {
		t.Errorf("W_00 is %v, want %v", got, want)
	}
	if got := s.Model.Mean[0]; math.Abs(got-0.5) > 1e-9 {
		t.Errorf("mean_0 is %v, want 2/4", got)
	}
}

// TestBalance follows the ratio of gradient to preconditioner, up to a bound.
func TestBalance(t *testing.T) {
	c := Config{Dim: 3, Rank: 1, Rounds: 1, Features: Standard, Update: Gradient}
	for _, tc := range []struct{ ratio, want float64 }{{0.1, 0.1}, {2, 2}, {1000, largestRatio}} {
		bins := make([]float64, histogramBins)
		bins[Bin(tc.ratio)] = 500
		s := advance(t, started(c, []float64{1, 0, 0}), map[string][]float64{PartBalance: bins}, 1)
		if got := s.Balance / preconditionerShare; !within(got, tc.want, math.Sqrt2) {
			t.Errorf("ratio %v: balance over share %v", tc.ratio, got)
		}
	}
}

// TestScalarsStayFinite: figures that ride along can overflow too.
func TestScalarsStayFinite(t *testing.T) {
	c := Config{Dim: 3, Rank: 1, Rounds: 1, Features: Standard, Update: Gradient}
	s := started(c, []float64{1, 0, 0})
	layout := c.Layout(Refine)
	sum := make([]float64, layout.Len())
	noise := layout.Part(PartNoise, sum)
	noise[40], noise[41] = math.MaxFloat64, math.MaxFloat64
	if _, err := s.Advance(sum, 1); !errors.Is(err, ErrNotFinite) {
		t.Errorf("an infinite noise variance: %v", err)
	}
}
