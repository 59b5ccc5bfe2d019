package accounting

import (
	"fmt"
	"math"
)

// slack is the relative amount by which computed costs are rounded up. It
// exceeds the floating-point error of the closed forms below.
const slack = 1e-12

// bisections narrow an interval down to the last digit of a float64.
const bisections = 60

// GDP returns the mu for which e is mu-GDP (Dong, Roth, Su 2022): sqrt(sum
// 1/z^2) over its Gaussian releases (their Corollary 3.3), which is exact: no
// smaller mu, and no other accountant, says more about them. It holds where
// each release is chosen in view of those before, as long as the z themselves
// are fixed in advance; under chosen z it is a [Filter] that holds the sum
// (Smith, Thakurta 2022). It refuses sampling, which is not GDP.
func GDP(e Event) (mu float64, err error) {
	var sum float64
	err = visit(e, 1, func(e Event, times uint64) error {
		z, err := gaussianNoise("GDP", e)
		sum += float64(times) / z / z
		return err
	})
	if err != nil {
		return 0, err
	}
	if math.IsInf(sum, 1) {
		return 0, fmt.Errorf("accounting: GDP: %w", ErrOverflow)
	}
	return math.Sqrt(sum) * (1 + slack), nil
}

// gaussianNoise returns the noise multiplier of a Gaussian release that is at
// most as private as e.
func gaussianNoise(accountant string, e Event) (z float64, err error) {
	const tau = 2 // see DiscreteGaussian
	if e, err = untruncated(accountant, e); err != nil {
		return 0, err
	}
	switch e := e.(type) {
	case Gaussian:
		return e.NoiseMultiplier, nil
	case DiscreteGaussian:
		if e.Sigma <= tau {
			return 0, &UnsupportedError{accountant, e, "the lattice is too coarse: sigma must exceed 2"}
		}
		return math.Sqrt((e.Sigma-tau)*(e.Sigma+tau)) / e.Sensitivity, nil
	case PoissonSampled:
		return 0, &UnsupportedError{accountant, e, "it has no account of sampling"}
	}
	return 0, unknown(accountant, e)
}

// GaussianDelta returns the least delta for which mu-GDP implies (epsilon,
// delta)-DP:
//
//	delta = Phi(-epsilon/mu + mu/2) - e^epsilon Phi(-epsilon/mu - mu/2)
//
// (Balle, Wang 2018, Theorem 8; Dong, Roth, Su 2022, Corollary 2.13). For
// parameters out of range (mu < 0, epsilon < 0, NaN) it returns 1, the delta of
// no privacy at all.
func GaussianDelta(mu, epsilon float64) float64 {
	if !(mu >= 0) || !(epsilon >= 0) || math.IsInf(mu, 1) {
		return 1
	}
	return math.Min(1, math.Exp(logGaussianDelta(mu, epsilon))*(1+slack))
}

// logGaussianDelta is ln of GaussianDelta. With a = epsilon/mu - mu/2, b =
// epsilon/mu + mu/2, phi and Q the normal density and upper tail, and R = Q/phi
// the Mills ratio, e^epsilon phi(b) = phi(a) gives
//
//	delta = Q(a) - phi(a) R(b) = phi(a) (R(a) - R(b)),
//
// free of overflow, and in logarithms free of underflow. Where a and b are too
// close for that difference, it is the integral of -R' over [a, b], by two
// Gauss-Legendre nodes.
func logGaussianDelta(mu, epsilon float64) float64 {
	if mu == 0 || math.IsInf(epsilon, 1) {
		return math.Inf(-1)
	}
	a, b := epsilon/mu-mu/2, epsilon/mu+mu/2
	switch {
	case mu < 1e-2:
		node := mu / (2 * math.Sqrt(3))
		_, left := mills(epsilon/mu - node)
		_, right := mills(epsilon/mu + node)
		return logDensity(a) + math.Log(mu/2) + math.Log(left+right)
	case a < 0:
		rb, _ := mills(b)
		return math.Log(upperTail(a) - math.Exp(logDensity(a))*rb)
	default:
		ra, _ := mills(a)
		rb, _ := mills(b)
		return logDensity(a) + math.Log(math.Max(0, ra-rb))
	}
}

// GaussianEpsilon returns the least epsilon for which mu-GDP implies (epsilon,
// delta)-DP, rounded up. It is 0 at mu = 0, and +Inf for parameters out of
// range (mu < 0, delta outside (0, 1), NaN): what cannot be bounded is not
// reported as small.
func GaussianEpsilon(mu, delta float64) float64 {
	if !(mu >= 0) || checkDelta(delta) != nil || math.IsInf(mu, 1) {
		return math.Inf(1)
	}
	target := math.Log(delta)
	if logGaussianDelta(mu, 0) <= target {
		return 0
	}
	// delta <= Q(a) <= exp(-a^2/2) bounds the root from above.
	lo, hi := 0.0, mu*(mu/2+math.Sqrt(-2*target))
	for range bisections {
		if mid := lo + (hi-lo)/2; logGaussianDelta(mu, mid) > target {
			lo = mid
		} else {
			hi = mid
		}
	}
	return hi * (1 + slack)
}

// GaussianMu returns the largest mu for which mu-GDP implies (epsilon,
// delta)-DP, rounded down.
func GaussianMu(epsilon, delta float64) (float64, error) {
	if err := checkEpsilon(epsilon); err != nil {
		return 0, err
	}
	if err := checkDelta(delta); err != nil {
		return 0, err
	}
	target := math.Log(delta)
	hi := 1.0
	for logGaussianDelta(hi, epsilon) <= target {
		hi *= 2
	}
	lo := hi / 2
	for logGaussianDelta(lo, epsilon) > target {
		lo /= 2
	}
	for range bisections {
		if mid := lo + (hi-lo)/2; logGaussianDelta(mid, epsilon) > target {
			hi = mid
		} else {
			lo = mid
		}
	}
	return lo * (1 - slack), nil
}

// logDensity is ln phi(x).
func logDensity(x float64) float64 { return -x*x/2 - math.Log(2*math.Pi)/2 }

// upperTail is Q(x) = Pr[N(0, 1) > x].
func upperTail(x float64) float64 { return math.Erfc(x/math.Sqrt2) / 2 }

// mills is the Mills ratio R(x) = Q(x)/phi(x) for x > -6, and its descent
// -R'(x) = 1 - x R(x): by definition, and far out by Laplace's continued
// fraction R = 1/(x + 1/(x + 2/(x + 3/(x + ...)))).
func mills(x float64) (ratio, descent float64) {
	if x < 6 {
		ratio = upperTail(x) * math.Exp(-logDensity(x))
		return ratio, 1 - x*ratio
	}
	var f float64
	for k := 50.0; k >= 1; k-- {
		f = k / (x + f)
	}
	return 1 / (x + f), f / (x + f)
}
