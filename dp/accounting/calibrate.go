package accounting

import (
	"fmt"
	"math"
)

// CalibrateGaussian returns the least noise multiplier at which rounds equal
// Gaussian releases are (epsilon, delta)-DP together, rounded up: sqrt(rounds) /
// mu. It is exact. Under an adjacency of another sensitivity factor, multiply it
// by the factor. Where a [Filter] enforces the budget, [NanoRho.NoiseMultiplier]
// heeds that charges round up.
func CalibrateGaussian(epsilon, delta float64, rounds int) (noiseMultiplier float64, err error) {
	if err := checkCount("number of rounds", rounds); err != nil {
		return 0, err
	}
	mu, err := GaussianMu(epsilon, delta)
	if err != nil {
		return 0, err
	}
	z := math.Sqrt(float64(rounds)) / mu * (1 + 2*slack)
	if math.IsInf(z, 1) {
		return 0, fmt.Errorf("accounting: noise multiplier: %w", ErrOverflow)
	}
	return z, nil
}

// CalibrateSampled is CalibrateGaussian for cohorts into which every user comes
// independently, and secretly, with probability rate: the least noise
// multiplier, to five digits and rounded up, of the PLD accountant.
func CalibrateSampled(epsilon, delta float64, rounds int, rate float64) (noiseMultiplier float64, err error) {
	if err := checkRate(rate); err != nil {
		return 0, err
	}
	if rate == 0 {
		return 0, &ParameterError{"sampling rate", rate, "above 0 to calibrate noise"}
	}
	// Sampling only amplifies, so that the noise without it is enough.
	hi, err := CalibrateGaussian(epsilon, delta, rounds)
	if err != nil || rate == 1 {
		return hi, err
	}
	// excess is ln(delta spent / delta), which falls with ln z.
	excess := func(u float64) (float64, error) {
		pld, err := NewPLD(Repeated{PoissonSampled{rate, Gaussian{math.Exp(u)}}, rounds})
		if err != nil {
			return 0, err
		}
		spent, err := pld.Delta(epsilon)
		return math.Max(-50, math.Log(spent/delta)), err
	}
	right := math.Log(hi)
	atRight, err := excess(right)
	if err != nil {
		return 0, err
	}
	left, atLeft := right, atRight
	for atLeft <= 0 {
		right, atRight = left, atLeft
		left -= 0.5
		if atLeft, err = excess(left); err != nil {
			return 0, err
		}
	}
	// The Illinois method: false position, halving the value at an end that
	// stays twice.
	const tolerance = 1e-5
	for side := 0; right-left > tolerance; {
		u := left + (right-left)*atLeft/(atLeft-atRight)
		u = math.Min(math.Max(u, left+tolerance/2), right-tolerance/2)
		at, err := excess(u)
		if err != nil {
			return 0, err
		}
		if at > 0 {
			if left, atLeft = u, at; side > 0 {
				atRight /= 2
			}
			side = 1
		} else {
			if right, atRight = u, at; side < 0 {
				atLeft /= 2
			}
			side = -1
		}
	}
	return math.Exp(right), nil
}
