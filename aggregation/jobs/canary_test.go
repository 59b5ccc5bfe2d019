package jobs_test

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
)

func canary() jobs.Canary { return jobs.Canary{Dim: 20, Norms: []float64{1, 1, 1}} }

func TestCanarySpendsWhatWasAskedFor(t *testing.T) {
	term := terms()
	spec, err := jobs.NewCanary(canary(), term)
	if err != nil {
		t.Fatal(err)
	}
	spec = reencode(t, spec)
	if err := jobs.CheckAny(spec); err != nil {
		t.Fatal(err)
	}
	if got := spent(t, spec); got > term.Epsilon || got < 0.999*term.Epsilon {
		t.Errorf("asked for epsilon %v, the noise gives %v", term.Epsilon, got)
	}
	// No device takes part in what learns nothing.
	var field *rounds.SpecError
	if _, err := jobs.Check(spec); !errors.As(err, &field) || field.Field != "method" {
		t.Errorf("got %v", err)
	}
}

// TestCanaryLike: a canary job has another's noise, bounds and charges, whatever the
// other job is, and so the same price.
func TestCanaryLike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, term := parameters(), terms()
		p.Rounds = rapid.IntRange(1, 5).Draw(t, "rounds")
		term.Epsilon = rapid.Float64Range(0.1, 8).Draw(t, "epsilon")
		term.Adjacency = rapid.SampledFrom([]dp.Adjacency{dp.ZeroOut, dp.ReplaceOne}).Draw(t, "adjacency")
		term.Trust = rapid.SampledFrom([]rounds.Trust{rounds.TrustDistributed, rounds.TrustCentral, rounds.TrustLocal}).Draw(t, "trust")
		term.NMin = rapid.IntRange(1, 2000).Draw(t, "n_min")
		term.RoundSize = term.NMin + rapid.IntRange(0, 2000).Draw(t, "more")
		like, err := jobs.New(p, term)
		if err != nil {
			t.Fatal(err)
		}
		size := like.NMin
		if term.Trust == rounds.TrustLocal {
			size = 7
		}
		spec, err := jobs.CanaryLike(like, 30, size)
		if err != nil {
			t.Fatal(err)
		}
		spec = reencode(t, spec)
		if err := jobs.CheckAny(spec); err != nil {
			t.Fatal(err)
		}
		if spec.NMin != size || spec.RoundSize != size || spec.Budget != like.Budget {
			t.Fatalf("%+v", spec)
		}
		for i, r := range spec.Releases {
			want := like.Releases[i]
			want.Kind, want.Length = r.Kind, 30
			if r != want {
				t.Fatalf("release %d is %+v, and not %+v", i, r, want)
			}
		}
	})
}

func TestCanaryMistakes(t *testing.T) {
	for _, c := range []struct {
		flag   string
		change func(*jobs.Canary, *jobs.Terms)
	}{
		{"dim", func(c *jobs.Canary, _ *jobs.Terms) { c.Dim = 0 }},
		{"dim", func(c *jobs.Canary, _ *jobs.Terms) { c.Dim = rounds.MaxLength + 1 }},
		{"rounds", func(c *jobs.Canary, _ *jobs.Terms) { c.Norms = nil }},
		{"rounds", func(c *jobs.Canary, _ *jobs.Terms) { c.Norms = slices.Repeat(c.Norms, 2000) }},
		{"norms", func(c *jobs.Canary, _ *jobs.Terms) { c.Norms = []float64{1, -1} }},
		{"epsilon", func(_ *jobs.Canary, t *jobs.Terms) { t.Epsilon = 0 }},
	} {
		of, term := canary(), terms()
		c.change(&of, &term)
		_, err := jobs.NewCanary(of, term)
		var got *jobs.TermError
		if !errors.As(err, &got) || got.Flag != c.flag {
			t.Errorf("want --%s, got %v", c.flag, err)
		}
	}
	spec, err := jobs.NewCanary(canary(), terms())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		field string
		lie   func(*rounds.Spec)
	}{
		{"method", func(s *rounds.Spec) { s.Method = "other" }},
		{"parameters", func(s *rounds.Spec) { s.Parameters = []byte(`{"dim":20,"norms":[1,1,1],"more":1}`) }},
		{"parameters.dim", func(s *rounds.Spec) { s.Parameters = []byte(`{"dim":0,"norms":[1,1,1]}`) }},
		{"releases", func(s *rounds.Spec) { s.Releases = s.Releases[1:] }},
		{"releases[1].bound", func(s *rounds.Spec) { s.Releases[1].Bound++ }},
		{"releases[0].kind", func(s *rounds.Spec) { s.Releases[0].Kind = "update" }},
		{"releases[2].charge_nano_rho", func(s *rounds.Spec) { s.Releases[2].Sigma /= 2 }},
	} {
		lying := reencode(t, spec)
		c.lie(lying)
		var field *rounds.SpecError
		if err := jobs.CheckAny(lying); !errors.As(err, &field) || field.Field != c.field {
			t.Errorf("want a mistake in %s, got %v", c.field, err)
		}
	}
	if _, err := jobs.CanaryLike(spec, 5, spec.NMin-1); err == nil {
		t.Error("fewer shares of noise than are charged passed")
	}
}

// TestCanaryReleasesTheSum, exactly, and nothing but the last one.
func TestCanaryReleasesTheSum(t *testing.T) {
	spec, err := jobs.NewCanary(canary(), terms())
	if err != nil {
		t.Fatal(err)
	}
	state, err := jobs.Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	for round := 1; round <= len(spec.Releases); round++ {
		sum := make([]int64, 20)
		for i := range sum {
			sum[i] = int64(i*7919+round)<<13 - 1<<15 + 1
		}
		if _, err := jobs.Advance(spec, round, state, sum[1:], 1000); !errors.Is(err, aggregation.ErrLength) {
			t.Errorf("a short sum: %v", err)
		}
		if _, err := jobs.Advance(spec, round%3+1, state, sum, 1000); err == nil {
			t.Errorf("state %d passed for another", round-1)
		}
		if state, err = jobs.Advance(spec, round, state, sum, 1000); err != nil {
			t.Fatal(err)
		}
		released, err := jobs.CanarySum(spec, round, state)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range released {
			if math.Ldexp(v, int(spec.Lattice.ScaleBits)) != float64(sum[i]) {
				t.Fatalf("coordinate %d is %v of %d", i, v, sum[i])
			}
		}
	}
	if _, err := jobs.CanarySum(spec, 2, state); !errors.Is(err, jobs.ErrState) {
		t.Errorf("state 3 passed for 2: %v", err)
	}
	if !json.Valid(state) {
		t.Errorf("%s", state)
	}
}

// TestCanaryBudgetIsItsOwn: it pays for every round and the spare attempts, and no
// more.
func TestCanaryBudgetIsItsOwn(t *testing.T) {
	term := terms()
	term.Spare = 2
	spec, err := jobs.NewCanary(canary(), term)
	if err != nil {
		t.Fatal(err)
	}
	filter := accounting.Filter{Budget: spec.Budget}
	for range len(spec.Releases) + term.Spare {
		if err := filter.Reserve(spec.Releases[0].Charge); err != nil {
			t.Fatal(err)
		}
	}
	if err := filter.Reserve(spec.Releases[0].Charge); err == nil {
		t.Error("the budget has room for more than was asked for")
	}
}
