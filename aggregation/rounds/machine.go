package rounds

import (
	"github.com/undertone-fl/undertone/dp/accounting"
)

// Machine is the state of all jobs. It serves one goroutine at a time.
type Machine struct {
	// the registry of clients, and the jobs
}

// NewMachine returns a machine without jobs or clients.
func NewMachine() *Machine { panic("rounds: to be built") }

// Apply performs a command, or refuses it with a *Refusal. The effect is the
// digest of everything that the command changed, in a canonical form: two
// machines that applied the same commands with the same effects hold the same
// state.
func (m *Machine) Apply(c Command) (effect Digest, err error) { panic("rounds: to be built") }

// JobState says whether a job's rounds may be opened.
type JobState uint8

// States of a job.
const (
	Paused    JobState = iota + 1 // no round may be opened before the next Run
	Running                       // rounds may be opened
	Finished                      // every round is released
	Exhausted                     // the budget has no room for the next attempt
)

// JobView is a job to look at. Its slices are the machine's own, and may not
// be changed; those of Spec and Released never change.
type JobView struct {
	Spec  *Spec
	Raw   Blob // Spec as it was created
	State JobState
	Until int
	// Released is the number of rounds released, and so the latest state's.
	Released int
	Latest   Blob // the latest state, with its bytes
	Spent    accounting.NanoRho
	// Attempts are all that were opened, in order; the last one may be open.
	Attempts []Attempt
}

// Phase of an attempt.
type Phase uint8

// Phases.
const (
	Collecting Phase = iota + 1
	Closed           // collected; waits for its release
	Released
	Failed
)

// Attempt is one try at a round.
type Attempt struct {
	Round, Attempt int
	Phase          Phase
	Members        int
	Charge         accounting.NanoRho
	Sum            Digest // of the packed sum, once closed
	State          Digest // of what was released
	Why            string // a failure's reason
}

// Jobs returns the names of all jobs, sorted.
func (m *Machine) Jobs() []string { panic("rounds: to be built") }

// Job returns a job, false if there is none of that name.
func (m *Machine) Job(name string) (JobView, bool) { panic("rounds: to be built") }

// Sum returns the sum of a closed attempt: one value a coordinate, in the
// lattice's centred range. nil unless the job's last attempt is Closed.
func (m *Machine) Sum(job string) []int64 { panic("rounds: to be built") }

// Member reports whether the client is in the sum of an attempt, and whether
// that is known: it is for the job's last two attempts.
func (m *Machine) Member(job string, round, attempt int, id ClientID) (in, known bool) {
	panic("rounds: to be built")
}

// Clients is the number of clients that ever took part.
func (m *Machine) Clients() int { panic("rounds: to be built") }

// Snapshot is a machine's whole state as plain data. It shares with the
// machine only what never changes, so it may be encoded while the machine goes
// on.
type Snapshot struct {
	Clients []ClientID // by number, in the order in which they first took part
	Jobs    []JobSnapshot
	Staged  []StagedBlob
}

// JobSnapshot is one job.
type JobSnapshot struct {
	Spec     []byte
	State    JobState
	Until    int
	Latest   Blob
	Attempts []Attempt
	Sum      []int64 // of the last attempt, while it is collecting or closed
	// Members of the last attempt, and of the one before: client numbers as a
	// portable Roaring bitmap.
	Members, Before []byte
}

// StagedBlob is a blob of which Bytes are there so far.
type StagedBlob struct {
	Job            string
	Round, Attempt int
	Digest         Digest
	Size           int64
	Bytes          []byte
}

// Snapshot copies what it must and takes about 20 bytes a client.
func (m *Machine) Snapshot() *Snapshot { panic("rounds: to be built") }

// Restore returns the machine of a snapshot, or an error if none can have been
// in that state.
func Restore(s *Snapshot) (*Machine, error) { panic("rounds: to be built") }
