package lowrank

import (
	"math"

	"gonum.org/v1/gonum/floats"
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

// detection is how many standard deviations of noise make a signal: noise
// alone passes one time in 30,000, and the 48 bins of a histogram together one
// in 650.
const detection = 4

// neighbourhood is how many bins on either side of the fullest one can hold
// users: a factor of 8 each way. Beyond it a bin is noise.
const neighbourhood = 6

// typical estimates the median over the users, and the mean of the squares,
// from the noised sum of their histograms, sd being the noise in each bin.
// Bins count where they stand out of the noise and near the fullest one: half
// of detection, as a false one there costs little and a true one left out
// biases the tails. ok is false when the fullest does not stand out itself.
func typical(sum []float64, sd float64) (median, meanSquare float64, ok bool) {
	peak := floats.MaxIdx(sum)
	if !(sum[peak] > detection*sd) {
		return 0, 0, false
	}
	first, last := max(0, peak-neighbourhood), min(len(sum)-1, peak+neighbourhood)
	var total, square float64
	for b := first; b <= last; b++ {
		if v := sum[b]; v > detection/2*sd {
			total += v
			square += v * math.Pow(binValue(float64(b)+0.5), 2)
		}
	}
	var below float64
	for b := first; b <= last; b++ {
		v := sum[b]
		if !(v > detection/2*sd) {
			continue
		}
		if below+v >= total/2 {
			return binValue(float64(b) + (total/2-below)/v), square / total, true
		}
		below += v
	}
	return 0, 0, false // a sum that is not finite
}

// binValue is the quantity at a place on the histogram's axis.
func binValue(at float64) float64 { return math.Exp2(lowestExponent + at/2) }
