package accounting

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/mathext"
	"gonum.org/v1/gonum/stat/distuv"
)

// Epsilon returns a lower bound on epsilon, at delta, which holds but for a probability
// of alpha and assumes nothing of the mechanism: not that its noise is Gaussian, nor that
// the trials are independent. All of them may be of one run of it, each with a coin and
// an input of its own. It is 0 where the guesses show nothing.
//
// The two inputs that a coin chose between are so many steps of the adjacency apart, 1 or
// 2: with 2, whatever is (epsilon, delta)-DP is (2 epsilon, (1 + e^epsilon) delta)-DP
// between them, as P(S) <= e^epsilon Q(S) + delta holds twice.
//
// # Why
//
// A guess between neighbours is right with probability at most (e^epsilon + delta) / (1 +
// e^epsilon). For n guesses of one run, Steinke, Nasr, Jagielski 2023 (Theorem 5.2) have
// that v or more of them are right with probability at most
//
//	f(v) + 2 n delta max_i (f(v-i) - f(v)) / i,  i = 1..v,
//
// f(v) being the probability of v successes or more in n independent trials of
// e^epsilon / (1 + e^epsilon). That grows with epsilon as long as it is below a half; the bound is where it is alpha.
//
// Panics as Mu does, and unless alpha is at most 1/2, delta from 0 up to 1, and steps 1 or
// 2.
func (g Guesses) Epsilon(delta, alpha float64, steps int) float64 {
	g.check()
	if !(alpha > 0 && alpha <= 0.5) || !(delta >= 0 && delta < 1) || steps != 1 && steps != 2 {
		panic(fmt.Sprintf("accounting: an error rate of %v, delta %v, %d steps", alpha, delta, steps))
	}
	low, high := 0.0, 64.0
	if g.chance(low, delta, steps) > alpha {
		return 0
	}
	for range 60 {
		if middle := (low + high) / 2; g.chance(middle, delta, steps) <= alpha {
			low = middle
		} else {
			high = middle
		}
	}
	return low
}

// chance bounds the probability of so many right guesses or more under
// (epsilon, delta)-DP.
func (g Guesses) chance(epsilon, delta float64, steps int) float64 {
	if steps == 2 {
		delta *= 1 + math.Exp(epsilon)
		epsilon *= 2
	}
	n, v := float64(g.Trials), float64(g.Correct)
	b := distuv.Binomial{N: n, P: 1 / (1 + math.Exp(-epsilon))}
	f := 1.0
	if v > 0 {
		f = mathext.RegIncBeta(v, n-v+1, b.P)
	}
	// The largest mean of the probabilities of v-1, v-2, ...: these rise towards the
	// likeliest number and fall beyond it, so the mean's first fall is its last. Those far
	// above it add up to less than e^-60 (Bernstein), and are not looked at.
	mean, sum := 0.0, 0.0
	far := math.Ceil(b.Mean() + 40*b.StdDev() + 40)
	for i := max(1, v-far); i <= v; i++ {
		sum += b.Prob(v - i)
		if sum/i < mean {
			break
		}
		mean = sum / i
	}
	return min(1, f+2*n*delta*mean)
}
