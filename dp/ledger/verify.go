package ledger

import (
	"encoding/json"
	"fmt"

	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
)

// Fault is the first thing that is wrong with a ledger.
type Fault struct {
	Record  int64  // its index, or -1: it is not one record's
	Job     string // empty where it is of no job
	Problem string // one line
	Err     error  // ErrEntry, ErrSignature, ErrFork, ErrTruncated, ErrHistory, ...
}

func (f *Fault) Error() string {
	switch {
	case f.Record >= 0 && f.Job != "":
		return fmt.Sprintf("record %d (job %s): %s", f.Record, f.Job, f.Problem)
	case f.Record >= 0:
		return fmt.Sprintf("record %d: %s", f.Record, f.Problem)
	}
	return f.Problem
}

// Unwrap returns the sentinel error.
func (f *Fault) Unwrap() error { return f.Err }

// Verify recomputes everything that a bundle says, and returns the history that it
// tells: every hash, the checkpoint's signature by the key that trusted leads to, that
// it extends seen (the last checkpoint that this auditor kept; zero: none), every charge
// from the mechanism it pays for, and that no event could not have happened when it did.
// Fails with a *Fault, the first in the order of the records.
func Verify(b *Bundle, trusted string, seen Checkpoint) (*History, error) {
	panic("ledger: to be built")
}

// History is what a verified ledger tells.
type History struct {
	Checkpoint Checkpoint
	Key        string // that signed it, public
	Rotations  int
	Began      int64 // milliseconds since 1970
	Last       int64
	Jobs       []*Job  // in the order of their creation
	Restored   []int64 // indices of records after which a backup was taken up
}

// Job is one job's history.
type Job struct {
	Name          string
	Record        int64 // JobCreated
	Created       int64 // milliseconds since 1970
	Specification Specification
	Raw           []byte // the specification's bytes
	State         Digest // before the first release
	Attempts      []Attempt
	Spent         accounting.NanoRho
	Released      int // rounds
	Closed        bool
	Canaries      []CanaryMeasured
}

// Attempt is one attempt's history.
type Attempt struct {
	Round, Attempt int
	Record         int64 // AttemptCharged
	Opened         int64 // milliseconds since 1970
	Charge         accounting.NanoRho
	// Recomputed is what the mechanism costs by Verify's own arithmetic: at most Charge.
	Recomputed accounting.NanoRho
	Status     Status
	End        int64 // record of the release or failure; -1: there is none yet
	Ended      int64
	Members    int
	Mechanism  Mechanism
	Sum, State Digest // once released
	Why        string // it failed
}

// Status of an attempt.
type Status string

// What became of an attempt.
const (
	StatusOpen     Status = "open"
	StatusReleased Status = "released"
	StatusFailed   Status = "failed"
)

// Specification is what this package reads of a job's specification; the rest is the
// method's.
type Specification struct {
	Job        string          `json:"job"`
	Method     string          `json:"method"`
	Parameters json.RawMessage `json:"parameters"`
	Releases   []struct {
		Kind    string             `json:"kind"`
		Length  int                `json:"length"`
		Bound   uint64             `json:"bound,string"`
		Sigma   uint64             `json:"sigma,string"`
		Largest uint64             `json:"largest,string"`
		Charge  accounting.NanoRho `json:"charge_nano_rho,string"`
	} `json:"releases"`
	Lattice   dp.Lattice         `json:"lattice"`
	Adjacency dp.Adjacency       `json:"adjacency"`
	Trust     string             `json:"trust"`
	NMin      int                `json:"n_min"`
	RoundSize int                `json:"round_size"`
	Deadline  int64              `json:"deadline_ms"`
	Delta     float64            `json:"delta"`
	Budget    accounting.NanoRho `json:"budget_nano_rho,string"`
}
