package canary

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp"
)

func terms(nMin int) jobs.Terms {
	return jobs.Terms{
		Job: "canary", Epsilon: 2, Delta: 1e-6, Adjacency: dp.ZeroOut, Trust: rounds.TrustDistributed,
		NMin: nMin, RoundSize: nMin, Deadline: time.Minute,
	}
}

// twoRounds is the specification of a job of two equal rounds.
func twoRounds(t testing.TB, terms jobs.Terms) *rounds.Spec {
	t.Helper()
	s, err := jobs.NewCanary(jobs.Canary{Dim: 1, Norms: []float64{1, 1}}, terms)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// config of an audit from seed 1. An honest service fails one from a random seed
// with probability 1e-6.
func config(s *rounds.Spec, trials int) Config {
	seed := uint64(1)
	return Config{Spec: s, Trials: trials, Confidence: 0.95, FalseAlarm: 1e-6, Seed: &seed}
}

func audit(t testing.TB, c Config) *Result {
	t.Helper()
	r, err := Run(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestBoundIsTight: at a true epsilon of 2, a hundred thousand trials lose less than
// 0.15 of it.
func TestBoundIsTight(t *testing.T) {
	r := audit(t, config(twoRounds(t, terms(50)), 100_000))
	if !(r.LowerBound >= 1.85) || r.Trials < 100_000 {
		t.Errorf("epsilon is at least %v after %d trials", r.LowerBound, r.Trials)
	}
	if !r.Passed {
		t.Error(r.Verdict)
	}
	t.Logf("claimed %.4f, at least %.4f", r.ClaimedEpsilon, r.LowerBound)
}

// TestModes: honest services pass, whatever the mode, and the bound is near the claim.
// With central trust the servers' noise has no seed: that audit fails, or its bound
// falls short, with probability below 1e-8.
func TestModes(t *testing.T) {
	learned := func(trust rounds.Trust) *rounds.Spec {
		term := terms(30)
		term.Trust = trust
		s, err := jobs.New(jobs.Parameters{Config: lowrank.Config{
			Dim: 12, Rank: 2, Rounds: 2, Features: lowrank.Unscaled, Update: lowrank.Gradient,
		}}, term)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	replaceOne := terms(20)
	replaceOne.Adjacency = dp.ReplaceOne
	seen := terms(5) // fewer than are looked at in a round otherwise
	seen.Trust = rounds.TrustLocal
	few := twoRounds(t, seen)
	for name, s := range map[string]*rounds.Spec{
		"replace-one": twoRounds(t, replaceOne),
		"alone":       twoRounds(t, terms(1)),
		"distributed": learned(rounds.TrustDistributed),
		"local":       learned(rounds.TrustLocal),
		"local, few":  few,
		"central":     learned(rounds.TrustCentral),
	} {
		t.Run(name, func(t *testing.T) {
			c := config(s, 4000)
			if s.Trust == rounds.TrustCentral {
				c.Seed, c.FalseAlarm = nil, 1e-9
			}
			r := audit(t, c)
			if !r.Passed || r.LowerBound < 1.1 {
				t.Errorf("at least %v: %s", r.LowerBound, r.Verdict)
			}
			if r.ClaimedEpsilon > 2 || r.ClaimedEpsilon < 1.999 || r.Trust != string(s.Trust) || r.Rounds != len(s.Releases) {
				t.Errorf("claimed %+v", r)
			}
			if _, err := json.Marshal(r); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFalseAlarms repeats an audit of an honest service: the bound exceeds the claim,
// and the verdict is wrong, no more often than stated. The counts are compared with the
// quantile that is exceeded with probability 1e-6; seeds are pinned, but for servers' noise.
func TestFalseAlarms(t *testing.T) {
	const audits, alarm = 200, 0.1
	most := 0
	for b := (distuv.Binomial{N: audits, P: alarm}); b.Survival(float64(most)) > 1e-6; most++ {
	}
	for _, c := range []struct {
		trust        rounds.Trust
		nMin, trials int
	}{
		{rounds.TrustDistributed, 20, 160},
		{rounds.TrustDistributed, 20, 20}, // one value of each device and coordinate
		{rounds.TrustLocal, 5, 40},
		{rounds.TrustCentral, 20, 160},
	} {
		t.Run(fmt.Sprintf("%s, %d trials", c.trust, c.trials), func(t *testing.T) {
			term := terms(c.nMin)
			term.Trust = c.trust
			s := twoRounds(t, term)
			above, failed := 0, 0
			for seed := range uint64(audits) {
				cfg := config(s, c.trials)
				cfg.Seed, cfg.Confidence, cfg.FalseAlarm = &seed, 1-alarm, alarm
				if c.trust == rounds.TrustCentral {
					cfg.Seed = nil
				}
				r := audit(t, cfg)
				if r.LowerBound > r.ClaimedEpsilon {
					above++
				}
				if !r.Passed {
					failed++
				}
			}
			t.Logf("of %d audits %d have a bound above the claim, and %d fail; at most %d may", audits, above, failed, most)
			if above > most || failed > most {
				t.Errorf("%d bounds are above the claim, and %d audits failed, of %d", above, failed, audits)
			}
			if c.trust != rounds.TrustCentral && failed == 0 || c.trust == rounds.TrustDistributed && c.nMin < c.trials && above == 0 {
				t.Error("the bounds are looser than they are said to be")
			}
		})
	}
}

// TestSeedRepeats holds that an audit from a seed comes out the same to the last bit.
func TestSeedRepeats(t *testing.T) {
	figures := func(seed uint64) string {
		c := config(twoRounds(t, terms(5)), 1000)
		c.Seed = &seed
		r := audit(t, c)
		r.Date, r.Seed, r.How = time.Time{}, nil, ""
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if a, b := figures(1), figures(1); a != b {
		t.Errorf("%s\n%s", a, b)
	}
	if figures(1) == figures(2) {
		t.Error("the seed changes nothing")
	}
}

// TestVerdicts: that the noise is there is said only where less would have been noticed,
// and what has a seed says so.
func TestVerdicts(t *testing.T) {
	seed := uint64(7)
	for trials, want := range map[int]string{
		1:    "nothing contradicts the claim, but 20 trials are too few to say that the noise is there",
		4000: "nothing contradicts the claim: the noise of epsilon 2 is there",
	} {
		c := config(twoRounds(t, terms(20)), trials)
		c.Seed = &seed
		r := audit(t, c)
		if !r.Passed || r.Verdict != want {
			t.Errorf("%v, at least %v: %s", r.Passed, r.LowerBound, r.Verdict)
		}
		if !strings.HasSuffix(r.How, ", noise from seed 7, so not secret") {
			t.Error(r.How)
		}
	}
	c := config(twoRounds(t, terms(20)), 1)
	c.Seed = nil
	if r := audit(t, c); strings.Contains(r.How, "seed") {
		t.Error(r.How)
	}
}

func TestMistakes(t *testing.T) {
	coarse := *twoRounds(t, terms(5))
	for flag, change := range map[string]func(*Config){
		"trials":      func(c *Config) { c.Trials = 0 },
		"confidence":  func(c *Config) { c.Confidence = 1 },
		"false-alarm": func(c *Config) { c.FalseAlarm = 0 },
		"seed": func(c *Config) {
			term := terms(5)
			term.Trust = rounds.TrustCentral
			c.Spec = twoRounds(t, term)
		},
		"spec": func(c *Config) {
			coarse.Releases = slices.Clone(coarse.Releases)
			coarse.Releases[0].Sigma /= 2
			c.Spec = &coarse
		},
	} {
		c := config(twoRounds(t, terms(5)), 100)
		change(&c)
		_, err := Run(context.Background(), c)
		var field *FieldError
		if !errors.As(err, &field) || field.Flag != flag {
			t.Errorf("want a mistake in --%s, got %v", flag, err)
		}
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	c := config(twoRounds(t, terms(5)), 1_000_000)
	c.Progress = func(int, int) { cancel() }
	if _, err := Run(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// failures names what has not passed.
func failures(r *Result) (names []string) {
	for _, a := range r.Attacks {
		if !a.Passed {
			names = append(names, fmt.Sprintf("%s: at least %.3g, p = %.2g", a.Name, a.Lower, a.PValue))
		}
	}
	for _, c := range r.Tests {
		if !c.Passed {
			names = append(names, fmt.Sprintf("%s: %.4g instead of %.4g, p = %.2g", c.Name, c.Measured, c.Expected, c.PValue))
		}
	}
	return names
}

func anyHas(names []string, part string) bool {
	return slices.ContainsFunc(names, func(s string) bool { return strings.Contains(s, part) })
}
