package lowrank

import (
	"math"
)

// A histogram rides along in a contribution to say how large a positive
// quantity is, over the users, whatever its unit: one coordinate a bin, bins
// at half powers of two, and the user's own bin holds histogramBound.
// Its quantiles set the public scales of later rounds.
const (
	histogramBins  = 48
	histogramBound = 0.15
	lowestExponent = -12 // of two: what is smaller counts as 2^-12
)

// Bin returns the histogram bin of x >= 0.
func Bin(x float64) int {
	b := math.Floor(2 * (math.Log2(x) - lowestExponent))
	switch {
	case !(b > 0): // also zero and NaN
		return 0
	case b >= histogramBins:
		return histogramBins - 1
	}
	return int(b)
}

// MarkBin puts the user's bin of x into a histogram part.
func MarkBin(part []float64, x float64) { part[Bin(x)] = histogramBound }

// median estimates the median over the users from the noised sum of their
// histograms, sd being the noise in each bin. Bins that noise alone could
// have filled are left out. ok is false when nothing stands out.
func median(sum []float64, sd float64) (value float64, ok bool) {
	kept := make([]float64, len(sum))
	var total float64
	for b, v := range sum {
		if v > 3*sd {
			kept[b] = v
			total += v
		}
	}
	var below float64
	for b, v := range kept {
		if v > 0 && below+v >= total/2 {
			at := float64(b) + (total/2-below)/v
			return math.Exp2(lowestExponent + at/2), true
		}
		below += v
	}
	return 0, false
}
