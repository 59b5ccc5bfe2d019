package accounting

import "math"

// renyiEpsilon returns the epsilon that a Renyi divergence of order alpha > 1
// implies (Canonne, Kamath, Steinke 2020, Proposition 12; Balle, Barthe,
// Gaboardi, Hsu, Sato 2020, Theorem 21), at least 0.
func renyiEpsilon(alpha, divergence, delta float64) float64 {
	// The total variation is at most sqrt(1 - exp(-divergence)) (Bretagnolle,
	// Huber 1979, with KL <= divergence): within delta, epsilon is 0.
	if -math.Expm1(-divergence) < delta*delta {
		return 0
	}
	return math.Max(0, divergence+math.Log1p(-1/alpha)-(math.Log(delta)+math.Log(alpha))/(alpha-1))
}

// minimum returns the least value that golden-section search finds of f on
// [lo, hi].
func minimum(f func(float64) float64, lo, hi float64) float64 {
	const ratio = 1 / math.Phi
	x1, x2 := hi-ratio*(hi-lo), lo+ratio*(hi-lo)
	f1, f2 := f(x1), f(x2)
	for range 60 {
		if f1 < f2 {
			hi, x2, f2 = x2, x1, f1
			x1 = hi - ratio*(hi-lo)
			f1 = f(x1)
		} else {
			lo, x1, f1 = x1, x2, f2
			x2 = lo + ratio*(hi-lo)
			f2 = f(x2)
		}
	}
	return math.Min(f1, f2)
}
