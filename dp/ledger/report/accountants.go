package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
)

// Answers are those of several accountants, computed when somebody asks: a privacy loss
// distribution takes milliseconds a job. Several goroutines may ask at once.
type Answers struct {
	all func() ([]Accountant, error)
}

// All returns the answers. Fails if an accountant cannot count the cost.
func (a Answers) All() ([]Accountant, error) {
	if a.all == nil {
		return []Accountant{}, nil
	}
	return a.all()
}

// MarshalJSON writes a list of Accountant.
func (a Answers) MarshalJSON() ([]byte, error) {
	all, err := a.All()
	if err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (a *Answers) UnmarshalJSON(b []byte) error {
	var all []Accountant
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	a.all = func() ([]Accountant, error) { return all, nil }
	return nil
}

// reckoner answers for many jobs, of which those that spent the same on the same
// mechanisms have one answer.
type reckoner struct {
	mu    sync.Mutex
	known map[string]func() ([]Accountant, error)
}

func newReckoner() *reckoner { return &reckoner{known: make(map[string]func() ([]Accountant, error))} }

func (r *reckoner) answers(j *ledger.Job) Answers {
	return Answers{sync.OnceValues(func() ([]Accountant, error) {
		all, delta := events(j), j.Specification.Delta
		key := fmt.Sprintf("%d %x %#v", j.Spent, delta, all)
		r.mu.Lock()
		same := r.known[key]
		if same == nil {
			same = sync.OnceValues(func() ([]Accountant, error) { return accountants(all, j.Spent, delta) })
			r.known[key] = same
		}
		r.mu.Unlock()
		return same()
	})}
}

// mostMechanisms bounds the different mechanisms of a job that the PLD accountant is
// asked about: each one is a distribution on a grid of up to a million cells.
const mostMechanisms = 64

// events are the mechanisms of all attempts that were charged, failed ones among them,
// equal ones counted together.
func events(j *ledger.Job) accounting.Composed {
	var out accounting.Composed
	at := make(map[accounting.DiscreteGaussian]int)
	for i := range j.Attempts {
		m := &j.Attempts[i].Mechanism
		e := accounting.DiscreteGaussian{Sigma: latticeDeviation(j, m), Sensitivity: sensitivity(m)}
		if coarse(j, m) && j.Specification.Parts() > 1 {
			// No discrete Gaussian: its charge is what is known of it, a curve for RDP. At
			// such a sigma neither GDP nor PLD answers.
			e = accounting.DiscreteGaussian{Sigma: 1, Sensitivity: mu(j.Attempts[i].Charge.Rho())}
		}
		k, known := at[e]
		if !known {
			k = len(out)
			at[e] = k
			out = append(out, accounting.Repeated{Event: e})
		}
		r := out[k].(accounting.Repeated)
		r.Count++
		out[k] = r
	}
	return out
}

// accountants are different ways to the epsilon of what was spent on events.
func accountants(all accounting.Composed, spent accounting.NanoRho, delta float64) ([]Accountant, error) {
	simple, err := spent.SimpleEpsilon(delta)
	if err != nil {
		return nil, err
	}
	zcdp, err := spent.Epsilon(delta)
	if err != nil {
		return nil, err
	}
	out := []Accountant{
		{"zCDP by hand", simple, "rho + 2 sqrt(rho ln(1/delta)), of the rho that the ledger enforces: for any mechanism of that rho, and by pocket calculator. The most pessimistic."},
		{"zCDP", zcdp, "The best conversion known of the same rho: still for any mechanism of it, so above the exact answer for Gaussian noise."},
	}
	for _, a := range []struct {
		name, note string
		epsilon    func() (float64, error)
	}{
		{"GDP", "Exact for Gaussian noise, here from the noise of every attempt. The report's figures are this accountant's, from charges that round up.", func() (float64, error) {
			mu, err := accounting.GDP(all)
			return accounting.GaussianEpsilon(mu, delta), err
		}},
		{"RDP", "The best of many Renyi orders. Their conversion to epsilon loses some ten percent.", func() (float64, error) {
			curve, err := accounting.RDP(all)
			if err != nil {
				return 0, err
			}
			epsilon, _, err := curve.Epsilon(delta)
			return epsilon, err
		}},
		{"PLD", "The privacy loss distribution, on a grid that rounds up: the answer of GDP by other arithmetic, some percent above it where delta is below 1e-11.", func() (float64, error) {
			if len(all) > mostMechanisms {
				return 0, fmt.Errorf("%d different mechanisms are too many for it: %w", len(all), accounting.ErrUnsupported)
			}
			pld, err := accounting.NewPLD(all)
			if err != nil {
				return 0, err
			}
			return pld.Epsilon(delta)
		}},
	} {
		epsilon, err := a.epsilon()
		switch {
		case errors.Is(err, accounting.ErrUnsupported) || errors.Is(err, accounting.ErrOverflow) || err == nil && math.IsInf(epsilon, 1):
			// It has no answer: the others have.
		case err != nil:
			return nil, err
		default:
			out = append(out, Accountant{a.name, epsilon, a.note})
		}
	}
	return out, nil
}
