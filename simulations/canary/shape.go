package canary

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/mathext"
	"gonum.org/v1/gonum/stat/distuv"
)

// cells of a histogram, each of which a standard normal variable falls into equally
// often.
const cells = 1 << 10

// tails are the deviations beyond which values are counted. Noise of bounded support,
// which gives a user away with certainty, has too few there; noise that rarely is any,
// and then is large, too many.
var tails = [...]float64{3, 4}

// histogram counts values that are standard normal under the claim. Its zero value is
// empty.
type histogram struct {
	n      int
	cell   [cells]int
	beyond [len(tails)]int
}

func (h *histogram) add(x float64) {
	h.n++
	h.cell[min(int(distuv.UnitNormal.CDF(x)*cells), cells-1)]++
	for i, t := range tails {
		if math.Abs(x) > t {
			h.beyond[i]++
		}
	}
}

func (h *histogram) merge(other *histogram) {
	h.n += other.n
	for i, c := range other.cell {
		h.cell[i] += c
	}
	for i, c := range other.beyond {
		h.beyond[i] += c
	}
}

// distance is the largest between the distribution of the values and the normal one, at
// the cells' borders (Kolmogorov and Smirnov's statistic), with a bound on the probability
// of as much: 2 exp(-2 n D^2), for any n (Dvoretzky, Kiefer, Wolfowitz 1956, with the
// constant of Massart 1990). Looking at the borders alone can only make it smaller.
func (h *histogram) distance() (d, pvalue float64) {
	if h.n == 0 {
		return 0, 1
	}
	sum := 0
	for i, c := range h.cell {
		sum += c
		d = max(d, math.Abs(float64(sum)/float64(h.n)-float64(i+1)/cells))
	}
	return d, min(1, 2*math.Exp(-2*float64(h.n)*d*d))
}

// tests are of the shape, and of both tails. of says whose values they are.
func (h *histogram) tests(of string) []Test {
	d, p := h.distance()
	out := []Test{{Name: "distance of " + of + " from a Gaussian", Measured: d, PValue: p,
		Meaning: "the noise is of another distribution, of which no such epsilon follows"}}
	for i, t := range tails {
		rate := 2 * distuv.UnitNormal.Survival(t)
		test := Test{Name: fmt.Sprintf("share of %s beyond %g sigma", of, t), Expected: rate, PValue: 1,
			Meaning: "the noise has lighter tails than a Gaussian's: where it ends, it hides nothing"}
		if h.n > 0 {
			test.Measured = float64(h.beyond[i]) / float64(h.n)
			test.PValue = twoSided(h.beyond[i], h.n, rate)
		}
		if test.Measured > rate {
			test.Meaning = "the noise has heavier tails than a Gaussian's, and so less of it in between"
		}
		out = append(out, test)
	}
	return out
}

// twoSided is the probability that a binomial variable of n trials is as far out as k, or
// more, on either side.
func twoSided(k, n int, p float64) float64 {
	less, more := 1.0, 1.0
	if k < n {
		less = mathext.RegIncBeta(float64(n-k), float64(k+1), 1-p)
	}
	if k > 0 {
		more = mathext.RegIncBeta(float64(k), float64(n-k+1), p)
	}
	return min(1, 2*min(less, more))
}
