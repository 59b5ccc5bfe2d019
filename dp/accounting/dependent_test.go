package accounting_test

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/undertone-fl/undertone/dp/accounting"
)

// TestAnyMechanismBoundHolds adds up, over every outcome, the probability that the bound
// is wrong for the mechanism that is guessed best: each trial shows its coin with
// probability delta, and else answers at random as epsilon-DP allows (Kairouz, Oh,
// Viswanath 2015). Exact, without a draw.
func TestAnyMechanismBoundHolds(t *testing.T) {
	for _, trials := range []int{1, 9, 80, 200} {
		for _, epsilon := range []float64{0, 0.3, 2, 5} {
			for _, delta := range []float64{0, 1e-6, 1e-2} {
				for _, alpha := range []float64{0.3, 0.05, 1e-4} {
					p := delta + (1-delta)/(1+math.Exp(-epsilon))
					binomial := distuv.Binomial{N: float64(trials), P: p}
					var above float64
					last := 0.0
					for correct := range trials + 1 {
						low := accounting.Guesses{Correct: correct, Trials: trials}.Epsilon(delta, alpha, 1)
						if low > epsilon {
							above += binomial.Prob(float64(correct))
						}
						if low < last {
							t.Errorf("%d of %d: at least %v, and %v with one less", correct, trials, low, last)
						}
						last = low
					}
					if above > alpha {
						t.Errorf("%d trials at epsilon %v, delta %v, error rate %v: too high with %v", trials, epsilon, delta, alpha, above)
					}
				}
			}
		}
	}
}

// TestAnyMechanismBound is compared with (e^epsilon + delta) / (1 + e^epsilon), which the
// share of right guesses tends to: 10^5 guesses lose little to chance.
func TestAnyMechanismBound(t *testing.T) {
	const n, delta = 100_000, 1e-12
	for _, epsilon := range []float64{0.5, 1, 3} {
		for steps, factor := range []float64{1, 2} {
			p := 1 / (1 + math.Exp(-factor*epsilon))
			got := accounting.Guesses{Correct: int(p * n), Trials: n}.Epsilon(delta, 0.025, steps+1)
			if !(got < epsilon && got > epsilon-0.1) {
				t.Errorf("%d steps: at least %v of %v", steps+1, got, epsilon)
			}
		}
	}
	// Two steps at a large delta cost more than twice one of half the epsilon.
	g := accounting.Guesses{Correct: 990, Trials: 1000}
	if one, two := g.Epsilon(1e-4, 0.05, 1), g.Epsilon(1e-4, 0.05, 2); !(two < one/2) {
		t.Errorf("one step: at least %v, two: %v", one, two)
	}
	if e := (accounting.Guesses{Correct: 500, Trials: 1000}).Epsilon(1e-6, 0.05, 1); e != 0 {
		t.Errorf("a coin shows %v", e)
	}
	// Reference: the program of Steinke, Nasr, Jagielski 2023 (appendix D), bisected.
	for _, c := range []struct {
		correct, trials       int
		delta, alpha, atLeast float64
	}{
		{100, 100, 1e-5, 0.05, 3.490215955326},
		{800, 1000, 1e-5, 0.05, 1.253984094235},
		{990, 1000, 1e-4, 0.025, 3.911920862283},
	} {
		near(t, "reference", accounting.Guesses{Correct: c.correct, Trials: c.trials}.Epsilon(c.delta, c.alpha, 1), c.atLeast, 1e-9)
	}
}
