// Package jobs is what a method, its privacy and its rounds have to do with one
// another: it makes a job's specification out of terms that a person can choose
// (New), recomputes the claims of one that came over a network (Check), and takes
// a job from one released state to the next (Start, Advance).
//
// # What a specification claims
//
// For each release: contributions are integer vectors z, ||z||_2 <= Bound, which
// dp.Lattice.Encode guarantees; each one carries discrete Gaussian noise of
// parameter sigma, and NMin of them together N_Z(0, NMin sigma^2), up to the
// closeness at noise.Share (with TrustLocal, each one carries N_Z(0, sigma^2) and
// that alone is counted, without a closeness). Then the release is rho-zCDP with
//
//	sqrt(2 rho) = factor Bound / (sqrt(NMin) sigma) + closeness sqrt(Length),
//
// factor being that of the adjacency (Canonne, Kamath, Steinke 2020, theorem 4).
// Check takes no closeness of more than 10^-12 of the first term, and compares
// Charge and the first term, with 10^-11 of rho on top, as integers, without a
// float in between: so Charge is at least rho. Noise that more than NMin members
// add is not counted.
//
// That is the price of the sum, towards those who see no more than it, and as long
// as NMin contributions in it carry their honest noise; with TrustLocal it is that
// of each contribution as well. With TrustDistributed a single contribution is
// noised by its share alone, NMin times as dear towards the servers that see it,
// and no client can verify NMin, or who else is in the sum. With TrustCentral the
// servers see it without noise.
//
// # Methods
//
// AMHT-LRS (package lowrank, and client/local for the client's half) learns the
// shared part of a model, and is what devices take part in. Canary learns nothing:
// it releases the sums themselves, so that their noise can be measured.
package jobs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
)

// Methods, as a specification names them.
const (
	AMHTLRS      = "amht-lrs"
	CanaryMethod = "canary"
)

// method is what a job's rounds have to do with what it computes: all that differs
// between methods stands behind it.
type method interface {
	// schedule is the releases in their order, a function of public numbers.
	schedule() []phase
	// start is state 0.
	start() ([]byte, error)
	// advance returns the state after the release that follows a version. sum is
	// decoded, and sd the standard deviation of the noise in each coordinate.
	advance(version int, state []byte, sum []float64, sd float64) ([]byte, error)
}

// phase is one release of a schedule.
type phase struct {
	kind   string
	layout aggregation.Layout
	share  float64 // of the budget
}

// methodOf reads a specification's method and its parameters. Fails with a
// *rounds.SpecError.
func methodOf(s *rounds.Spec) (method, error) {
	switch s.Method {
	case AMHTLRS:
		return parameters(s)
	case CanaryMethod:
		return canary(s)
	}
	return nil, &rounds.SpecError{Field: "method", Problem: fmt.Sprintf("%q is unknown; this program has %q and %q", s.Method, AMHTLRS, CanaryMethod)}
}

// Parameters of AMHT-LRS: a specification's parameters, as JSON.
type Parameters struct {
	lowrank.Config
	Sparsity      int  `json:"sparsity"` // k: the most non-zeros of b
	HardThreshold bool `json:"hard_threshold,omitempty"`
}

// privateRounds is the number of updates that a budget is divided among: each
// one needs its share.
const privateRounds = 6

// sketchOversampling is the usual number of columns beyond the rank (Halko,
// Martinsson, Tropp 2011, section 4.2).
const sketchOversampling = 5

// WithDefaults fills in what is left to the schedule: Rounds and, where the
// features are too many for full moments, Sketch.
func (p Parameters) WithDefaults() Parameters {
	if p.Rounds == 0 {
		p.Rounds = privateRounds
	}
	if p.Sketch == 0 && p.Dim > lowrank.LargestMoment {
		p.Sketch = min(p.Dim, 2*p.Rank+sketchOversampling)
	}
	return p
}

// Validate returns the first mistake as a *TermError, or nil.
func (p *Parameters) Validate() error {
	if err := p.Config.Validate(); err != nil {
		var field *lowrank.ConfigError
		errors.As(err, &field)
		return &TermError{field.Field, field.Problem}
	}
	if p.Sparsity < 0 || p.Sparsity > p.Dim {
		return termError("sparsity", "%d is not from 0 to the %d features", p.Sparsity, p.Dim)
	}
	for _, phase := range p.Phases() {
		if n := p.Layout(phase.Kind).Len(); n > rounds.MaxLength {
			flag, what := "dim", phase.Kind
			if phase.Kind == lowrank.Refine && p.Update == lowrank.LeastSquares {
				flag, what = "update", lowrank.Kind(p.Update)
			}
			return termError(flag, "%s sends %d numbers a user for %d features and rank %d; at most %d", what, n, p.Dim, p.Rank, rounds.MaxLength)
		}
	}
	return nil
}

// parameters reads a specification's. Fails with a *rounds.SpecError.
func parameters(s *rounds.Spec) (*Parameters, error) {
	if s.Method != AMHTLRS {
		return nil, &rounds.SpecError{Field: "method", Problem: fmt.Sprintf("%q is none that learns a model; %q is", s.Method, AMHTLRS)}
	}
	p := new(Parameters)
	if err := decodeStrictly(s.Parameters, p); err != nil {
		return nil, &rounds.SpecError{Field: "parameters", Problem: err.Error()}
	}
	if err := p.Validate(); err != nil {
		var term *TermError
		errors.As(err, &term)
		return nil, &rounds.SpecError{Field: "parameters." + term.Flag, Problem: term.Problem}
	}
	return p, nil
}

// decodeStrictly reads one JSON value with no fields but those of v.
func decodeStrictly(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

func (p *Parameters) schedule() []phase {
	var out []phase
	for _, f := range p.Phases() {
		out = append(out, phase{string(f.Kind), p.Layout(f.Kind), f.Share})
	}
	return out
}

func (p *Parameters) start() ([]byte, error) { return json.Marshal(p.Start()) }

func (p *Parameters) advance(version int, state []byte, sum []float64, sd float64) ([]byte, error) {
	st, err := p.state(version, state)
	if err != nil {
		return nil, err
	}
	next, err := st.Advance(sum, sd)
	if err != nil {
		return nil, err
	}
	return json.Marshal(next)
}

// state reads the released state of a version.
func (p *Parameters) state(version int, state []byte) (*lowrank.State, error) {
	st := new(lowrank.State)
	if err := decodeStrictly(state, st); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrState, err)
	}
	if st.Config != p.Config || st.Step != version {
		return nil, fmt.Errorf("%w: of another configuration or step", ErrState)
	}
	return st, nil
}

// Start returns state 0, before any release.
func Start(s *rounds.Spec) ([]byte, error) {
	m, err := methodOf(s)
	if err != nil {
		return nil, err
	}
	return m.start()
}

// ErrState says that bytes are no released state of a job and version.
var ErrState = errors.New("jobs: no state of this job and version")

// State reads a released state of a job of AMHT-LRS; version counts the releases before
// it. That its parts fit together is for the solver to check, which does so
// before it uses them. Fails with a *rounds.SpecError or ErrState.
func State(s *rounds.Spec, version int, state []byte) (*lowrank.State, error) {
	p, err := parameters(s)
	if err != nil {
		return nil, err
	}
	return p.state(version, state)
}

// Advance returns the state after a round, counted from 1: state is the one
// before it, sum the integer sum of the contributions of so many members. Its
// result follows from its arguments but for the last bits of floats, which may
// differ between platforms: so one node computes it, and what it released is
// what all others take over.
//
// Fails with a *rounds.SpecError, ErrState, aggregation.ErrLength or
// lowrank.ErrNotFinite.
func Advance(s *rounds.Spec, round int, state []byte, sum []int64, members int) ([]byte, error) {
	m, err := methodOf(s)
	if err != nil {
		return nil, err
	}
	if round < 1 || round > len(s.Releases) || len(sum) != s.Releases[round-1].Length {
		return nil, aggregation.ErrLength
	}
	decoded := make([]float64, len(sum))
	s.Lattice.Decode(decoded, slices.Clone(sum))
	return m.advance(round-1, state, decoded, NoiseDeviation(s, round, members))
}

// NoiseDeviation is the standard deviation of the noise in each coordinate of a
// round's decoded sum, with so many members.
func NoiseDeviation(s *rounds.Spec, round, members int) float64 {
	local := s.Releases[round-1].Sigma.Float64()
	return local * math.Sqrt(float64(members)) * math.Ldexp(1, -int(s.Lattice.ScaleBits))
}
