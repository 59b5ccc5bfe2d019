package rounds

import (
	"fmt"

	"github.com/undertone-fl/undertone/dp/accounting"
)

// JobState says whether a job's rounds may be opened.
type JobState uint8

// States of a job.
const (
	Paused    JobState = iota + 1 // no round may be opened before the next Run
	Running                       // rounds may be opened
	Finished                      // every round is released
	Exhausted                     // the budget has no room for the next attempt, or there were too many
	JobClosed                     // somebody closed it for good
)

var jobStates = [...]string{Paused: "paused", Running: "running", Finished: "finished", Exhausted: "exhausted", JobClosed: "closed"}

func (s JobState) String() string { return named(jobStates[:], uint8(s), "JobState") }

// named is the name of value v of a type.
func named(names []string, v uint8, typeName string) string {
	if int(v) < len(names) && names[v] != "" {
		return names[v]
	}
	return fmt.Sprintf("%s(%d)", typeName, v)
}

// JobView is a job to look at. Its slices are the machine's own, and may not
// be changed. Those of Spec, Raw and Latest never change; Attempts is good until
// the next command.
type JobView struct {
	Spec  *Spec
	Raw   Blob // Spec as it was created
	State JobState
	Until int // as Run gave it; 0 with NoRound
	// Released is the number of rounds released, and so the latest state's.
	Released int
	Latest   Blob // the latest state, with its bytes
	Spent    accounting.NanoRho
	// Attempts are all that were opened, in order; the last one may be open.
	Attempts []Attempt
	// Next is the number of the attempt that comes next: at the round after those
	// released, once no attempt is open.
	Next int
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

var phases = [...]string{Collecting: "collecting", Closed: "closed", Released: "released", Failed: "failed"}

func (p Phase) String() string { return named(phases[:], uint8(p), "Phase") }

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

func (a Attempt) String() string { return fmt.Sprintf("attempt %d of round %d", a.Attempt, a.Round) }

func (a Attempt) isOpen() bool { return a.Phase == Collecting || a.Phase == Closed }
