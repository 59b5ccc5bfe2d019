package dp

import (
	"errors"
	"math"
)

var (
	// ErrNotFinite says that a vector holds a NaN or an infinity.
	ErrNotFinite = errors.New("dp: not a finite vector")
	// ErrBound says that a norm bound is not positive and finite.
	ErrBound = errors.New("dp: norm bound not positive and finite")
)

// Clip scales x down to an L2 norm of at most bound, in place, and returns
// the norm it had (infinite if it exceeds the largest float64). A vector
// within the bound is left as it is.
//
// The norm is computed without overflow or underflow of its squares, and after
// Clip it is at most bound as computed here, so that Clip is idempotent. Only
// [Lattice.Encode] makes a bound to rely on.
//
// Fails with [ErrNotFinite] or [ErrBound], and then leaves x as it is.
func Clip(x []float64, bound float64) (norm float64, err error) {
	if !validBound(bound) {
		return 0, ErrBound
	}
	largest, err := maxAbs(x)
	if err != nil {
		return 0, err
	}
	root := scaledNorm(x, largest)
	norm = largest * root
	// Further passes take off what rounding left above the bound; they reach
	// for more each time, as subnormal numbers round by more than an ulp.
	for current, extra := norm, 0x1p-52; current > bound; extra *= 2 {
		factor := bound / largest / root * (1 - extra) // norm may be infinite
		for i := range x {
			x[i] *= factor
		}
		largest, _ = maxAbs(x)
		root = scaledNorm(x, largest)
		current = largest * root
	}
	return norm, nil
}

func validBound(bound float64) bool { return bound > 0 && !math.IsInf(bound, 1) }

// maxAbs returns max |x_i|, or ErrNotFinite.
func maxAbs(x []float64) (float64, error) {
	var largest float64
	for _, v := range x {
		largest = max(largest, math.Abs(v)) // max propagates NaN
	}
	if math.IsNaN(largest) || math.IsInf(largest, 1) {
		return 0, ErrNotFinite
	}
	return largest, nil
}

// scaledNorm returns ||x||/largest, which lies in [1, sqrt(n)], or 0 for x = 0.
func scaledNorm(x []float64, largest float64) float64 {
	if largest == 0 {
		return 0
	}
	var sum float64
	for _, v := range x {
		v /= largest
		sum += v * v
	}
	return math.Sqrt(sum)
}
