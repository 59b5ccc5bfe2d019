package accounting

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/mathext"
	"gonum.org/v1/gonum/stat/distuv"
)

// Guesses is the outcome of a game that measures privacy from outside: in each
// trial a fair coin chose one of two neighbouring inputs, and an attack that was
// fixed in advance guessed from the output which.
//
// # What it says
//
// A test between the two outputs of a mu-GDP mechanism has errors of at least
// alpha and Phi(Phi^-1(1-alpha) - mu) of the two kinds (Dong, Roth, Su 2022,
// Definition 2.6), and so errs, over a fair coin, with probability at least
// Phi(-mu/2). A guess is right with probability p <= Phi(mu/2) at most, whatever
// the attack. So a lower bound on p is one on mu, 2 Phi^-1(p), and by
// [GaussianEpsilon] on epsilon; Nasr et al. 2023 ("Tight Auditing of
// Differentially Private Machine Learning") take the same turn, from binary trials
// to GDP, as it wastes nothing where the noise is Gaussian.
//
// The bound on p is Clopper and Pearson's: exact for independent trials, and valid
// where each is right with probability at most p given all others. Of a mechanism that
// is not known to be Gaussian, or whose trials may depend, [Guesses.Epsilon] says less,
// and what holds.
type Guesses struct{ Correct, Trials int }

// GuessProbability returns Phi(mu/2), the highest probability of a right guess
// between neighbours under mu-GDP.
func GuessProbability(mu float64) float64 { return upperTail(-mu / 2) }

// Mu returns bounds on the mu of the attack, each of which holds but for a
// probability of alpha: the mechanism is not mu-GDP for any mu below low. high bounds what
// this attack can reach, and nothing else; it is +Inf if all guesses were right.
// Panics unless there are trials, Correct is one of 0 to Trials, and alpha between 0
// and 1.
func (g Guesses) Mu(alpha float64) (low, high float64) {
	g.check()
	if checkDelta(alpha) != nil {
		panic(fmt.Sprintf("accounting: an error rate of %v", alpha))
	}
	right, wrong := float64(g.Correct), float64(g.Trials-g.Correct)
	if g.Correct > 0 {
		low = guessMu(mathext.InvRegIncBeta(right, wrong+1, alpha))
	}
	high = math.Inf(1)
	if wrong > 0 {
		high = guessMu(1 - mathext.InvRegIncBeta(wrong, right+1, alpha))
	}
	return low, high
}

// Estimate returns the mu of the share of right guesses.
func (g Guesses) Estimate() float64 {
	g.check()
	return guessMu(float64(g.Correct) / float64(g.Trials))
}

// PValue returns the probability of so many right guesses or more under mu-GDP: how
// far they contradict it.
func (g Guesses) PValue(mu float64) float64 {
	g.check()
	if g.Correct == 0 {
		return 1
	}
	return mathext.RegIncBeta(float64(g.Correct), float64(g.Trials-g.Correct+1), GuessProbability(mu))
}

func (g Guesses) check() {
	if g.Trials < 1 || g.Correct < 0 || g.Correct > g.Trials {
		panic(fmt.Sprintf("accounting: %d right guesses of %d", g.Correct, g.Trials))
	}
}

// guessMu is 2 Phi^-1(p), at least 0: who guesses worse than a coin says nothing.
func guessMu(p float64) float64 {
	if p <= 0.5 {
		return 0
	}
	return 2 * distuv.UnitNormal.Quantile(p)
}
