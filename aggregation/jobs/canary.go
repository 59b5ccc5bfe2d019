package jobs

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/rounds"
)

// Canary is the method that learns nothing: the state after a round is the round's
// noised sum, in the units of the contributions. Whoever knows what was contributed
// sees the noise, and can hold it to what the specification claims. A job of it
// pays for its releases as any other, out of a budget of its own.
type Canary struct {
	Dim int `json:"dim"` // coordinates of a contribution
	// Norms are the bounds on a contribution's norm, one a round; the budget is
	// divided evenly.
	Norms []float64 `json:"norms"`
}

// kindCanary is what the releases are called.
const kindCanary = "canary"

// canaryState is a released state. Sum has Dim coordinates, none at step 0.
type canaryState struct {
	Step int       `json:"step"`
	Sum  []float64 `json:"sum"`
}

// NewCanary makes a specification as New does. Fails with a *TermError.
func NewCanary(c Canary, t Terms) (*rounds.Spec, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return specify(CanaryMethod, &c, t)
}

// CanaryLike makes the specification of a canary job whose releases have the
// bounds, the noise, the lattice, the charges, the adjacency and the trust mode of
// another job: dim coordinates of it, for rounds of exactly size contributions.
// With TrustLocal size is free, as a contribution's own noise is what is charged;
// else it must be the other's NMin. Fails with a *TermError for dim and size, and
// with a *rounds.SpecError if the other's own claims do not hold.
func CanaryLike(s *rounds.Spec, dim, size int) (*rounds.Spec, error) {
	if s.Trust != rounds.TrustLocal && size != s.NMin {
		return nil, termError("n-min", "%d is not the %d whose noise is charged", size, s.NMin)
	}
	if err := CheckAny(s); err != nil {
		return nil, err
	}
	c := Canary{Dim: dim}
	out := *s
	out.Method, out.NMin, out.RoundSize = CanaryMethod, size, size
	out.Releases = nil
	for _, r := range s.Releases {
		// A bound of at most 2^52 units, times a power of two: exact.
		c.Norms = append(c.Norms, math.Ldexp(float64(r.Bound), -int(s.Lattice.ScaleBits)))
		r.Kind, r.Length = kindCanary, dim
		out.Releases = append(out.Releases, r)
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	var err error
	if out.Parameters, err = json.Marshal(c); err != nil {
		return nil, termError("dim", "%v", err)
	}
	return &out, CheckAny(&out)
}

// Validate returns the first mistake as a *TermError, or nil.
func (c *Canary) Validate() error {
	if c.Dim < 1 || c.Dim > rounds.MaxLength {
		return termError("dim", "%d is not from 1 to %d", c.Dim, rounds.MaxLength)
	}
	if len(c.Norms) == 0 {
		return termError("rounds", "at least one is needed")
	}
	for _, norm := range c.Norms {
		if !(norm > 0) || math.IsInf(norm, 0) {
			return termError("norms", "%v is not a positive number", norm)
		}
	}
	return nil
}

// canary reads a specification's parameters. Fails with a *rounds.SpecError.
func canary(s *rounds.Spec) (*Canary, error) {
	c := new(Canary)
	if err := decodeStrictly(s.Parameters, c); err != nil {
		return nil, &rounds.SpecError{Field: "parameters", Problem: err.Error()}
	}
	if err := c.Validate(); err != nil {
		var term *TermError
		errors.As(err, &term)
		return nil, &rounds.SpecError{Field: "parameters." + term.Flag, Problem: term.Problem}
	}
	return c, nil
}

func (c *Canary) schedule() []phase {
	out := make([]phase, len(c.Norms))
	for i, norm := range c.Norms {
		out[i] = phase{kindCanary, aggregation.Layout{{Name: kindCanary, Len: c.Dim, Bound: norm}}, 1 / float64(len(c.Norms))}
	}
	return out
}

func (c *Canary) start() ([]byte, error) { return json.Marshal(canaryState{Sum: []float64{}}) }

func (c *Canary) advance(version int, state []byte, sum []float64, _ float64) ([]byte, error) {
	if _, err := c.state(version, state); err != nil {
		return nil, err
	}
	return json.Marshal(canaryState{Step: version + 1, Sum: sum})
}

// state reads the released state of a version.
func (c *Canary) state(version int, state []byte) (*canaryState, error) {
	st := new(canaryState)
	if err := decodeStrictly(state, st); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrState, err)
	}
	n := 0
	if version > 0 {
		n = c.Dim
	}
	if st.Step != version || len(st.Sum) != n {
		return nil, fmt.Errorf("%w: of another step or length", ErrState)
	}
	return st, nil
}

// CanarySum is what a canary job released in a round, counted from 1: the noised
// sum of its contributions. Fails with a *rounds.SpecError or ErrState.
func CanarySum(s *rounds.Spec, round int, state []byte) ([]float64, error) {
	if s.Method != CanaryMethod {
		return nil, &rounds.SpecError{Field: "method", Problem: fmt.Sprintf("%q is not %q", s.Method, CanaryMethod)}
	}
	c, err := canary(s)
	if err != nil {
		return nil, err
	}
	st, err := c.state(round, state)
	if err != nil {
		return nil, err
	}
	return st.Sum, nil
}
