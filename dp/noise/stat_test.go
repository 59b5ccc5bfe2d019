package noise_test

import (
	"math"

	"gonum.org/v1/gonum/stat/distuv"
)

// falseAlarm is the probability with which one statistical check here fails
// for a correct sampler. Seeded samplers make their checks repeatable; those
// of Google's, whose source cannot be seeded, fail that often.
const falseAlarm = 1e-8

// histogram is a partition of the integers into cells: from edges[i] up to and
// without edges[i+1], and the two tails.
type histogram struct {
	edges []int64
	p     []float64 // exact probability of each cell
}

// cell returns the index of x's cell; 0 and len(edges) are the tails.
func (h *histogram) cell(x int64) int {
	lo, hi := 0, len(h.edges)
	for lo < hi {
		if mid := (lo + hi) / 2; x >= h.edges[mid] {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// cells returns edges for n draws so that every cell has an expectation of at
// least ten or so: steps of max(1, sigma/8) out to the quantile of 100/n.
func cells(sigma float64, n int) []int64 {
	reach := distuv.UnitNormal.Quantile(1 - 50/float64(n))
	step := max(1, math.Floor(sigma/8))
	var edges []int64
	for x := -math.Floor(reach * sigma / step); x <= reach*sigma/step+1; x++ {
		edges = append(edges, int64(x*step))
	}
	return edges
}

// discreteHistogram has the cells of N_Z(0, sigma^2), summed term by term, or
// for a large sigma by the normal distribution function, from half a unit
// before an edge, which is then off by a relative 1/24 sigma^2 < 2^-24.
func discreteHistogram(sigma float64, n int) *histogram {
	if sigma > 1000 {
		return roundedHistogram(sigma, n)
	}
	h := &histogram{edges: cells(sigma, n)}
	h.p = make([]float64, len(h.edges)+1)
	var total float64
	for x := int64(-12*sigma - 12); float64(x) <= 12*sigma+12; x++ {
		w := math.Exp(-float64(x*x) / (2 * sigma * sigma))
		h.p[h.cell(x)] += w
		total += w
	}
	for i := range h.p {
		h.p[i] /= total
	}
	return h
}

// roundedHistogram has the cells of a normal variable rounded to an integer.
func roundedHistogram(sigma float64, n int) *histogram {
	h := &histogram{edges: cells(sigma, n)}
	var before float64
	for _, e := range h.edges {
		below := distuv.UnitNormal.CDF((float64(e) - 0.5) / sigma)
		h.p = append(h.p, below-before)
		before = below
	}
	h.p = append(h.p, 1-before)
	return h
}

// fit returns the p-value of Pearson's chi-square test of the draws.
func (h *histogram) fit(draws []int64) float64 {
	count := make([]float64, len(h.p))
	for _, x := range draws {
		count[h.cell(x)]++
	}
	var chi2 float64
	degrees := -1.0
	var rareCount, rareExpected float64 // cells too rare to stand alone
	for i, c := range count {
		expected := h.p[i] * float64(len(draws))
		if expected < 10 {
			rareCount += c
			rareExpected += expected
			continue
		}
		chi2 += (c - expected) * (c - expected) / expected
		degrees++
	}
	if rareExpected >= 1 {
		chi2 += (rareCount - rareExpected) * (rareCount - rareExpected) / rareExpected
		degrees++
	}
	return distuv.ChiSquared{K: degrees}.Survival(chi2)
}

// sameDistribution returns the p-value of the chi-square test that two samples
// of one size, counted by cell, come from one distribution.
func sameDistribution(a, b map[int]float64) float64 {
	var chi2 float64
	degrees := -1.0
	for cell := range union(a, b) {
		if sum := a[cell] + b[cell]; sum >= 20 {
			chi2 += (a[cell] - b[cell]) * (a[cell] - b[cell]) / sum
			degrees++
		}
	}
	return distuv.ChiSquared{K: degrees}.Survival(chi2)
}

func union(a, b map[int]float64) map[int]bool {
	u := make(map[int]bool)
	for cell := range a {
		u[cell] = true
	}
	for cell := range b {
		u[cell] = true
	}
	return u
}

// zTail returns the two-sided probability of a standard normal beyond z.
func zTail(z float64) float64 { return 2 * distuv.UnitNormal.Survival(math.Abs(z)) }
