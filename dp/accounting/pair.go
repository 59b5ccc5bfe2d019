package accounting

import "math"

// pair is a pair of output distributions on neighbouring inputs, P and Q.
type pair interface {
	// reversed is the pair (Q, P).
	reversed() pair
	// variance of the loss ln(P/Q) under P, roughly.
	variance() float64
	// support holds the losses but for a negligible tail.
	support() (lo, hi float64)
	// discretise puts the loss under P on the grid of a step.
	discretise(step float64) *distribution
}

// mixture is the pair of a Poisson-sampled Gaussian release,
//
//	P = (1-rate) N(0, sigma^2) + rate N(1, sigma^2),  Q = N(0, sigma^2),
//
// which dominates removal of a user; flipped, which dominates addition
// (Zhu, Dong, Wang 2022, Theorem 11). At rate 1 it is the Gaussian release.
type mixture struct {
	rate, sigma float64
	flipped     bool
}

func (m mixture) reversed() pair {
	if m.rate < 1 { // a Gaussian release is symmetric
		m.flipped = !m.flipped
	}
	return m
}

// lossAt is ln(P/Q) = ln(1-rate + rate e^t) at x before a flip: increasing.
func (m mixture) lossAt(x float64) float64 {
	t := (x - 0.5) / m.sigma / m.sigma
	switch {
	case m.rate == 1:
		return t
	case t > 500:
		return math.Log(m.rate) + t
	case m.rate > 0.5:
		return math.Log(1 - m.rate + m.rate*math.Exp(t))
	}
	return math.Log1p(m.rate * math.Expm1(t))
}

// outputAt inverts lossAt; below its range it is -Inf.
func (m mixture) outputAt(loss float64) float64 {
	var t float64
	switch {
	case m.rate == 1:
		t = loss
	case loss > 500:
		t = loss - math.Log(m.rate)
	case loss <= math.Log1p(-m.rate):
		return math.Inf(-1)
	case loss < -0.5:
		t = math.Log((math.Exp(loss) - (1 - m.rate)) / m.rate)
	default:
		t = math.Log1p(math.Max(-1, math.Expm1(loss)/m.rate))
	}
	return 0.5 + m.sigma*m.sigma*t
}

func (m mixture) outputs() (lo, hi float64) {
	return -tailDeviations * m.sigma, 1 + tailDeviations*m.sigma
}

func (m mixture) support() (lo, hi float64) {
	x, y := m.outputs()
	if lo, hi = m.lossAt(x), m.lossAt(y); m.flipped {
		return -hi, -lo
	}
	return lo, hi
}

func (m mixture) variance() float64 {
	if m.rate == 1 {
		return 1 / m.sigma / m.sigma
	}
	lo, hi := m.outputs()
	var total, mean, square float64
	for x := lo; x <= hi; x += (hi - lo) / 1000 {
		p, q := m.between(x, x+(hi-lo)/1000)
		if m.flipped {
			p = q
		}
		l := m.lossAt(x)
		total, mean, square = total+p, mean+p*l, square+p*l*l
	}
	mean /= total
	return square/total - mean*mean
}

// between returns the probabilities of an output from a to b, before a flip.
func (m mixture) between(a, b float64) (p, q float64) {
	q = normal(a/m.sigma, b/m.sigma)
	return (1-m.rate)*q + m.rate*normal((a-1)/m.sigma, (b-1)/m.sigma), q
}

func (m mixture) discretise(step float64) *distribution {
	lo, hi := m.support()
	first, last := int(math.Floor(lo/step)), int(math.Ceil(hi/step))
	d := &distribution{step: step, first: first, mass: make([]float64, last-first+1)}
	// P and Q as they are before a flip, and outputs that go with the loss, or
	// against it.
	at := func(i int) float64 {
		if m.flipped {
			i = -i
		}
		return m.outputAt(float64(i) * step)
	}
	for i, x := first, at(first); i < last; i++ {
		y := at(i + 1)
		if m.flipped {
			q, p := m.between(y, x)
			d.place(i, p, q)
		} else {
			p, q := m.between(x, y)
			d.place(i, p, q)
		}
		x = y
	}
	inf := math.Inf(1)
	if m.flipped {
		_, d.infinite = m.between(-inf, at(last))
		_, p := m.between(at(first), inf)
		d.mass[0] += p
	} else {
		d.infinite, _ = m.between(at(last), inf)
		p, _ := m.between(-inf, at(first))
		d.mass[0] += p
	}
	return d
}

// normal is Pr[a < N(0, 1) <= b].
func normal(a, b float64) float64 {
	if a > 0 {
		return upperTail(a) - upperTail(b)
	}
	return upperTail(-b) - upperTail(-a)
}

// shift is the pair of a discrete Gaussian and itself shifted.
type shift struct{ DiscreteGaussianScalar }

func (s shift) reversed() pair { return s }

func (s shift) variance() float64 {
	v := float64(s.Sensitivity) / s.Sigma
	return v * v
}

// reach is the largest output that is followed.
func (s shift) reach() int {
	if s.Truncation > 0 {
		return s.Truncation
	}
	return int(math.Ceil(tailDeviations*s.Sigma)) + s.Sensitivity
}

// lossAt is ln(P/Q) at an output x: decreasing.
func (s shift) lossAt(x int) float64 {
	v := float64(s.Sensitivity)
	return v * (v - 2*float64(x)) / (2 * s.Sigma * s.Sigma)
}

func (s shift) support() (lo, hi float64) {
	return s.lossAt(s.reach()), s.lossAt(s.Sensitivity - s.reach())
}

func (s shift) discretise(step float64) *distribution {
	lo, hi := s.support()
	first, last := int(math.Floor(lo/step)), int(math.Ceil(hi/step))
	d := &distribution{step: step, first: first, mass: make([]float64, max(0, last-first)+2)}
	weight := func(x int) float64 {
		y := float64(x) / s.Sigma
		return math.Exp(-y * y / 2)
	}
	if s.Truncation == 0 {
		d.infinite = tailMass
	}
	reach := s.reach()
	total := 0.0
	for x := -reach; x <= reach; x++ {
		total += weight(x)
	}
	for x := -reach; x <= reach; x++ {
		p := weight(x) / total
		if x-s.Sensitivity < -reach { // not in the support of Q
			d.infinite += p
			continue
		}
		d.place(int(math.Floor(s.lossAt(x)/step)), p, weight(x-s.Sensitivity)/total)
	}
	if s.Sensitivity > 2*reach {
		d.infinite = 1 // the supports are disjoint
	}
	return d
}
