package accounting_test

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/undertone-fl/undertone/dp/accounting"
)

// TestAuditBoundHolds adds up, over every outcome of a game, the probability that
// the bounds are wrong: exact, without a draw.
func TestAuditBoundHolds(t *testing.T) {
	for _, trials := range []int{1, 7, 60, 400} {
		for _, mu := range []float64{0, 0.1, 0.87, 2, 5} {
			for _, alpha := range []float64{0.3, 0.05, 1e-4} {
				var above, below, rejected float64
				binomial := distuv.Binomial{N: float64(trials), P: accounting.GuessProbability(mu)}
				for correct := range trials + 1 {
					g := accounting.Guesses{Correct: correct, Trials: trials}
					p := binomial.Prob(float64(correct))
					low, high := g.Mu(alpha)
					if low > mu {
						above += p
					}
					if high < mu {
						below += p
					}
					value := g.PValue(mu)
					if value < alpha {
						rejected += p
					}
					// The bound exceeds mu exactly where the p-value rejects it.
					if (low > mu) != (value < alpha) && math.Abs(value-alpha) > 1e-9 {
						t.Errorf("%d of %d: at least mu %v, and p = %v of mu %v", correct, trials, low, value, mu)
					}
				}
				if above > alpha || below > alpha || rejected > alpha {
					t.Errorf("%d trials at mu %v, error rate %v: too high with %v, too low with %v, rejected with %v",
						trials, mu, alpha, above, below, rejected)
				}
			}
		}
	}
}

func TestAuditBound(t *testing.T) {
	// All of 10 right: p >= alpha^(1/10).
	low, high := accounting.Guesses{Correct: 10, Trials: 10}.Mu(0.05)
	near(t, "all right", accounting.GuessProbability(low), math.Pow(0.05, 0.1), 1e-12)
	if !math.IsInf(high, 1) {
		t.Errorf("at most %v, though no guess was wrong", high)
	}
	if low, _ := (accounting.Guesses{Correct: 3, Trials: 10}).Mu(0.05); low != 0 {
		t.Errorf("worse than a coin, and at least %v", low)
	}
	// A hundred thousand guesses at epsilon 2 lose little.
	mu := must(accounting.GaussianMu(2, 1e-6))
	const trials = 100_000
	g := accounting.Guesses{Correct: int(trials * accounting.GuessProbability(2*mu)), Trials: trials}
	low, high = g.Mu(0.05)
	if e := accounting.GaussianEpsilon(low/2, 1e-6); !(e > 1.95 && e < 2) {
		t.Errorf("epsilon at least %v", e)
	}
	if !(low < g.Estimate() && g.Estimate() < high) {
		t.Errorf("%v is not between %v and %v", g.Estimate(), low, high)
	}
}

func TestAuditOfNothingPanics(t *testing.T) {
	for _, g := range []accounting.Guesses{{}, {Correct: 2, Trials: 1}, {Correct: -1, Trials: 3}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v has a p-value", g)
				}
			}()
			g.PValue(1)
		}()
	}
}
