package rounds

import "math"

// Command is a transition that Machine.Apply performs or refuses.
type Command interface{ command() }

// CreateJob makes a job. State is the method's state 0, before any release.
// Creating a job again with the same spec and state is no error.
type CreateJob struct {
	Spec  []byte // see ParseSpec
	State Blob
}

// Run lets rounds up to Until be opened; 0 is all of them, NoRound none before
// the next Run. A round that is open goes on to its end.
type Run struct {
	Job   string
	Until int
}

// NoRound pauses a job: Run.Until, when no further attempt may be opened.
const NoRound = math.MaxInt32

// OpenRound reserves the round's charge and begins to collect. Round is the
// number of releases so far plus 1; Attempt one more than the attempts at this
// round before.
type OpenRound struct {
	Job            string
	Round, Attempt int
}

// Stage puts a piece of a large blob where a later command finds it by its
// digest. Pieces come in order of their offset; one that is there already is no
// error, and one that differs from what is there replaces it. While an attempt
// collects, its sums can be staged; once it is closed, the state after it. What
// was staged for an attempt goes when the attempt ends, or when too much is.
type Stage struct {
	Job            string
	Round, Attempt int // 0, 0: of no attempt, for CreateJob
	Digest         Digest
	Size, Offset   int64
	Piece          []byte
}

// Collect adds the contributions of the members, whose sum is given as
// aggregation.Pack writes it. It is one unit: all members are added or, with
// the reason Counted or Full, none.
type Collect struct {
	Job            string
	Round, Attempt int
	Members        []ClientID // distinct
	Sum            Blob
}

// CloseRound ends collecting: at the deadline, or by an operator. With fewer
// than NMin members the attempt fails. A round that reaches RoundSize closes
// by itself.
type CloseRound struct {
	Job            string
	Round, Attempt int
}

// ReleaseRound publishes the next state. The first one wins.
type ReleaseRound struct {
	Job            string
	Round, Attempt int
	State          Blob
}

// MaxWhy bounds FailRound.Why.
const MaxWhy = 1024 // bytes

// FailRound gives an attempt up: what it collected is dropped, what it was
// charged stays spent.
type FailRound struct {
	Job            string
	Round, Attempt int
	Why            string // one line, up to MaxWhy bytes of UTF-8
}

func (CreateJob) command()    {}
func (Run) command()          {}
func (OpenRound) command()    {}
func (Stage) command()        {}
func (Collect) command()      {}
func (CloseRound) command()   {}
func (ReleaseRound) command() {}
func (FailRound) command()    {}
