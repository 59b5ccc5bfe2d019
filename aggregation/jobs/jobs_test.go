package jobs_test

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/noise"
)

func parameters() jobs.Parameters {
	return jobs.Parameters{
		Config:   lowrank.Config{Dim: 50, Rank: 3, Features: lowrank.Standard, Update: lowrank.Gradient},
		Sparsity: 4,
	}
}

func terms() jobs.Terms {
	return jobs.Terms{
		Job: "movies", Epsilon: 4, Delta: 1e-6, Adjacency: dp.ZeroOut, Trust: rounds.TrustDistributed,
		NMin: 1000, RoundSize: 4000, Deadline: time.Minute,
	}
}

// reencode is what a specification is after a network.
func reencode(t interface{ Fatal(...any) }, s *rounds.Spec) *rounds.Spec {
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	out, err := rounds.ParseSpec(b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// spent recomputes epsilon from nothing but bounds and noise, with an
// accountant that New does not use.
func spent(t interface{ Fatal(...any) }, s *rounds.Spec) float64 {
	var events accounting.Composed
	for _, r := range s.Releases {
		parts := float64(s.NMin)
		if s.Trust == rounds.TrustLocal {
			parts = 1
		}
		z := r.Sigma.Float64() * math.Sqrt(parts) / float64(r.Bound)
		events = append(events, accounting.Gaussian{NoiseMultiplier: z})
	}
	scaled, err := accounting.Scale(events, s.Adjacency.SensitivityFactor())
	if err != nil {
		t.Fatal(err)
	}
	mu, err := accounting.GDP(scaled)
	if err != nil {
		t.Fatal(err)
	}
	return accounting.GaussianEpsilon(mu, s.Delta)
}

func TestNewSpendsWhatWasAskedFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, term := parameters(), terms()
		p.Dim = rapid.IntRange(2, 300).Draw(t, "dim")
		p.Rank = rapid.IntRange(1, min(p.Dim, 5)).Draw(t, "rank")
		p.Sparsity = min(p.Sparsity, p.Dim)
		p.Rounds = rapid.IntRange(0, 20).Draw(t, "rounds")
		p.Features = rapid.SampledFrom([]lowrank.Features{lowrank.Standard, lowrank.Unscaled, lowrank.OneHot}).Draw(t, "features")
		term.Epsilon = rapid.Float64Range(0.1, 8).Draw(t, "epsilon")
		term.Adjacency = rapid.SampledFrom([]dp.Adjacency{dp.ZeroOut, dp.ReplaceOne}).Draw(t, "adjacency")
		term.Trust = rapid.SampledFrom([]rounds.Trust{rounds.TrustDistributed, rounds.TrustCentral, rounds.TrustLocal}).Draw(t, "trust")
		term.NMin = rapid.IntRange(1, 20_000).Draw(t, "n_min")
		term.RoundSize = term.NMin + rapid.IntRange(0, 20_000).Draw(t, "more")

		spec, err := jobs.New(p, term)
		if err != nil {
			t.Fatal(err)
		}
		spec = reencode(t, spec)
		if _, err := jobs.Check(spec); err != nil {
			t.Fatalf("New's own specification: %v", err)
		}
		if got := spent(t, spec); got > term.Epsilon || got < 0.999*term.Epsilon {
			t.Fatalf("asked for epsilon %v, the noise gives %v", term.Epsilon, got)
		}
		// No unit of noise is wasted: one less does not pay.
		for i := range spec.Releases {
			less := *spec
			less.Releases = slices.Clone(spec.Releases)
			// Shares are rounded up to a unit, and the whole to the units of n shares.
			less.Releases[i].Sigma -= 2
			var field *rounds.SpecError
			if _, err := jobs.Check(&less); !errors.As(err, &field) || !strings.HasSuffix(field.Field, "charge_nano_rho") {
				t.Fatalf("release %d pays for less noise than it has: %v", i, err)
			}
		}
	})
}

// TestChargePaysForTheCloseness holds Charge against rho, closeness included, in
// floats of 200 bits, for the most closeness that is taken.
func TestChargePaysForTheCloseness(t *testing.T) {
	wide := func(x float64) *big.Float { return new(big.Float).SetPrec(200).SetFloat64(x) }
	dearest := 0.0
	for i := range 400 {
		p, term := parameters(), terms()
		p.Rounds = 2
		term.NMin = 1000 + 41*i
		term.RoundSize = term.NMin
		term.Adjacency = []dp.Adjacency{dp.ZeroOut, dp.ReplaceOne}[i%2]
		spec, err := jobs.New(p, term)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range spec.Releases {
			_, closeness, err := noise.Share(noise.Sigma(math.Sqrt(float64(spec.NMin))*float64(r.Sigma)), spec.NMin)
			if err != nil {
				t.Fatal(err)
			}
			total := wide(float64(spec.NMin))
			total.Sqrt(total).Mul(total, wide(r.Sigma.Float64()))
			cost := wide(spec.Adjacency.SensitivityFactor() * float64(r.Bound))
			cost.Quo(cost, total)
			most := new(big.Float).Mul(cost, wide(1e-12))
			if more := wide(closeness * math.Sqrt(float64(r.Length))); more.Cmp(most) > 0 {
				t.Fatalf("release of %s: a closeness of %v", r.Kind, more)
			}
			cost.Add(cost, most)
			cost.Mul(cost, cost).Quo(cost, wide(2e-9))
			if cost.Cmp(wide(float64(r.Charge))) > 0 {
				t.Fatalf("%d clients: a release of %s costs %.3f nano-rho, and is charged %d", term.NMin, r.Kind, cost, uint64(r.Charge))
			}
			part, _ := new(big.Float).Quo(cost, wide(float64(r.Charge))).Float64()
			dearest = max(dearest, part)
		}
	}
	if dearest < 1-2e-11 {
		t.Errorf("at most %v of a charge is used", dearest)
	}
}

// TestSpare holds that the budget has room for the failed attempts it was asked
// for, each as dear as the dearest round.
func TestSpare(t *testing.T) {
	term := terms()
	term.Spare = 3
	spec, err := jobs.New(parameters(), term)
	if err != nil {
		t.Fatal(err)
	}
	filter := accounting.Filter{Budget: spec.Budget}
	dearest := spec.Releases[0].Charge
	for _, r := range spec.Releases {
		dearest = max(dearest, r.Charge)
		if err := filter.Reserve(r.Charge); err != nil {
			t.Fatal(err)
		}
	}
	for i := range term.Spare {
		if err := filter.Reserve(dearest); err != nil {
			t.Fatalf("spare attempt %d: %v", i+1, err)
		}
	}
	if err := filter.Reserve(dearest); err == nil {
		t.Error("the budget has room for more than was asked for")
	}
}

// TestCheckFindsEveryLie changes one claim at a time.
func TestCheckFindsEveryLie(t *testing.T) {
	good, err := jobs.New(parameters(), terms())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		field string
		lie   func(*rounds.Spec)
	}{
		{"method", func(s *rounds.Spec) { s.Method = "other" }},
		{"parameters", func(s *rounds.Spec) { s.Parameters = []byte(`{"dim":50,"more":1}`) }},
		{"parameters", func(s *rounds.Spec) { s.Parameters = append(slices.Clone(s.Parameters), " {}"...) }},
		{"parameters.rank", func(s *rounds.Spec) {
			s.Parameters = []byte(strings.Replace(string(s.Parameters), `"rank":3`, `"rank":-3`, 1))
		}},
		{"releases", func(s *rounds.Spec) { s.Releases = s.Releases[1:] }},
		{"releases[0].kind", func(s *rounds.Spec) { s.Releases[0].Kind = "items" }},
		{"releases[1].length", func(s *rounds.Spec) { s.Releases[1].Length++ }},
		{"releases[1].bound", func(s *rounds.Spec) { s.Releases[1].Bound-- }},
		{"releases[2].sigma", func(s *rounds.Spec) { s.Releases[2].Sigma = 0 }},
		{"releases[2].charge_nano_rho", func(s *rounds.Spec) { s.Releases[2].Sigma /= 2 }},
		{"releases[2].charge_nano_rho", func(s *rounds.Spec) { s.Releases[2].Charge /= 2 }},
		{"releases[0].charge_nano_rho", func(s *rounds.Spec) { s.Adjacency = dp.ReplaceOne }},
		{"releases[0].charge_nano_rho", func(s *rounds.Spec) { s.NMin /= 2 }},
		{"releases[0].largest", func(s *rounds.Spec) { s.Releases[0].Largest++ }},
		{"releases[0].largest", func(s *rounds.Spec) { s.Trust = rounds.TrustCentral }},
		{"budget_nano_rho", func(s *rounds.Spec) { s.Budget -= s.Budget / 1000 }},
		{"lattice", func(s *rounds.Spec) { s.Lattice.ModulusBits -= 8 }},
	} {
		lying := reencode(t, good)
		c.lie(lying)
		_, err := jobs.Check(lying)
		var field *rounds.SpecError
		if !errors.As(err, &field) || field.Field != c.field {
			t.Errorf("want a mistake in %s, got %v", c.field, err)
		}
	}
}

func TestTerms(t *testing.T) {
	for _, c := range []struct {
		flag   string
		change func(*jobs.Parameters, *jobs.Terms)
	}{
		{"job", func(_ *jobs.Parameters, t *jobs.Terms) { t.Job = "Not A Name" }},
		{"epsilon", func(_ *jobs.Parameters, t *jobs.Terms) { t.Epsilon = math.Inf(1) }},
		{"epsilon", func(_ *jobs.Parameters, t *jobs.Terms) { t.Epsilon = math.NaN() }},
		{"epsilon", func(_ *jobs.Parameters, t *jobs.Terms) { t.Epsilon = 1e-9 }},
		{"delta", func(_ *jobs.Parameters, t *jobs.Terms) { t.Delta = 0 }},
		{"n-min", func(_ *jobs.Parameters, t *jobs.Terms) { t.NMin = 0 }},
		{"n-min", func(_ *jobs.Parameters, t *jobs.Terms) { t.NMin, t.RoundSize, t.Epsilon = 1<<60, 1<<60, 8 }},
		{"n-min", func(_ *jobs.Parameters, t *jobs.Terms) { t.NMin, t.RoundSize = 1e8, 1e8 }},
		{"round-size", func(_ *jobs.Parameters, t *jobs.Terms) { t.RoundSize = 1e8 }},
		{"deadline", func(_ *jobs.Parameters, t *jobs.Terms) { t.Deadline = 20_000 * time.Hour }},
		{"rounds", func(p *jobs.Parameters, _ *jobs.Terms) { p.Rounds = 5000 }},
		{"rounds", func(p *jobs.Parameters, t *jobs.Terms) { p.Rounds, t.Epsilon = 2500, 1000 }}, // as it is written, with spaces
		{"update", func(p *jobs.Parameters, _ *jobs.Terms) { p.Dim, p.Rank, p.Update = 3000, 2, lowrank.LeastSquares }},
		{"dim", func(p *jobs.Parameters, _ *jobs.Terms) { p.Dim, p.Rank = 1<<20, 20 }},
		{"round-size", func(_ *jobs.Parameters, t *jobs.Terms) { t.RoundSize = 999 }},
		{"deadline", func(_ *jobs.Parameters, t *jobs.Terms) { t.Deadline = 0 }},
		{"spare", func(_ *jobs.Parameters, t *jobs.Terms) { t.Spare = -1 }},
		{"dim", func(p *jobs.Parameters, _ *jobs.Terms) { p.Dim = 0 }},
		{"rank", func(p *jobs.Parameters, _ *jobs.Terms) { p.Rank = 51 }},
		{"sparsity", func(p *jobs.Parameters, _ *jobs.Terms) { p.Sparsity = 51 }},
		{"features", func(p *jobs.Parameters, _ *jobs.Terms) { p.Features = "odd" }},
		{"update", func(p *jobs.Parameters, _ *jobs.Terms) { p.Update = "odd" }},
	} {
		p, term := parameters(), terms()
		c.change(&p, &term)
		_, err := jobs.New(p, term)
		var got *jobs.TermError
		if !errors.As(err, &got) || got.Flag != c.flag {
			t.Errorf("want --%s, got %v", c.flag, err)
		}
	}
}

// TestEveryMistakeHasAFlag: terms at and beyond their ends make a specification
// that is valid as it is written, or name the flag that is wrong.
func TestEveryMistakeHasAFlag(t *testing.T) {
	known := []string{"dim", "rank", "sparsity", "features", "update", "rounds", "sketch",
		"epsilon", "delta", "adjacency", "trust", "spare", "n-min", "round-size", "deadline"}
	rapid.Check(t, func(t *rapid.T) {
		whole := func(name string, ends ...int) int { return rapid.SampledFrom(ends).Draw(t, name) }
		number := func(name string, ends ...float64) float64 { return rapid.SampledFrom(ends).Draw(t, name) }
		p, term := parameters(), terms()
		p.Dim = whole("dim", -1, 1, 50, 256, 257, 3000, 1<<20, 1<<21)
		p.Rank = whole("rank", -1, 0, 1, 3, 20, 300)
		p.Sparsity = whole("sparsity", -1, 0, 4, 1<<20)
		p.Rounds = whole("rounds", -1, 0, 1, 500, 2500, 4097, 10_001)
		p.Sketch = whole("sketch", -1, 0, 20, 1<<20)
		p.Centred = rapid.Bool().Draw(t, "centred")
		p.Features = rapid.SampledFrom([]lowrank.Features{lowrank.Standard, lowrank.Unscaled, lowrank.OneHot}).Draw(t, "features")
		p.Update = rapid.SampledFrom([]lowrank.Update{lowrank.Gradient, lowrank.LeastSquares}).Draw(t, "update")
		term.Epsilon = number("epsilon", 1e-300, 1e-9, 0.01, 4, 1000, 1e9, 1e300)
		term.Delta = number("delta", 0, 5e-324, 1e-300, 1e-6, 0.5, 1)
		term.Adjacency = rapid.SampledFrom([]dp.Adjacency{dp.ZeroOut, dp.ReplaceOne}).Draw(t, "adjacency")
		term.Trust = rapid.SampledFrom([]rounds.Trust{rounds.TrustDistributed, rounds.TrustCentral, rounds.TrustLocal, "odd"}).Draw(t, "trust")
		term.NMin = whole("n_min", 0, 1, 1000, 1<<24, 1<<24+1, math.MaxInt64)
		term.RoundSize = whole("round_size", 0, 1, 1000, 1<<24, 1<<24+1, math.MaxInt64)
		term.Deadline = time.Duration(whole("deadline", 0, 1, 1e9, math.MaxInt64))
		term.Spare = whole("spare", -1, 0, 1, 1e9, math.MaxInt64)

		spec, err := jobs.New(p, term)
		if err != nil {
			var mistake *jobs.TermError
			if !errors.As(err, &mistake) || !slices.Contains(known, mistake.Flag) || mistake.Problem == "" {
				t.Fatalf("names no flag: %v", err)
			}
			return
		}
		read, err := rounds.ParseSpec(jobs.Encode(spec))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := jobs.Check(read); err != nil {
			t.Fatal(err)
		}
	})
}

// TestAdvance walks a schedule to its end on sums of noise alone, and holds that
// no state passes for another version.
func TestAdvance(t *testing.T) {
	spec, err := jobs.New(parameters(), terms())
	if err != nil {
		t.Fatal(err)
	}
	state, err := jobs.Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	for round := 1; round <= len(spec.Releases); round++ {
		sum := make([]int64, spec.Releases[round-1].Length)
		for i := range sum {
			sum[i] = int64((i*7919)%2001-1000) << 20
		}
		if _, err := jobs.Advance(spec, round+1, state, sum, 1000); err == nil {
			t.Fatalf("state %d passed for state %d", round-1, round)
		}
		next, err := jobs.Advance(spec, round, state, sum, 1000)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if _, err := jobs.Advance(spec, round, state, sum[1:], 1000); err == nil {
			t.Fatal("a short sum passed")
		}
		if _, err := jobs.State(spec, round, next); err != nil {
			t.Fatal(err)
		}
		state = next
	}
	if _, err := jobs.State(spec, 0, append(state, '!')); !errors.Is(err, jobs.ErrState) {
		t.Errorf("got %v, want ErrState", err)
	}
}

// FuzzState: bytes that a server sent as a state are refused, or are one of this
// job and version, which is written as it was read.
func FuzzState(f *testing.F) {
	spec, err := jobs.New(parameters(), terms())
	if err != nil {
		f.Fatal(err)
	}
	start, err := jobs.Start(spec)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(start, 0)
	f.Add(start[:len(start)/2], 0)
	f.Add([]byte("null"), 1)
	f.Fuzz(func(t *testing.T, b []byte, version int) {
		state, err := jobs.State(spec, version, b)
		if err != nil {
			if !errors.Is(err, jobs.ErrState) {
				t.Fatal(err)
			}
			return
		}
		written, err := json.Marshal(state)
		if err != nil {
			t.Fatal(err)
		}
		again, err := jobs.State(spec, version, written)
		if err != nil || !reflect.DeepEqual(state, again) {
			t.Errorf("%s was read, and %s written: %v", b, written, err)
		}
	})
}
