package accounting

import "math"

// RDPCurve bounds the Renyi divergences between the outputs on neighbouring
// inputs (Mironov 2017): the one of order Orders[i] by Divergence[i].
type RDPCurve struct {
	Orders     []float64
	Divergence []float64
}

// defaultOrders are spaced by 10 % in alpha - 1, which loses less than a
// percent against the best order, and whole from 11 on, where sums are quicker
// than integrals.
var defaultOrders = func() (orders []float64) {
	for u := 0.01; u < 2000; u *= 1.1 {
		alpha := 1 + u
		if alpha > 11 {
			alpha = math.Round(alpha)
		}
		orders = append(orders, alpha)
	}
	return orders
}()

// maxOrder bounds the time of the sum for one order.
const maxOrder = 1e6

// RDP returns the Renyi divergences of e at the orders, each above 1 and at
// most a million; without orders, at a range that serves every epsilon from 0.01 on. Composition adds
// them (Mironov 2017, Proposition 1).
func RDP(e Event, orders ...float64) (RDPCurve, error) {
	if len(orders) == 0 {
		orders = defaultOrders
	}
	for _, alpha := range orders {
		if !(alpha > 1 && alpha <= maxOrder) {
			return RDPCurve{}, &ParameterError{"order", alpha, "above 1 and at most a million"}
		}
	}
	c := RDPCurve{Orders: orders, Divergence: make([]float64, len(orders))}
	err := visit(e, 1, func(e Event, times uint64) error {
		rate, z, err := sampledNoise("RDP", e)
		if err != nil {
			return err
		}
		for i, alpha := range orders {
			c.Divergence[i] += float64(times) * sampledGaussianRDP(alpha, rate, z) * (1 + slack)
		}
		return nil
	})
	if err != nil {
		return RDPCurve{}, err
	}
	return c, nil
}

// mostNoise is the largest noise multiplier that is credited in full.
const mostNoise = 1e100

// sampledNoise reads the sampling rate and the noise multiplier of e as far as
// its Renyi divergences depend on them.
func sampledNoise(accountant string, e Event) (rate, z float64, err error) {
	if e, err = untruncated(accountant, e); err != nil {
		return 0, 0, err
	}
	switch e := e.(type) {
	case Gaussian:
		return 1, e.NoiseMultiplier, nil
	case DiscreteGaussian:
		return 1, e.Sigma / e.Sensitivity, nil
	case PoissonSampled:
		if g, ok := e.Event.(Gaussian); ok {
			return e.Rate, g.NoiseMultiplier, nil
		}
		return 0, 0, &UnsupportedError{accountant, e, "only a Gaussian can be accounted under sampling"}
	}
	return 0, 0, unknown(accountant, e)
}

// Epsilon returns the epsilon that the curve implies at its best order, 0 and
// above, and +Inf if no order bounds it.
func (c RDPCurve) Epsilon(delta float64) (epsilon, order float64, err error) {
	if err := checkDelta(delta); err != nil {
		return 0, 0, err
	}
	epsilon = math.Inf(1)
	for i, alpha := range c.Orders {
		if v := renyiEpsilon(alpha, c.Divergence[i], delta); v < epsilon {
			epsilon, order = v, alpha
		}
	}
	return epsilon * (1 + slack), order, nil
}

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

// sampledGaussianRDP returns the Renyi divergence of order alpha of a Gaussian
// release with noise multiplier z and Poisson sampling rate q (Mironov, Talwar,
// Zhang 2019, Theorems 4 and 5: removing a user is the worse direction),
//
//	ln(A) / (alpha-1),  A = E[(1 + q (L-1))^alpha],
//
// with L = exp((2x-1)/(2 z^2)) the likelihood ratio, and x ~ N(0, z^2).
func sampledGaussianRDP(alpha, q, z float64) float64 {
	if q == 0 {
		return 0
	}
	if q == 1 {
		return alpha / 2 / z / z
	}
	// The divergence grows with the order and falls with the noise. Where
	// floating point would not bear it, take the next that it does.
	alpha, z = math.Max(alpha, 1.01), math.Min(z, mostNoise)
	switch {
	case alpha == math.Floor(alpha):
		return logMoment(alpha, q, z) / (alpha - 1)
	case z < 0.2 || alpha > 20:
		// ln A is convex in alpha, and 0 at 1: its chord lies above it. This
		// spares the integral its longest grids.
		below, f := math.Modf(alpha)
		return ((1-f)*logMoment(below, q, z) + f*logMoment(below+1, q, z)) / (alpha - 1)
	}
	return logFractionalMoment(alpha, q, z) / (alpha - 1)
}

// logMoment is ln A at a whole alpha, by the binomial sum of Mironov, Talwar,
// Zhang 2019, Section 3.3. Its terms without the likelihood ratio add up to 1,
// so A - 1 is a sum of positive terms, exact also where q is tiny.
func logMoment(alpha, q, z float64) float64 {
	sum := math.Inf(-1)
	logq, log1q := math.Log(q), math.Log1p(-q)
	logChoose := math.Log(alpha)
	for k := 2.0; k <= alpha; k++ {
		logChoose += math.Log((alpha - k + 1) / k)
		sum = logAdd(sum, logChoose+k*logq+(alpha-k)*log1q+logExpm1(k*(k-1)/2/z/z))
	}
	return logAdd(0, sum)
}

// logFractionalMoment is ln A at any alpha, by the trapezoidal rule: the
// integrand is analytic within pi z^2 of the real line, so the rule's error
// vanishes exponentially, exp(-8 pi^2) at this step. E[L] = 1, so again
//
//	A - 1 = E[(1+u)^alpha - 1 - alpha u],  u = q (L-1),
//
// has an integrand that is nowhere negative.
func logFractionalMoment(alpha, q, z float64) float64 {
	const tails = 10 // standard deviations
	step := math.Min(z, z*z) / 4
	sum := math.Inf(-1)
	for x := -tails * z; x <= alpha+tails*z; x += step {
		u := q * math.Expm1((2*x-1)/2/z/z)
		log1u := math.Log1p(u)
		if math.IsInf(u, 1) {
			log1u = math.Log(q) + (2*x-1)/2/z/z
		}
		sum = logAdd(sum, logDensity(x/z)+logExcess(alpha, u, log1u))
	}
	return logAdd(0, sum+math.Log(step/z))
}

// logExcess is ln((1+u)^alpha - 1 - alpha u), for alpha > 1, u > -1.
func logExcess(alpha, u, log1u float64) float64 {
	switch {
	case math.Abs(u) < 1e-4:
		series := 1 + u*(alpha-2)/3*(1+u*(alpha-3)/4*(1+u*(alpha-4)/5))
		return math.Log(alpha*(alpha-1)/2*u*u) + math.Log(series)
	case alpha*log1u < 500:
		return math.Log(math.Expm1(alpha*log1u) - alpha*u)
	}
	return alpha * log1u
}

// logAdd is ln(e^a + e^b).
func logAdd(a, b float64) float64 {
	hi, lo := math.Max(a, b), math.Min(a, b)
	if math.IsInf(hi, 0) {
		return hi
	}
	return hi + math.Log1p(math.Exp(lo-hi))
}

// logExpm1 is ln(e^x - 1), for x > 0.
func logExpm1(x float64) float64 {
	if x < 1 {
		return math.Log(math.Expm1(x))
	}
	return x + math.Log1p(-math.Exp(-x))
}

// minimum returns the least value that golden-section search finds of f on
// [lo, hi].
func minimum(f func(float64) float64, lo, hi float64) float64 {
	const ratio = 1 / math.Phi
	x1, x2 := hi-ratio*(hi-lo), lo+ratio*(hi-lo)
	f1, f2 := f(x1), f(x2)
	for range bisections {
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
