package accounting

import "math"

// CalibrateGaussian returns the least noise multiplier at which rounds equal
// Gaussian releases are (epsilon, delta)-DP together, rounded up: sqrt(rounds) /
// mu. It is exact. Under an adjacency of another sensitivity factor, multiply it
// by the factor.
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
		return 0, ErrOverflow
	}
	return z, nil
}
