// Package jobs is what a method, its privacy and its rounds have to do with one
// another: it makes a job's specification from terms that a person can choose,
// recomputes the claims of one that came over a network, and takes a job from
// one released state to the next.
//
// There is one method so far, AMHT-LRS (package lowrank, and client/local for the
// client's half).
package jobs

import (
	"time"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp"
)

// AMHTLRS is the method's name in a specification.
const AMHTLRS = "amht-lrs"

// Parameters of AMHT-LRS: a specification's parameters, as JSON.
type Parameters struct {
	lowrank.Config
	Sparsity      int  `json:"sparsity"` // k: the most non-zeros of b
	HardThreshold bool `json:"hard_threshold,omitempty"`
}

// Terms of a job: its privacy and the size of its rounds.
type Terms struct {
	Job            string
	Epsilon, Delta float64 // of all rounds together
	Adjacency      dp.Adjacency
	Trust          rounds.Trust
	NMin           int
	RoundSize      int
	Deadline       time.Duration
	// Spare is the number of failed attempts, each as dear as the dearest round,
	// that the budget leaves room for.
	Spare int
}

// TermError is a term that cannot be had. Flag is the command line's name of it.
type TermError struct{ Flag, Problem string }

func (e *TermError) Error() string { return "--" + e.Flag + ": " + e.Problem }

// New makes a specification. Fails with a *TermError.
func New(p Parameters, t Terms) (*rounds.Spec, error) { panic("jobs: to be built") }

// Check recomputes what a specification claims - lengths, sensitivities, noise,
// charges, the budget - from its parameters, and returns the parameters. It is
// what a client does before it takes part. Fails with a *rounds.SpecError.
func Check(s *rounds.Spec) (*Parameters, error) { panic("jobs: to be built") }

// Start returns state 0, before any release.
func Start(s *rounds.Spec) ([]byte, error) { panic("jobs: to be built") }

// State reads a released state of a job. Fails if it is none of that job and
// version.
func State(s *rounds.Spec, version int, state []byte) (*lowrank.State, error) {
	panic("jobs: to be built")
}

// Advance returns the state after a round: state is the one before it, sum the
// integer sum of the contributions of that many members. It is a function of its
// arguments, but for the last bits of its floats, which may differ by platform.
func Advance(s *rounds.Spec, round int, state []byte, sum []int64, members int) ([]byte, error) {
	panic("jobs: to be built")
}
