package simulations_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/undertone-fl/undertone/simulations"
)

func membership(epsilon float64) simulations.Membership {
	return simulations.Membership{
		Epsilon: simulations.Epsilon(epsilon), Delta: 1e-6, Adjacency: "zero-out", Trust: "distributed",
		Clients: 10, Rounds: 3, Runs: 1200, Confidence: 0.95, FalseAlarm: 1e-6, Seed: 1,
	}
}

func measure(t *testing.T, m simulations.Membership) *simulations.MembershipResult {
	t.Helper()
	r, err := simulations.MeasureMembership(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
	return r
}

// TestMembership holds that what the attack finds stays below the claim, grows with
// it, and is everything where there is no noise. The false-alarm rate, had the seed not
// been tried, is 5 % for each bound.
func TestMembership(t *testing.T) {
	before := 0.0
	for _, epsilon := range []float64{2, 8, 32} {
		r := measure(t, membership(epsilon))
		t.Logf("epsilon %v: %d of %d right, at least %.3f", epsilon, r.Correct, r.Trials, r.LowerBound)
		if !r.Passed || r.LowerBound > epsilon || r.LowerBound < before {
			t.Errorf("of epsilon %v it finds at least %v, after %v for less", epsilon, r.LowerBound, before)
		}
		before = r.LowerBound
	}
	if before < 2 {
		t.Errorf("of epsilon 32 it finds %v: the attack is blind", before)
	}
	r := measure(t, membership(math.Inf(1)))
	if r.Correct != r.Trials || r.LowerBound <= 2*before {
		t.Errorf("without noise %d of %d are right: at least %v", r.Correct, r.Trials, r.LowerBound)
	}
}

// TestMembershipNeverExceeds repeats the measurement: no more bounds lie above the
// claim than their confidence allows. The claim is so small that the bound exceeds it
// by chance alone; the count is compared with the quantile that is exceeded with
// probability 1e-6, from pinned seeds.
func TestMembershipNeverExceeds(t *testing.T) {
	const repetitions, alpha, claim = 80, 0.2, 0.02
	above := 0
	for seed := range uint64(repetitions) {
		m := membership(claim)
		m.Runs, m.Rounds, m.Confidence, m.Seed = 60, 1, 1-alpha, 1000*seed
		if r := measure(t, m); r.LowerBound > claim {
			above++
		}
	}
	most := 0
	for b := (distuv.Binomial{N: repetitions, P: alpha}); b.Survival(float64(most)) > 1e-6; most++ {
	}
	t.Logf("%d of %d are above, and %d may be", above, repetitions, most)
	if above > most || above == 0 {
		t.Errorf("%d of %d bounds are above the claim", above, repetitions)
	}
}

func TestMembershipMistakes(t *testing.T) {
	for flag, change := range map[string]func(*simulations.Membership){
		"clients":     func(m *simulations.Membership) { m.Clients = 3 },
		"runs":        func(m *simulations.Membership) { m.Runs = 10 },
		"rounds":      func(m *simulations.Membership) { m.Rounds = 0 },
		"epsilon":     func(m *simulations.Membership) { m.Epsilon = -1 },
		"delta":       func(m *simulations.Membership) { m.Delta = 0 },
		"adjacency":   func(m *simulations.Membership) { m.Adjacency = "odd" },
		"trust":       func(m *simulations.Membership) { m.Trust = "odd" },
		"confidence":  func(m *simulations.Membership) { m.Confidence = 1 },
		"false-alarm": func(m *simulations.Membership) { m.FalseAlarm = math.NaN() },
	} {
		m := membership(2)
		change(&m)
		_, err := simulations.MeasureMembership(context.Background(), m)
		var field *simulations.FieldError
		if !errors.As(err, &field) || field.Flag != flag {
			t.Errorf("want a mistake in --%s, got %v", flag, err)
		}
	}
}
