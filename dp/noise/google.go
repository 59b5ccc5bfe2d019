package noise

import (
	"fmt"
	"math"
	"math/big"

	googlenoise "github.com/google/differential-privacy/go/v2/noise"
)

// GoogleGaussian samples the integer Gaussian of
// github.com/google/differential-privacy: a binomial that stands in for a
// Gaussian, rounded to integers, with its own cryptographic source. It cannot
// be repeated, all goroutines wait for one lock, and a draw takes microseconds:
// it is here to compare with.
//
// Its variance is the Gaussian's plus up to 1/12 for the rounding.
type GoogleGaussian struct {
	sigma    Sigma
	l0, lInf int64
}

// The library takes no sigma, but finds one by bisection for an (epsilon,
// delta) and the sensitivity lInf*sqrt(l0). For these two the search halves
// the sensitivity five times and stops there, because the tight sigma lies
// between 1 and 1-2^-10 times that: sigma = lInf*sqrt(l0)/32. They say nothing
// about the privacy of the release.
const (
	googleEpsilon = 512
	googleDelta   = 0.494
	googleHalved  = 5
)

// NewGoogleGaussian returns a sampler of at least the given sigma; its
// variance is rounded up to a multiple of 2^-10, or by a relative 2^-58.
func NewGoogleGaussian(sigma Sigma) (*GoogleGaussian, error) {
	if err := sigma.check(); err != nil {
		return nil, err
	}
	// l0 = ceil((32 sigma / lInf)^2), for the least power of two lInf that
	// makes it fit.
	l0 := new(big.Int).SetUint64(uint64(sigma))
	l0.Mul(l0, l0)
	unit := new(big.Int).Lsh(big.NewInt(1), 2*(sigmaFractionBits-googleHalved))
	lInf := int64(1)
	for new(big.Int).Quo(l0, unit).BitLen() > 60 {
		unit.Lsh(unit, 2)
		lInf *= 2
	}
	l0.Add(l0, unit).Sub(l0, big.NewInt(1)).Quo(l0, unit)

	g := &GoogleGaussian{sigma: sigma, l0: l0.Int64(), lInf: lInf}
	want := float64(g.lInf) * math.Sqrt(float64(g.l0)) / (1 << googleHalved)
	if got := googlenoise.SigmaForGaussian(g.l0, float64(g.lInf), googleEpsilon, googleDelta); got != want {
		return nil, fmt.Errorf("noise: the library's calibration has changed: sigma %g for %g", got, want)
	}
	return g, nil
}

// Sigma returns the standard deviation asked for.
func (g *GoogleGaussian) Sigma() Sigma { return g.sigma }

// Add adds an independent draw to every coordinate of x.
func (g *GoogleGaussian) Add(x []int64) {
	source := googlenoise.Gaussian()
	for i := range x {
		noised, err := source.AddNoiseInt64(x[i], g.l0, g.lInf, googleEpsilon, googleDelta)
		if err != nil {
			panic(err) // refuses only parameters, which the constructor has tried
		}
		x[i] = noised
	}
}
