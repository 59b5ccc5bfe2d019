package ledger

import (
	"fmt"
	"sort"

	"github.com/undertone-fl/undertone/dp/accounting"
)

// History is what a verified ledger tells.
type History struct {
	Checkpoint Checkpoint
	Key        string // that signed it, public
	Rotations  int
	Began      int64 // milliseconds since 1970
	Last       int64
	Before     int64   // records after the first that say what there was before the ledger began
	Jobs       []*Job  // in the order of their creation
	Restored   []int64 // indices of records after which a backup was taken up

	// Doubts are what cannot be refused, as an honest ledger might have it, and ought to
	// be known.
	Doubts []Doubt

	times []int64 // of the records; they never go back
}

// DatedAfter returns how many records, all at the end, are dated after a time in
// milliseconds since 1970. A time is the word of one server's clock, and later records
// cannot have an earlier one: where some are dated after the reader's own now, one clock
// was ahead, and the times from the first of them on say nothing but the order.
func (h *History) DatedAfter(at int64) int {
	first := sort.Search(len(h.times), func(i int) bool { return h.times[i] > at })
	return len(h.times) - first
}

// Doubt is something in a record that a reader should ask about.
type Doubt struct {
	Record  int64
	Job     string
	Problem string // one line
}

func (d Doubt) String() string {
	return fmt.Sprintf("record %d (job %s): %s", d.Record, d.Job, d.Problem)
}

// Job is one job's history.
type Job struct {
	Name          string
	Record        int64 // JobCreated
	Created       int64 // milliseconds since 1970
	Specification Specification
	Digest        Digest // of Raw
	Raw           []byte // the specification's bytes
	State         Digest // before the first release; zero: from before the ledger, and unknown
	Attempts      []Attempt
	Spent         accounting.NanoRho
	Released      int // rounds
	Closed        bool
	End           int64 // JobClosed; -1: not closed
	Ended         int64
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
