package accounting

import (
	"fmt"
	"math"
	"strings"
)

// Event describes a release, or a sequence of them, as far as its privacy
// cost depends on it. Events are data; the accountants give them a price. An
// accountant refuses an Event that it does not know, also of a type from
// outside this package, with an [UnsupportedError].
type Event interface{ String() string }

// Gaussian is a vector released with Gaussian noise of a standard deviation
// of NoiseMultiplier times the L2 sensitivity. A discrete Gaussian at a fine
// lattice is priced alike, see [DiscreteGaussian].
type Gaussian struct{ NoiseMultiplier float64 }

// DiscreteGaussian is an integer vector released with independent discrete
// Gaussian noise N_Z(0, Sigma^2) in every coordinate (Canonne, Kamath, Steinke
// 2020). Sigma and the L2 Sensitivity are in lattice units.
//
// Its zCDP, and so its RDP, is exactly that of the continuous noise of the
// same Sigma: rho = Sensitivity^2 / (2 Sigma^2) (their Theorem 14). GDP and PLD
// price it as a continuous Gaussian of variance Sigma^2 - tau^2, tau = 2:
//
// Let v be the integer vector to protect. Draw Y ~ N(v, Sigma^2 - tau^2), then
// round at random to X ~ N_Z(Y, tau^2). X is Y post-processed, hence as private
// as Y. By Poisson summation sum_n exp(-(n-y)^2 / 2 tau^2) lies for every y
// within a factor 1 ± e of tau sqrt(2 pi), e = 2 sum_{k>=1} exp(-2 pi^2 tau^2
// k^2) < 2e-34, and the convolution of the two Gaussians is N(v, Sigma^2). So
// each coordinate of X has the law N_Z(v, Sigma^2), point by point up to a
// factor within (1+e)/(1-e) (the argument of Peikert 2010, Theorem 3.1). Over D
// coordinates of all rounds that moves epsilon by at most 2 D ln((1+e)/(1-e))
// and delta by as large a factor, less than 1e-21 at D = 10^12: below the last
// digit of a float64, and so left out.
type DiscreteGaussian struct{ Sigma, Sensitivity float64 }

// DiscreteGaussianScalar is one integer released with discrete Gaussian noise.
// A Truncation above 0 means that the noise is conditioned on |noise| <=
// Truncation: then some outputs give a user away for certain, and only a PLD can
// account for it.
type DiscreteGaussianScalar struct {
	Sigma       float64
	Sensitivity int
	Truncation  int
}

// PoissonSampled is an event on a cohort into which every user came
// independently with probability Rate, secretly: whoever knows who took part
// gets no amplification from it. Only a [Gaussian] can be accounted inside.
type PoissonSampled struct {
	Rate  float64
	Event Event
}

// Repeated is an event that happens Count times, on fresh randomness.
type Repeated struct {
	Event Event
	Count int
}

// Composed are events that happen one after another, each chosen, perhaps,
// with the results of those before in view.
type Composed []Event

func (e Gaussian) String() string { return fmt.Sprintf("Gaussian(z=%v)", e.NoiseMultiplier) }

func (e DiscreteGaussian) String() string {
	return fmt.Sprintf("DiscreteGaussian(sigma=%v, sensitivity=%v)", e.Sigma, e.Sensitivity)
}

func (e DiscreteGaussianScalar) String() string {
	return fmt.Sprintf("DiscreteGaussianScalar(sigma=%v, sensitivity=%d, truncation=%d)", e.Sigma, e.Sensitivity, e.Truncation)
}

func (e PoissonSampled) String() string {
	return fmt.Sprintf("PoissonSampled(q=%v, %v)", e.Rate, e.Event)
}

func (e Repeated) String() string { return fmt.Sprintf("%d x %v", e.Count, e.Event) }

func (e Composed) String() string {
	parts := make([]string, len(e))
	for i, part := range e {
		parts[i] = fmt.Sprint(part)
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

// Scale returns e as it is under an adjacency that multiplies every
// sensitivity by factor: 1 for zero-out, 2 for replace-one. Poisson sampling
// scales by 1 only: its amplification is proved for a user's presence against
// absence.
func Scale(e Event, factor float64) (Event, error) {
	if err := checkPositive("sensitivity factor", factor); err != nil {
		return nil, err
	}
	switch e := e.(type) {
	case Gaussian:
		return Gaussian{e.NoiseMultiplier / factor}, nil
	case DiscreteGaussian:
		return DiscreteGaussian{e.Sigma, e.Sensitivity * factor}, nil
	case DiscreteGaussianScalar:
		s := factor * float64(e.Sensitivity)
		if s != math.Floor(s) || s >= math.MaxInt32 {
			return nil, &UnsupportedError{"Scale", e, "the scaled sensitivity is not a whole number"}
		}
		e.Sensitivity = int(s)
		return e, nil
	case PoissonSampled:
		if factor == 1 {
			return e, nil
		}
		return nil, &UnsupportedError{"Scale", e, "no bound for sampling under another adjacency"}
	case Repeated:
		inner, err := Scale(e.Event, factor)
		return Repeated{inner, e.Count}, err
	case Composed:
		scaled := make(Composed, len(e))
		for i, part := range e {
			var err error
			if scaled[i], err = Scale(part, factor); err != nil {
				return nil, err
			}
		}
		return scaled, nil
	}
	return nil, unknown("Scale", e)
}

// visit calls price for every elementary event of e, with its number of
// repetitions, after checking the parameters of those it knows.
func visit(e Event, times uint64, price func(e Event, times uint64) error) error {
	switch e := e.(type) {
	case Gaussian:
		if err := checkPositive("noise multiplier", e.NoiseMultiplier); err != nil {
			return err
		}
	case DiscreteGaussian:
		if err := checkPositive("sigma", e.Sigma); err != nil {
			return err
		}
		if err := checkPositive("sensitivity", e.Sensitivity); err != nil {
			return err
		}
	case DiscreteGaussianScalar:
		if err := checkPositive("sigma", e.Sigma); err != nil {
			return err
		}
		if err := checkCount("sensitivity", e.Sensitivity); err != nil {
			return err
		}
		if e.Truncation < 0 {
			return &ParameterError{"truncation", float64(e.Truncation), "at least 0"}
		}
	case PoissonSampled:
		if err := checkRate(e.Rate); err != nil {
			return err
		}
		if g, ok := e.Event.(Gaussian); ok {
			if err := checkPositive("noise multiplier", g.NoiseMultiplier); err != nil {
				return err
			}
		}
	case Repeated:
		if err := checkCount("number of repetitions", e.Count); err != nil {
			return err
		}
		n, err := mul(times, uint64(e.Count))
		if err != nil {
			return err
		}
		return visit(e.Event, n, price)
	case Composed:
		for _, part := range e {
			if err := visit(part, times, price); err != nil {
				return err
			}
		}
		return nil
	}
	return price(e, times)
}

// untruncated returns e, a scalar as the vector of one coordinate that it is,
// and refuses noise that a truncation keeps from having finite divergences.
func untruncated(accountant string, e Event) (Event, error) {
	s, ok := e.(DiscreteGaussianScalar)
	if !ok {
		return e, nil
	}
	if s.Truncation > 0 {
		return nil, &UnsupportedError{accountant, e, "truncated noise has infinite losses"}
	}
	return DiscreteGaussian{s.Sigma, float64(s.Sensitivity)}, nil
}

func unknown(accountant string, e Event) error {
	return &UnsupportedError{accountant, e, "unknown event"}
}
