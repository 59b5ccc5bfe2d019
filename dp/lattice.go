package dp

import (
	"errors"
	"fmt"
	"math"
	"math/bits"

	"github.com/undertone-fl/undertone/dp/noise"
)

// Lattice is the public grid that contributions live on: multiples of
// 2^-ScaleBits, held as integers. Sums live modulo 2^ModulusBits and are read
// as the representative in [-2^(ModulusBits-1), 2^(ModulusBits-1)).
//
// # Theorem
//
// Let L = floor(C 2^ScaleBits), and let Encode map x in R^n to z in Z^n for a
// bound C. Whatever x is and whatever the rounding bits are, ||z||_2 <= L, or
// Encode fails. Under zero-out adjacency the sum of contributions therefore has
// L2 sensitivity L, an integer, and rounding is no part of the argument.
//
// Proof. Encode compares the integers sum z_i^2 and L^2 exactly.
//
// It does not fail for want of room, either: y, which is x in lattice units,
// is first scaled to ||y|| <= L - sqrt(n), and rounding to a neighbour moves
// every coordinate by less than 1, so y by less than sqrt(n). (Scaling keeps
// away by another 2^-50 (n+8) L, for the rounding of floats.) The price is
// public: the fraction sqrt(n)/L of a contribution at the bound. In return one
// pass is enough and rounding is unbiased; drawing again until the norm happens
// to fit, the other way known, is neither.
type Lattice struct {
	ScaleBits   uint `json:"scale_bits"`   // spacing 2^-ScaleBits, at most 52
	ModulusBits uint `json:"modulus_bits"` // 2 to 64
}

// maxBound keeps lattice coordinates exact as float64.
const maxBound = 1 << 52

var (
	// ErrLattice says that a Lattice's numbers of bits are out of range.
	ErrLattice = errors.New("dp: lattice needs ScaleBits up to 52 and ModulusBits from 2 to 64")
	// ErrTooCoarse says that a norm bound spans too few lattice spacings for
	// the dimension: rounding alone could exceed it. More ScaleBits help.
	ErrTooCoarse = errors.New("dp: lattice too coarse for the bound and the dimension")
	// ErrNorm says that an integer vector exceeds its norm bound.
	ErrNorm = errors.New("dp: integer norm exceeds the bound")
)

// Validate returns nil or [ErrLattice].
func (l Lattice) Validate() error {
	if l.ScaleBits > 52 || l.ModulusBits < 2 || l.ModulusBits > 64 {
		return ErrLattice
	}
	return nil
}

// Bound returns L = floor(bound 2^ScaleBits), the largest norm of an encoded
// contribution in lattice units, which is its L2 sensitivity.
//
// Fails with [ErrLattice], [ErrBound], [ErrTooCoarse] if L is 0, or a
// *[CapacityError] if L exceeds 2^52 or half the modulus.
func (l Lattice) Bound(bound float64) (uint64, error) {
	if err := l.Validate(); err != nil {
		return 0, err
	}
	if !validBound(bound) {
		return 0, ErrBound
	}
	units := math.Floor(math.Ldexp(bound, int(l.ScaleBits)))
	if limit := min(float64(l.limit()), maxBound); units > limit {
		return 0, &CapacityError{Clients: 1, Sum: units, Limit: limit}
	}
	if units == 0 {
		return 0, ErrTooCoarse
	}
	return uint64(units), nil
}

// limit is the largest integer of the centred range.
func (l Lattice) limit() int64 { return math.MaxInt64 >> (64 - l.ModulusBits) }

// Encode clips x to bound and rounds it stochastically onto the lattice, with
// bits from src: each coordinate goes up or down to a neighbour so that its
// expectation is the clipped coordinate, to 2^-53. Afterwards ||dst||_2 <=
// Bound(bound); see the theorem at [Lattice]. dst has the length of x, or
// Encode panics.
//
// Fails with [ErrNotFinite], the errors of [Lattice.Bound], [ErrTooCoarse] if L
// does not exceed sqrt(n), and would fail with [ErrNorm] if the integer norm
// exceeded L. On any failure dst is all zeros.
func (l Lattice) Encode(dst []int64, x []float64, bound float64, src noise.Source) error {
	if len(dst) != len(x) {
		panic("dp: Encode of vectors of different lengths")
	}
	err := l.encode(dst, x, bound, src)
	if err != nil {
		clear(dst)
	}
	return err
}

func (l Lattice) encode(dst []int64, x []float64, bound float64, src noise.Source) error {
	most, err := l.Bound(bound)
	if err != nil {
		return err
	}
	largest, err := maxAbs(x)
	if err != nil {
		return err
	}
	n := float64(len(x))
	target := (float64(most) - math.Sqrt(n)) * (1 - 0x1p-50*(n+8))
	if target <= 0 {
		return ErrTooCoarse
	}
	// x_i / divisor * factor is x_i in lattice units, exactly if x is within
	// the target.
	divisor, factor := 1.0, math.Ldexp(1, int(l.ScaleBits))
	if root := scaledNorm(x, largest); largest*factor*root > target {
		divisor, factor = largest, target/root
	}
	for i, v := range x {
		dst[i] = roundStochastically(v/divisor*factor, src.Uint64())
	}
	return CheckNorm(dst, most)
}

// roundStochastically returns one of the integers next to y, |y| <= 2^52, with
// expectation y if word is uniform. Its distribution mirrors with y.
func roundStochastically(y float64, word uint64) int64 {
	magnitude := math.Abs(y)
	floor := math.Floor(magnitude)
	z := int64(floor)
	if float64(word>>11)*0x1p-53 < magnitude-floor {
		z++
	}
	if y < 0 {
		return -z
	}
	return z
}

// CheckNorm returns nil if ||z||_2 <= bound, by exact integer arithmetic, and
// [ErrNorm] if not.
func CheckNorm(z []int64, bound uint64) error {
	limitHi, limitLo := bits.Mul64(bound, bound)
	var sumHi, sumLo uint64
	for _, v := range z {
		magnitude := uint64(v)
		if v < 0 {
			magnitude = -magnitude
		}
		if magnitude > bound {
			return ErrNorm
		}
		hi, lo := bits.Mul64(magnitude, magnitude)
		var carry uint64
		sumLo, carry = bits.Add64(sumLo, lo, 0)
		sumHi, carry = bits.Add64(sumHi, hi, carry)
		if carry != 0 || sumHi > limitHi || sumHi == limitHi && sumLo > limitLo {
			return ErrNorm
		}
	}
	return nil
}

// Reduce brings every coordinate into the centred range, in place.
func (l Lattice) Reduce(x []int64) {
	shift := 64 - l.ModulusBits
	for i, v := range x {
		x[i] = v << shift >> shift
	}
}

// Decode writes sum, reduced into the centred range, to dst in the units of
// the vectors encoded. dst has the length of sum, or Decode panics.
func (l Lattice) Decode(dst []float64, sum []int64) {
	if len(dst) != len(sum) {
		panic("dp: Decode of vectors of different lengths")
	}
	shift := 64 - l.ModulusBits
	scale := math.Ldexp(1, -int(l.ScaleBits))
	for i, v := range sum {
		dst[i] = float64(v<<shift>>shift) * scale
	}
}

// noiseTail is the multiple of sigma that noise is given room for. Discrete
// Gaussians and their sums are sub-Gaussian with parameter sigma^2, so that
// one coordinate exceeds it with probability below 2 exp(-14^2/2) < 2^-140.
const noiseTail = 14

// Capacity returns nil if the sum of n contributions of norm up to bound, plus
// noise of standard deviation sigma (that of the whole sum), stays within the
// centred range, except with probability below 2^-100 over up to 2^40
// coordinates. Otherwise the sum would wrap around: private still, and useless.
//
// Fails with the errors of [Lattice.Bound], or a *[CapacityError].
func (l Lattice) Capacity(n int, bound, sigma float64) error {
	if n < 0 {
		panic("dp: a negative number of contributions")
	}
	most, err := l.Bound(bound)
	if err != nil {
		return err
	}
	e := &CapacityError{
		Clients: n,
		Sum:     float64(n) * float64(most),
		Noise:   math.Ceil(noiseTail * sigma),
		Limit:   float64(l.limit()),
	}
	// In floats each term is off by less than 2^-50 of itself, which is well
	// below the room that noiseTail leaves; the strict comparison covers the
	// limit's own rounding.
	if (e.Sum+e.Noise)*(1+0x1p-50) >= e.Limit {
		return e
	}
	return nil
}

// CapacityError says which part of a sum does not fit a lattice's modulus. All
// numbers are lattice units for one coordinate.
type CapacityError struct {
	Clients int
	Sum     float64 // the most that Clients contributions add up to
	Noise   float64 // the room that noise needs
	Limit   float64 // the largest value that can be held
}

func (e *CapacityError) Error() string {
	what := "noise"
	switch {
	case e.Sum > e.Limit:
		what = "the sum of contributions"
	case e.Noise <= e.Limit:
		what = "the sum of contributions with noise"
	}
	return fmt.Sprintf("dp: %s does not fit the lattice: %d clients add up to %g and noise to %g, of at most %g: use fewer ScaleBits or more ModulusBits",
		what, e.Clients, e.Sum, e.Noise, e.Limit)
}
