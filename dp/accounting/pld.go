package accounting

import (
	"fmt"
	"math"
	"math/bits"

	"gonum.org/v1/gonum/dsp/fourier"
)

// PLD is the distribution of the privacy loss ln(P/Q) of a sequence of
// releases, for each direction of adjacency: P with the user's contribution
// and Q without it, and the reverse (Meiser, Mohammadi 2018; Koskela, Jälkö,
// Honkela 2020; Dong, Roth, Su 2022).
//
// Losses lie on a grid, on which every event has its mass placed by connecting
// the dots (Doroshenko, Ghazi, Kamath, Kumar, Manurangsi 2022); sums of losses
// come by FFT. Whatever is cut off counts as an infinite loss. Each of these
// steps only adds to delta; for the FFT's rounding there is an allowance.
type PLD struct {
	remove, add *distribution // of ln(P/Q) under P, and of ln(Q/P) under Q
}

const (
	// tailMass is what each truncation may cut off, at each end.
	tailMass = 1e-16
	// roundoff is the allowance, per release, for the rounding of the FFT and of
	// the powers of its values, each at most 1 in magnitude. It is no proof:
	// measured on 10^2 to 10^7 Gaussian releases it is 1.5 to 8 times the error.
	// So a thousand releases resolve delta down to about 1e-12.
	roundoff = 0x1p-52
	// tailDeviations is how far a normal distribution is followed: the tail
	// beyond is below 2e-19.
	tailDeviations = 9
	// minStep keeps place clear of cancellation.
	minStep = 1e-8
	// maxCells bounds memory and time, at the expense of the grid's fineness.
	maxCells = 1 << 20
)

// NewPLD returns the PLD of e. The grid's step is chosen so that
// discretisation adds less than 1e-4 of the variance of the loss, unless that
// takes more than a million cells.
func NewPLD(e Event) (*PLD, error) {
	counts := make(map[pair]uint64)
	var order []pair // of first appearance, to be repeatable
	err := visit(e, 1, func(e Event, times uint64) error {
		p, err := worstPair(e)
		if err != nil || p == nil {
			return err
		}
		if counts[p] == 0 {
			order = append(order, p)
		}
		counts[p], err = add(counts[p], times)
		return err
	})
	if err != nil {
		return nil, err
	}
	remove := make([]part, len(order))
	reversed := make([]part, len(order))
	symmetric := true
	for i, p := range order {
		remove[i] = part{p, counts[p]}
		reversed[i] = part{p.reversed(), counts[p]}
		symmetric = symmetric && reversed[i] == remove[i]
	}
	var pld PLD
	if pld.remove, err = compose(remove); err != nil {
		return nil, err
	}
	if pld.add = pld.remove; symmetric {
		return &pld, nil
	}
	if pld.add, err = compose(reversed); err != nil {
		return nil, err
	}
	return &pld, nil
}

// worstPair returns the pair of output distributions whose loss dominates that
// of every neighbouring pair under e; nil if e has no loss.
func worstPair(e Event) (pair, error) {
	switch e := e.(type) {
	case PoissonSampled:
		rate, z, err := sampledNoise("PLD", e)
		if err != nil || rate == 0 {
			return nil, err
		}
		return mixture{rate: rate, sigma: math.Min(z, mostNoise)}, nil
	case DiscreteGaussianScalar:
		if s := (shift{e}); s.reach() < maxCells {
			return s, nil
		}
	}
	z, err := gaussianNoise("PLD", e)
	return mixture{rate: 1, sigma: math.Min(z, mostNoise)}, err
}

// Delta returns the delta at an epsilon, in the worse direction.
func (p *PLD) Delta(epsilon float64) (float64, error) {
	if err := checkEpsilon(epsilon); err != nil {
		return 0, err
	}
	return math.Max(p.remove.delta(epsilon), p.add.delta(epsilon)), nil
}

// Epsilon returns the least epsilon at a delta, in the worse direction, and
// +Inf if the loss is infinite with a higher probability than delta.
func (p *PLD) Epsilon(delta float64) (float64, error) {
	if err := checkDelta(delta); err != nil {
		return 0, err
	}
	return math.Max(p.remove.epsilon(delta), p.add.epsilon(delta)), nil
}

// part is a release that happens count times.
type part struct {
	pair
	count uint64
}

// compose returns the distribution of the sum of the parts' losses.
func compose(parts []part) (*distribution, error) {
	if len(parts) == 0 {
		return &distribution{step: 1, mass: []float64{1}}, nil
	}
	var variance, count, largest float64
	for _, p := range parts {
		n := float64(p.count)
		lo, hi := p.support()
		variance += n * p.variance()
		largest += n * math.Max(math.Abs(lo), math.Abs(hi))
		count += n
	}
	// A step of h adds at most h^2/4 to the variance of each loss. For few
	// releases a finer grid costs nothing.
	step := math.Sqrt(variance/count) * math.Min(1./100, math.Sqrt(count)/200)
	step = math.Max(step, minStep)
	for _, p := range parts {
		lo, hi := p.support()
		step = math.Max(step, (hi-lo)/(maxCells-4))
	}
	for {
		// Beyond 1e15 steps cells have no exact index; a step beyond every sum
		// of losses says nothing.
		if !(largest/step < 1e15 && step <= 2*largest+minStep) {
			return nil, fmt.Errorf("accounting: privacy loss of up to %v on a grid: %w", largest, ErrOverflow)
		}
		discrete := make([]*distribution, len(parts))
		for i, p := range parts {
			discrete[i] = p.discretise(step)
			if discrete[i].infinite >= 1 {
				return discrete[i], nil // as is every sum with it
			}
		}
		if len(parts) == 1 && parts[0].count == 1 {
			return discrete[0], nil
		}
		lo, hi := window(parts, discrete)
		if cells := (hi - lo) / step; cells < maxCells {
			return convolve(parts, discrete, int(math.Floor(lo/step)), int(cells)+2), nil
		}
		step = math.Max(2*step, (hi-lo)/maxCells)
	}
}

// window returns the range outside of which the sum of the losses lies with
// probability at most tailMass on each side, by Chernoff's bound.
func window(parts []part, discrete []*distribution) (lo, hi float64) {
	var variance, least, most float64
	for i, d := range discrete {
		n := float64(parts[i].count)
		variance += n * parts[i].variance()
		least += n * float64(d.first) * d.step
		most += n * float64(d.first+len(d.mass)-1) * d.step
	}
	lo, hi = least, most
	budget := -math.Log(tailMass)
	for _, scale := range []float64{0.01, 0.03, 0.1, 0.3, 1, 2} {
		t := scale * math.Sqrt(2*budget/variance) // scale 1 is best for a normal sum
		var up, down float64
		for i, d := range discrete {
			n := float64(parts[i].count)
			up += n * d.logMGF(t)
			down += n * d.logMGF(-t)
		}
		hi = math.Min(hi, (up+budget)/t)
		lo = math.Max(lo, -(down+budget)/t)
	}
	return lo, hi
}

// convolve composes by FFT on a cycle of at least cells cells from first on.
// What the cycle wraps is at most tailMass from above, which is charged as
// infinite, and from below can only be mistaken for a larger loss.
func convolve(parts []part, discrete []*distribution, first, cells int) *distribution {
	n := 1 << bits.Len(uint(cells)) // at least 2
	fft := fourier.NewFFT(n)
	cycle := make([]float64, n)
	spectrum := make([]complex128, n/2+1)
	product := make([]complex128, n/2+1)
	var logFinite, count float64
	for i, d := range discrete {
		clear(cycle)
		for j, m := range d.mass {
			cycle[mod(d.first+j, n)] += m
		}
		fft.Coefficients(spectrum, cycle)
		for k, c := range spectrum {
			c = power(c, parts[i].count)
			if i > 0 {
				c *= product[k]
			}
			product[k] = c
		}
		logFinite += float64(parts[i].count) * math.Log1p(-d.infinite)
		count += float64(parts[i].count)
	}
	fft.Sequence(cycle, product)
	out := &distribution{step: discrete[0].step, first: first, mass: make([]float64, n)}
	for j := range out.mass {
		out.mass[j] = math.Max(0, cycle[mod(first+j, n)]/float64(n))
	}
	out.infinite = -math.Expm1(logFinite) + tailMass + count*roundoff
	return out
}

func mod(i, n int) int { return ((i % n) + n) % n }

// power is c^n by squaring.
func power(c complex128, n uint64) complex128 {
	p := complex(1, 0)
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			p *= c
		}
		c *= c
	}
	return p
}

// distribution is one of losses (first + i) step with probability mass[i], and
// of an infinite loss.
type distribution struct {
	step     float64
	first    int
	mass     []float64
	infinite float64
}

// place adds an event of probability p under P and q under Q, whose loss lies
// between the grid's points i and i+1, to the two of them: such that p and q
// are kept, which makes delta exact on the grid, and convex in e^epsilon
// in between (Doroshenko et al. 2022, Section 4).
func (d *distribution) place(i int, p, q float64) {
	upper := p
	if loss := float64(i) * d.step; loss < 700 {
		upper = (p - q*math.Exp(loss)) / -math.Expm1(-d.step)
		upper = math.Min(p, math.Max(0, upper))
	}
	d.mass[i-d.first] += p - upper
	d.mass[i-d.first+1] += upper
}

// logMGF is ln E[exp(t loss)] over the finite losses, or +Inf where that
// overflows. Taken about the mean, it cannot underflow.
func (d *distribution) logMGF(t float64) float64 {
	var total, mean, sum float64
	for i, m := range d.mass {
		total += m
		mean += m * float64(d.first+i) * d.step
	}
	mean /= total
	for i, m := range d.mass {
		if m > 0 {
			sum += m * math.Exp(t*(float64(d.first+i)*d.step-mean))
		}
	}
	return t*mean + math.Log(sum)
}

// delta is infinite + E[(1 - exp(epsilon - loss))^+] over the finite losses.
func (d *distribution) delta(epsilon float64) float64 {
	sum := d.infinite
	for i := len(d.mass) - 1; i >= 0; i-- {
		loss := float64(d.first+i) * d.step
		if loss <= epsilon {
			break
		}
		sum -= d.mass[i] * math.Expm1(epsilon-loss)
	}
	return math.Min(1, sum*(1+slack))
}

// epsilon inverts delta. Between the losses l' < l of neighbouring cells
//
//	delta(epsilon) = delta(l) + g (1 - exp(epsilon - l)),
//
// g being the sum of mass[j] exp(l - l_j) over the cells from l up.
func (d *distribution) epsilon(delta float64) float64 {
	at := d.infinite
	if at > delta {
		return math.Inf(1)
	}
	delta *= 1 - slack
	var g float64
	for i := len(d.mass) - 1; i >= 0; i-- {
		loss := float64(d.first+i) * d.step
		if loss <= 0 {
			return 0
		}
		g = g*math.Exp(-d.step) + d.mass[i]
		below := loss - d.step
		if i == 0 {
			below = 0
		}
		if next := at - g*math.Expm1(below-loss); next > delta {
			return math.Max(0, loss+math.Log1p(-math.Max(0, delta-at)/g)) * (1 + slack)
		} else {
			at = next
		}
	}
	return 0
}
