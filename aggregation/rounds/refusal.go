package rounds

import "fmt"

// Reason says why a command, or a client's submission, was refused.
type Reason uint8

// Reasons. The numbers are part of the wire format.
const (
	Malformed       Reason = iota + 1 // a field is out of range or does not fit the job
	UnknownJob                        // no job of that name
	JobExists                         // another job has that name
	WrongRound                        // that round or attempt is not the one that is open, or comes next
	AlreadyOpen                       // the round is open already
	NotOpen                           // the round is closed, or was never open
	Counted                           // a member is in the sum already
	Full                              // the round has no room for so many
	NoBudget                          // the charge does not fit what is left, or there were too many attempts
	NotRunning                        // the job is paused, or has no rounds left
	NotClosed                         // the round still collects
	AlreadyReleased                   // the round was released
	NotStaged                         // a blob's bytes are not all there
	WrongDigest                       // a blob's bytes have another digest
	TooMany                           // the ledger has as many records of that kind as it takes
)

// Refusal is a command that was refused. The state is as before.
type Refusal struct {
	Reason Reason
	Detail string // one line for a person
	// Counted are the indices of members that are in the sum already.
	Counted []int
	// Room is how many more the round takes, with the reason Full.
	Room int
}

var reasons = [...]string{
	Malformed:       "malformed",
	UnknownJob:      "unknown job",
	JobExists:       "job exists",
	WrongRound:      "wrong round",
	AlreadyOpen:     "already open",
	NotOpen:         "not open",
	Counted:         "counted already",
	Full:            "full",
	NoBudget:        "no budget",
	NotRunning:      "not running",
	NotClosed:       "not closed",
	AlreadyReleased: "already released",
	NotStaged:       "not staged",
	WrongDigest:     "wrong digest",
	TooMany:         "too many",
}

// String is the reason in words.
func (r Reason) String() string { return named(reasons[:], uint8(r), "Reason") }

func (r *Refusal) Error() string { return r.Reason.String() + ": " + r.Detail }

func refuse(r Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: r, Detail: fmt.Sprintf(format, args...)}
}
