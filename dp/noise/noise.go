// Package noise adds integer noise to integer vectors.
//
// Its one idea: privacy is a statement about the exact distribution of what
// is released, so that distribution must be exact. Real-valued noise in
// floating point is not: which floats can come out depends on the secret, and
// a few percent of the outputs may give it away (Mironov, "On Significance of
// the Least Significant Bits for Differential Privacy", 2012). Here is no
// float between the secret and the release:
//
//  1. A contribution is a vector of integers z with ||z||_2 <= L, checked in
//     integers (dp.Lattice.Encode). L is the sensitivity, exactly.
//  2. Every coordinate gets independent noise from the discrete Gaussian
//     N_Z(0, sigma^2): P[X = x] proportional to exp(-x^2 / 2 sigma^2), x in Z.
//     The support is Z for every input, so no output excludes one, and the
//     mechanism is L^2 / 2 sigma^2 zero-concentrated DP, as in the continuous
//     case (Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential
//     Privacy", 2020, arXiv 2004.00010: theorem 4 for each coordinate, whose
//     divergences add up).
//  3. Sums are sums modulo a power of two, which is post-processing; where
//     each client adds a [Share] of the noise, the sum of discrete Gaussians
//     stands in for one at a stated distance.
//  4. Only the released sum becomes floats again (dp.Lattice.Decode).
//
// [DiscreteGaussian] is the sampler to use. [GoogleGaussian] is an independent
// implementation to hold it against.
//
// Samplers are not constant-time: an observer who can time single draws on the
// same machine learns about their size.
package noise

import (
	"errors"
	"math"
)

// A Sampler draws integer noise. A sampler serves one goroutine.
type Sampler interface {
	// Add adds an independent draw to every coordinate of x, in place,
	// modulo 2^64. It does not allocate.
	Add(x []int64)
	// Sigma is the standard deviation the sampler was asked for.
	Sigma() Sigma
}

// Sigma is a standard deviation, in units of 2^-20 lattice spacings. It is an
// integer so that every node and every auditor means the same number.
type Sigma uint64

const sigmaFractionBits = 20

// The range of standard deviations that can be sampled: 0.5 to 2^40 lattice
// units.
const (
	MinSigma Sigma = 1 << (sigmaFractionBits - 1)
	MaxSigma Sigma = 1 << (sigmaFractionBits + 40)
)

// ErrSigmaRange says that a standard deviation is outside of [[MinSigma],
// [MaxSigma]].
var ErrSigmaRange = errors.New("noise: sigma outside of 0.5 to 2^40 lattice units")

// SigmaAtLeast returns the least Sigma that is not below x lattice units.
func SigmaAtLeast(x float64) (Sigma, error) {
	units := math.Ceil(math.Ldexp(x, sigmaFractionBits)) // exact: a power of two
	if !(units >= float64(MinSigma) && units <= float64(MaxSigma)) {
		return 0, ErrSigmaRange
	}
	return Sigma(units), nil
}

// Float64 returns sigma in lattice units.
func (s Sigma) Float64() float64 { return math.Ldexp(float64(s), -sigmaFractionBits) }

func (s Sigma) check() error {
	if s < MinSigma || s > MaxSigma {
		return ErrSigmaRange
	}
	return nil
}
