package accounting_test

import (
	"errors"
	"math"
	"testing"

	"github.com/undertone-fl/undertone/dp/accounting"
	"pgregory.net/rapid"
)

// stranger is an event of which no accountant has heard.
type stranger struct{}

func (stranger) String() string { return "Stranger" }

// accountants price an event, each in its own unit.
var accountants = map[string]func(accounting.Event) (float64, error){
	"GDP": func(e accounting.Event) (float64, error) { return accounting.GDP(e) },
	"zCDP": func(e accounting.Event) (float64, error) {
		rho, err := accounting.ZCDP(e)
		return rho.Rho(), err
	},
	"RDP": func(e accounting.Event) (float64, error) {
		curve, err := accounting.RDP(e, 1.000001, 1.5, 4, 40.5)
		if err != nil {
			return 0, err
		}
		epsilon, _, err := curve.Epsilon(1e-6)
		return epsilon, err
	},
	"PLD": func(e accounting.Event) (float64, error) {
		pld, err := accounting.NewPLD(e)
		if err != nil {
			return 0, err
		}
		return pld.Epsilon(1e-6)
	},
	"Scale": func(e accounting.Event) (float64, error) {
		_, err := accounting.Scale(e, 2)
		return 0, err
	},
}

func TestUnsupportedEvents(t *testing.T) {
	gaussian := accounting.Gaussian{NoiseMultiplier: 1}
	for _, c := range []struct {
		event    accounting.Event
		refusers []string
	}{
		{gaussian, nil},
		{accounting.Composed{gaussian, accounting.Repeated{Event: gaussian, Count: 3}}, nil},
		{stranger{}, []string{"GDP", "zCDP", "RDP", "PLD", "Scale"}},
		{nil, []string{"GDP", "zCDP", "RDP", "PLD", "Scale"}},
		{accounting.Composed{gaussian, stranger{}}, []string{"GDP", "zCDP", "RDP", "PLD", "Scale"}},
		{accounting.PoissonSampled{Rate: 0.1, Event: gaussian}, []string{"GDP", "zCDP", "Scale"}},
		{accounting.PoissonSampled{Rate: 0.1, Event: stranger{}}, []string{"GDP", "zCDP", "RDP", "PLD", "Scale"}},
		{accounting.PoissonSampled{Rate: 0.1, Event: accounting.Composed{gaussian, gaussian}},
			[]string{"GDP", "zCDP", "RDP", "PLD", "Scale"}},
		{accounting.DiscreteGaussian{Sigma: 100, Sensitivity: 10}, nil},
		{accounting.DiscreteGaussian{Sigma: 1.5, Sensitivity: 1}, []string{"GDP", "PLD"}},
		{accounting.DiscreteGaussianScalar{Sigma: 100, Sensitivity: 10}, nil},
		{accounting.DiscreteGaussianScalar{Sigma: 1.5, Sensitivity: 1}, []string{"GDP"}},
		{accounting.DiscreteGaussianScalar{Sigma: 5, Sensitivity: 1, Truncation: 60}, []string{"GDP", "zCDP", "RDP"}},
	} {
		for name, price := range accountants {
			refuses := false
			for _, r := range c.refusers {
				refuses = refuses || r == name
			}
			_, err := price(c.event)
			var typed *accounting.UnsupportedError
			if got := errors.As(err, &typed) && errors.Is(err, accounting.ErrUnsupported); got != refuses || err != nil && !refuses {
				t.Errorf("%s of %v: %v, want refusal: %v", name, c.event, err, refuses)
			}
		}
	}
}

func TestParameterErrors(t *testing.T) {
	gaussian := accounting.Gaussian{NoiseMultiplier: 1}
	nan, inf := math.NaN(), math.Inf(1)
	events := []accounting.Event{
		accounting.Repeated{Event: gaussian},
		accounting.Repeated{Event: gaussian, Count: -1},
		accounting.DiscreteGaussianScalar{Sigma: 3, Sensitivity: 1, Truncation: -1},
		accounting.DiscreteGaussianScalar{Sigma: 3},
	}
	for _, bad := range []float64{nan, inf, -inf, -1, 0} {
		events = append(events, accounting.Gaussian{NoiseMultiplier: bad},
			accounting.DiscreteGaussian{Sigma: bad, Sensitivity: 1},
			accounting.DiscreteGaussian{Sigma: 10, Sensitivity: bad},
			accounting.DiscreteGaussianScalar{Sigma: bad, Sensitivity: 1},
			accounting.PoissonSampled{Rate: 0.5, Event: accounting.Gaussian{NoiseMultiplier: bad}})
	}
	for _, bad := range []float64{nan, inf, -0.1, 1.1} {
		events = append(events, accounting.PoissonSampled{Rate: bad, Event: gaussian})
	}
	for _, e := range events {
		for name, price := range accountants {
			if name == "Scale" {
				continue // leaves the parameters to the accountants
			}
			_, err := price(e)
			var typed *accounting.ParameterError
			if !errors.As(err, &typed) || !errors.Is(err, accounting.ErrParameter) {
				t.Errorf("%s of %v: %v", name, e, err)
			}
		}
	}
	pld := must(accounting.NewPLD(gaussian))
	curve := must(accounting.RDP(gaussian))
	for _, bad := range []float64{nan, inf, -inf, -1, 0, 1, 2} {
		for what, err := range map[string]error{
			"PLD.Epsilon":             second(pld.Epsilon(bad)),
			"zCDP Epsilon":            second(accounting.NanoRho(1).Epsilon(bad)),
			"zCDP SimpleEpsilon":      second(accounting.NanoRho(1).SimpleEpsilon(bad)),
			"zCDP GaussianEpsilon":    second(accounting.NanoRho(1).GaussianEpsilon(bad)),
			"RDP Epsilon":             func() error { _, _, err := curve.Epsilon(bad); return err }(),
			"GaussianMu":              second(accounting.GaussianMu(1, bad)),
			"GaussianBudget":          second(accounting.GaussianBudget(1, bad)),
			"CalibrateGaussian":       second(accounting.CalibrateGaussian(1, bad, 1)),
			"CalibrateSampled":        second(accounting.CalibrateSampled(1, bad, 1, 0.5)),
			"sampling rate":           second(accounting.CalibrateSampled(1, 0.1, 1, -bad)),
			"PLD.Delta":               second(pld.Delta(-math.Abs(bad) - 1)),
			"GaussianMu epsilon":      second(accounting.GaussianMu(-math.Abs(bad)-1, 0.1)),
			"sensitivity factor":      second(accounting.GaussianCharge(1, -math.Abs(bad))),
			"Scale":                   second(accounting.Scale(gaussian, -math.Abs(bad))),
			"order":                   second(accounting.RDP(gaussian, 2, -math.Abs(bad))),
			"order too large":         second(accounting.RDP(gaussian, 1e7)),
			"rounds":                  second(accounting.CalibrateGaussian(1, 0.1, 0)),
			"NanoRho.NoiseMultiplier": second(accounting.NanoRho(0).NoiseMultiplier()),
		} {
			if what == "sampling rate" && bad == -1 {
				continue // -bad is a rate
			}
			if !errors.Is(err, accounting.ErrParameter) {
				t.Errorf("%s at %v: %v", what, bad, err)
			}
		}
		if got := accounting.GaussianEpsilon(1, bad); !math.IsInf(got, 1) {
			t.Errorf("GaussianEpsilon(1, %v) = %v, want +Inf", bad, got)
		}
	}
	for _, bad := range []float64{nan, -1, inf} {
		if e, d := accounting.GaussianEpsilon(bad, 0.1), accounting.GaussianDelta(bad, 1); !math.IsInf(e, 1) || d != 1 {
			t.Errorf("mu %v: epsilon %v, delta %v", bad, e, d)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestOverflowIsRefused(t *testing.T) {
	many := accounting.Repeated{Event: accounting.Gaussian{NoiseMultiplier: 1}, Count: 1 << 62}
	for what, err := range map[string]error{
		"charge":      second(accounting.GaussianCharge(1e-6, 1)),
		"sum":         second(accounting.ZCDP(accounting.Composed{many, many})),
		"repetitions": second(accounting.RDP(accounting.Repeated{Event: many, Count: 4})),
		"grid":        second(accounting.NewPLD(many)), // no step fits 2^62 losses
		"losses":      second(accounting.NewPLD(accounting.Gaussian{NoiseMultiplier: 1e-170})),
		"add":         second(accounting.NanoRho(math.MaxUint64).Add(1)),
	} {
		if !errors.Is(err, accounting.ErrOverflow) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Whatever the numbers, the answer is a cost or a typed error.
func TestNoParametersGiveNaN(t *testing.T) {
	extreme := rapid.OneOf(
		rapid.SampledFrom([]float64{0, -1, 1, 0.5, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64,
			math.SmallestNonzeroFloat64, 1 - 0x1p-53, 1 + 0x1p-52, 1e-300, 1e-100, 1e-10, 1e10, 1e100}),
		rapid.Float64(), rapid.Float64Range(0, 1), logUniform(1e-300, 1e300))
	count := rapid.OneOf(rapid.IntRange(-1, 10), rapid.Int())
	rapid.Check(t, func(t *rapid.T) {
		a, b, c, n := extreme.Draw(t, "a"), extreme.Draw(t, "b"), extreme.Draw(t, "c"), count.Draw(t, "n")
		valid := func(what string, v float64, err error) {
			if err == nil && !(v >= 0) {
				t.Errorf("%s(%v, %v, %v, %d) = %v", what, a, b, c, n, v)
			}
			for _, known := range []error{nil, accounting.ErrParameter, accounting.ErrUnsupported, accounting.ErrOverflow} {
				if errors.Is(err, known) {
					return
				}
			}
			t.Errorf("%s(%v, %v, %v, %d): untyped error %v", what, a, b, c, n, err)
		}
		result := func(what string) func(float64, error) {
			return func(v float64, err error) { valid(what, v, err) }
		}
		for _, e := range []accounting.Event{
			gaussians(a, n), sampled(b, a, n),
			accounting.Repeated{Event: accounting.DiscreteGaussian{Sigma: a, Sensitivity: b}, Count: n},
			accounting.Repeated{Event: accounting.DiscreteGaussianScalar{Sigma: a, Sensitivity: n, Truncation: n / 2}, Count: 2},
		} {
			for name, price := range accountants {
				v, err := price(e)
				valid(name+" of "+e.String(), v, err)
			}
		}
		result("GaussianEpsilon")(accounting.GaussianEpsilon(a, b), nil)
		result("GaussianDelta")(accounting.GaussianDelta(a, b), nil)
		result("GaussianMu")(accounting.GaussianMu(a, b))
		result("CalibrateGaussian")(accounting.CalibrateGaussian(a, b, n))
		charge, err := accounting.GaussianCharge(a, b)
		result("GaussianCharge")(charge.Rho(), err)
		budget, err := accounting.GaussianBudget(a, b)
		result("GaussianBudget")(budget.Rho(), err)
		for _, rho := range []accounting.NanoRho{charge, budget, accounting.NanoRho(n)} {
			result("Epsilon")(rho.Epsilon(c))
			result("SimpleEpsilon")(rho.SimpleEpsilon(c))
			result("GaussianEpsilon of rho")(rho.GaussianEpsilon(c))
			result("NoiseMultiplier")(rho.NoiseMultiplier())
		}
	})
}
