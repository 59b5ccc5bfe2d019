package accounting

import (
	"fmt"
	"math"
	"math/big"
	"math/bits"
)

// NanoRho is an amount of zero-concentrated differential privacy (Bun,
// Steinke 2016) in units of rho = 1e-9. Being an integer it adds up alike on
// every machine. Charges round up to it, budgets round down.
type NanoRho uint64

const nanos = 1_000_000_000

// Rho returns r as a real number.
func (r NanoRho) Rho() float64 { return float64(r) / nanos }

func (r NanoRho) String() string { return fmt.Sprintf("%d.%09d rho", r/nanos, r%nanos) }

// GaussianCharge is the zCDP of one Gaussian release of a noise multiplier,
// rho = factor^2 / (2 z^2) (Bun, Steinke 2016, Proposition 1.6), where factor is
// that of the adjacency, see [Scale]. It is exact for the discrete Gaussian as
// well. The charge is the real number rounded up, without any error in between.
func GaussianCharge(noiseMultiplier, factor float64) (NanoRho, error) {
	if err := checkPositive("noise multiplier", noiseMultiplier); err != nil {
		return 0, err
	}
	if err := checkPositive("sensitivity factor", factor); err != nil {
		return 0, err
	}
	// rho = num / den over the rationals, since a float64 is one.
	ratio := new(big.Rat).Quo(new(big.Rat).SetFloat64(factor), new(big.Rat).SetFloat64(noiseMultiplier))
	ratio.Mul(ratio, ratio).Mul(ratio, big.NewRat(nanos, 2))
	charge, rest := new(big.Int).QuoRem(ratio.Num(), ratio.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		charge.Add(charge, big.NewInt(1))
	}
	if !charge.IsUint64() {
		return 0, fmt.Errorf("accounting: zCDP of noise multiplier %v: %w", noiseMultiplier, ErrOverflow)
	}
	return NanoRho(charge.Uint64()), nil
}

// ZCDP returns the zCDP of e: the sum of its releases' charges (Bun, Steinke
// 2016, Lemma 1.7), each rounded up. It refuses sampling, from which zCDP does
// not profit.
func ZCDP(e Event) (NanoRho, error) {
	var sum NanoRho
	err := visit(e, 1, func(e Event, times uint64) error {
		e, err := untruncated("zCDP", e)
		if err != nil {
			return err
		}
		var charge NanoRho
		switch e := e.(type) {
		case Gaussian:
			charge, err = GaussianCharge(e.NoiseMultiplier, 1)
		case DiscreteGaussian:
			charge, err = GaussianCharge(e.Sigma, e.Sensitivity)
		case PoissonSampled:
			err = &UnsupportedError{"zCDP", e, "it has no account of sampling"}
		default:
			err = unknown("zCDP", e)
		}
		if err != nil {
			return err
		}
		all, err := mul(uint64(charge), times)
		if err != nil {
			return err
		}
		sum, err = sum.Add(NanoRho(all))
		return err
	})
	if err != nil {
		return 0, err
	}
	return sum, nil
}

// Add returns r + s, or ErrOverflow.
func (r NanoRho) Add(s NanoRho) (NanoRho, error) {
	sum, err := add(uint64(r), uint64(s))
	return NanoRho(sum), err
}

func add(a, b uint64) (uint64, error) {
	sum, carry := bits.Add64(a, b, 0)
	if carry != 0 {
		return 0, fmt.Errorf("accounting: %d + %d: %w", a, b, ErrOverflow)
	}
	return sum, nil
}

func mul(a, b uint64) (uint64, error) {
	hi, lo := bits.Mul64(a, b)
	if hi != 0 {
		return 0, fmt.Errorf("accounting: %d x %d: %w", a, b, ErrOverflow)
	}
	return lo, nil
}

// SimpleEpsilon returns rho + 2 sqrt(rho ln(1/delta)) (Bun, Steinke 2016,
// Proposition 1.3): what r zCDP costs, whatever the mechanisms, in a formula
// that anybody can check by hand.
func (r NanoRho) SimpleEpsilon(delta float64) (float64, error) {
	if err := checkDelta(delta); err != nil {
		return 0, err
	}
	rho := r.Rho()
	return (rho + 2*math.Sqrt(-rho*math.Log(delta))) * (1 + slack), nil
}

// Epsilon returns the best epsilon known that r zCDP implies, whatever the
// mechanisms: the least over alpha of what its RDP curve alpha rho implies
// (Canonne, Kamath, Steinke 2020, Proposition 12 and Corollary 13).
func (r NanoRho) Epsilon(delta float64) (float64, error) {
	if err := checkDelta(delta); err != nil {
		return 0, err
	}
	rho := r.Rho()
	if rho == 0 {
		return 0, nil
	}
	// Every alpha gives a valid bound, so the search may stop anywhere. The
	// optimum is near 1 + sqrt(ln(1/delta)/rho); search ln(alpha-1) around it.
	at := func(u float64) float64 {
		alpha := 1 + math.Exp(u)
		return renyiEpsilon(alpha, alpha*rho, delta)
	}
	near := math.Log(-math.Log(delta)/rho) / 2
	best := minimum(at, near-5, near+5)
	simple, err := r.SimpleEpsilon(delta)
	return math.Min(best*(1+slack), simple), err
}

// GaussianEpsilon returns the exact epsilon of Gaussian releases that were
// charged r in all: mu = sqrt(2 rho) in GDP. It is valid only when every charge
// was a [Gaussian] or, within what is said there, a [DiscreteGaussian]:
// zCDP at large does not imply GDP.
func (r NanoRho) GaussianEpsilon(delta float64) (float64, error) {
	if err := checkDelta(delta); err != nil {
		return 0, err
	}
	return GaussianEpsilon(math.Sqrt(2*r.Rho())*(1+slack), delta), nil
}

// GaussianBudget returns the largest rho that Gaussian releases may be charged
// in all for them to be (epsilon, delta)-DP: mu^2/2, rounded down. See
// [NanoRho.GaussianEpsilon] for what that holds of.
func GaussianBudget(epsilon, delta float64) (NanoRho, error) {
	mu, err := GaussianMu(epsilon, delta)
	if err != nil {
		return 0, err
	}
	rho := mu * mu / 2 * (1 - slack) * nanos
	if rho >= math.MaxUint64 {
		return 0, fmt.Errorf("accounting: budget of epsilon %v: %w", epsilon, ErrOverflow)
	}
	return NanoRho(rho), nil
}

// NoiseMultiplier returns the least noise multiplier of a Gaussian release whose
// charge is at most r. To spend a budget in n equal rounds give each the budget
// divided by n: their charges then fit, to the last nano-rho.
func (r NanoRho) NoiseMultiplier() (float64, error) {
	if r == 0 {
		return 0, &ParameterError{"charge", 0, "above 0 to release anything"}
	}
	z := math.Sqrt(1 / (2 * r.Rho()))
	for {
		if charge, err := GaussianCharge(z, 1); err != nil || charge <= r {
			return z, err
		}
		z *= 1 + 0x1p-52
	}
}

// Filter holds the sum of charges within a budget. Its guarantee is that of
// its Budget even where every release, and whether there is one, and its
// charge, are chosen in view of everything released before: a privacy filter
// (Rogers, Roth, Ullman, Vadhan 2016; for zCDP, with no loss in constants,
// Feldman, Zrnic 2021 and Whitehouse, Ramdas, Rogers, Wu 2023; for Gaussian
// releases also in GDP, Smith, Thakurta 2022).
//
// A Filter serves one goroutine. To restore one, reserve what had been spent.
type Filter struct {
	Budget NanoRho
	spent  NanoRho
}

// Reserve charges the filter, before the data are touched. A charge that does
// not fit is refused with a [BudgetError] and changes nothing. There is no
// refund: what was reserved counts as spent.
func (f *Filter) Reserve(charge NanoRho) error {
	if charge > f.Remaining() {
		return &BudgetError{f.Budget, f.spent, charge}
	}
	f.spent += charge
	return nil
}

// Spent returns the sum of the charges.
func (f *Filter) Spent() NanoRho { return f.spent }

// Remaining returns the largest charge that would fit.
func (f *Filter) Remaining() NanoRho {
	if f.spent > f.Budget {
		return 0
	}
	return f.Budget - f.spent
}
