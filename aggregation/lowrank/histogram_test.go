package lowrank

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestBinEdges(t *testing.T) {
	for _, c := range []struct {
		x    float64
		want int
	}{
		{0, 0}, {math.NaN(), 0}, {-1, 0}, {5e-324, 0}, {math.Exp2(lowestExponent), 0},
		{1, 24}, {1.4, 24}, {1.5, 25}, {2, 26},
		{math.Exp2(12), histogramBins - 1}, {math.MaxFloat64, histogramBins - 1}, {math.Inf(1), histogramBins - 1},
	} {
		if got := Bin(c.x); got != c.want {
			t.Errorf("Bin(%v) = %d, want %d", c.x, got, c.want)
		}
		part := make([]float64, histogramBins)
		MarkBin(part, c.x)
		for b, v := range part {
			if (b == c.want) != (v == histogramBound) || b != c.want && v != 0 {
				t.Errorf("MarkBin(%v): bin %d holds %v", c.x, b, v)
			}
		}
	}
}

func TestScaleBinEdges(t *testing.T) {
	for _, c := range []struct {
		x    float64
		want int
	}{
		{0, -1}, {math.NaN(), -1}, {-1, -1}, {5e-324, 0}, {math.Exp2(lowestScale), 0}, {1, 8}, {1.9, 8}, {2, 9},
		{math.MaxFloat64, scaleBins - 1}, {math.Inf(1), scaleBins - 1},
	} {
		if got := ScaleBin(c.x); got != c.want {
			t.Errorf("ScaleBin(%v) = %d, want %d", c.x, got, c.want)
		}
	}
}

// histogramOf sums the users' marks, and returns the two values on either side
// of their median (the same one if they are odd in number), and their mean
// square.
func histogramOf(x []float64) (sum []float64, median [2]float64, meanSquare float64) {
	sum = make([]float64, histogramBins)
	for _, v := range x {
		part := make([]float64, histogramBins)
		MarkBin(part, v)
		for b, m := range part {
			sum[b] += m
		}
		meanSquare += v * v / float64(len(x))
	}
	sorted := slices.Sorted(slices.Values(x))
	return sum, [2]float64{sorted[(len(sorted)-1)/2], sorted[len(sorted)/2]}, meanSquare
}

// between reports whether x is between the two up to a factor.
func between(x float64, limits [2]float64, factor float64) bool {
	return x*factor >= limits[0] && x <= limits[1]*factor
}

// within reports whether x and y differ by at most a factor.
func within(x, y, factor float64) bool { return x <= y*factor && y <= x*factor }

// TestTypicalWithoutNoise: the median is right up to its bin's width, the mean
// square up to half a bin's, squared.
func TestTypicalWithoutNoise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		unit := math.Exp2(rapid.Float64Range(-11, 9).Draw(t, "exponent"))
		x := rapid.SliceOfN(rapid.Float64Range(unit, 4*unit), 1, 40).Draw(t, "x")
		sum, median, square := histogramOf(x)
		gotMedian, gotSquare, ok := typical(sum, 0)
		const slack = 1 + 1e-9
		if !ok || !between(gotMedian, median, math.Sqrt2*slack) || !within(gotSquare, square, math.Sqrt2*slack) {
			t.Fatalf("median %v, mean square %v, %v; want %v, %v", gotMedian, gotSquare, ok, median, square)
		}
	})
}

// TestTypicalOfNoise: noise alone stands out in a share p of all histograms,
// 48 bins of P(Z > 4). The limits are 5 standard deviations of the count, a
// false alarm in 10^6 were the seed not fixed.
func TestTypicalOfNoise(t *testing.T) {
	const draws = 50000
	rng := seeded(1)
	found := 0.0
	for range draws {
		if _, _, ok := typical(gaussian(rng, histogramBins, 3), 3); ok {
			found++
		}
	}
	p := histogramBins * math.Erfc(detection/math.Sqrt2) / 2
	want, sd := draws*p, math.Sqrt(draws*p)
	if math.Abs(found-want) > 5*sd {
		t.Errorf("%v of %d histograms of noise stand out, want %.0f +- %.0f", found, draws, want, sd)
	}
	if _, _, ok := typical(make([]float64, histogramBins), 0); ok {
		t.Error("an empty histogram stands out")
	}
}

// TestTypicalWithStrayBins: bins far from the fullest one that happen to stand
// out do not move the figures.
func TestTypicalWithStrayBins(t *testing.T) {
	rng := seeded(2)
	for range 200 {
		x := make([]float64, 2000)
		for i := range x {
			x[i] = math.Exp(0.3 * rng.NormFloat64())
		}
		sum, median, square := histogramOf(x)
		const sd = 2000 * histogramBound / 200
		for b, v := range gaussian(rng, histogramBins, sd) {
			sum[b] += v
		}
		sum[2] += 5 * sd
		sum[histogramBins-3] += 5 * sd
		gotMedian, gotSquare, ok := typical(sum, sd)
		if !ok || !between(gotMedian, median, math.Sqrt2) || !within(gotSquare, square, 2.5) {
			t.Fatalf("median %v, mean square %v, %v; want %v, %v", gotMedian, gotSquare, ok, median, square)
		}
	}
}
