package client

import (
	"errors"
	"fmt"

	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// What the functions of this package return matches one of these, a *ConfigError,
// a *RowError, an error of package local, or an error of the operating system
// that names the file.
var (
	// ErrCap says that a contribution would disclose more than Config.Cap allows.
	ErrCap = errors.New("beyond the device's cap")
	// ErrBudget says that the servers ask for more attempts at a job than the budget
	// in its specification pays for. Honest ones stop before.
	ErrBudget = errors.New("beyond the job's own budget")
	// ErrSpec says that a job's specification is malformed, or claims what a
	// recomputation does not confirm.
	ErrSpec = errors.New("the job's specification does not hold")
	// ErrDeclined says that Config.Trust or Config.Accept refused a job.
	ErrDeclined = errors.New("the job was declined")
	// ErrDigest says that bytes are not those that were announced, or no state
	// of their job.
	ErrDigest = errors.New("not what was announced")
	// ErrTooLarge says that a model is larger than a device takes, 256 MiB.
	ErrTooLarge = errors.New("too large for a device")
	// ErrTwoHistories says that a server shows another specification or another
	// model than was seen before under the same name and version: one of the two
	// histories is false, and the device takes no part in the job. As the error of
	// Sync, a *ForkError, it is about the servers' ledger.
	ErrTwoHistories = errors.New("the servers show two histories")
	// ErrBackwards says that a server shows an earlier round, or fewer records of
	// the ledger, than were seen before.
	ErrBackwards = errors.New("the servers show less than before")
	// ErrLedger says that a server shows no ledger, or none that was signed with the
	// key that this device follows.
	ErrLedger = errors.New("no ledger to rely on")
	// ErrOtherLedger says that servers show a ledger of another origin than the one
	// that this device follows. It is for its owner to leave that: Config.LedgerKey.
	ErrOtherLedger = errors.New("the servers show another one")
	// ErrReservation says that the ledger has no charge for the attempt, or another
	// one than the specification says.
	ErrReservation = errors.New("the attempt is not reserved in the ledger")
	// ErrOver says that the attempt ended before the contribution was counted.
	ErrOver = errors.New("the round is over")
	// ErrElsewhere says that a contribution under this identity is counted that
	// this directory knows nothing of.
	ErrElsewhere = errors.New("this identity contributed from another directory")
	// ErrRejected says that a server took the contribution, or another request,
	// for one that no honest device sends.
	ErrRejected = errors.New("rejected by the server")
	// ErrForbidden says that the certificate is none of a client's.
	ErrForbidden = errors.New("the certificate may not do this")
	// ErrUnknownJob says that the servers have no job of that name.
	ErrUnknownJob = errors.New("no such job")
	// ErrUnavailable says that no server answered in time. What was to be sent is
	// kept, and sent by the next Sync.
	ErrUnavailable = errors.New("no server is available")

	// ErrCorrupt says that a file is damaged.
	ErrCorrupt = errors.New("damaged file")
	// ErrVersion says that a file is of a later version of this package.
	ErrVersion = errors.New("file of a later version")
	// ErrLocked says that another Device, of this process or another, has the
	// directory open.
	ErrLocked = errors.New("directory in use")
	// ErrIdentity says that the directory belongs to another identity.
	ErrIdentity = errors.New("directory of another identity")
	// ErrNoModel says that there is nothing to predict from yet.
	ErrNoModel = errors.New("no model yet")
	// ErrClosed says that the Device was closed, or opened Offline.
	ErrClosed = errors.New("not open for syncing")
)

// ForGood reports whether what a Sync failed with does not pass by itself: ErrClosed,
// ErrForbidden, ErrOtherLedger, and ErrTwoHistories unless it is a *ForkError that the
// servers were not asked about yet, or could not be.
func ForGood(err error) bool {
	if fork := (*ForkError)(nil); errors.As(err, &fork) {
		return fork.Proven || fork.Again != nil && !errors.Is(fork.Again, ErrUnavailable)
	}
	for _, e := range []error{ErrClosed, ErrForbidden, ErrOtherLedger, ErrTwoHistories} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// ConfigError is a mistake in a Config.
type ConfigError struct{ Field, Problem string }

func (e *ConfigError) Error() string { return e.Field + ": " + e.Problem }

// RefusedError is a server's answer that is no. It matches ErrOver, ErrRejected,
// ErrForbidden, ErrUnknownJob or ErrUnavailable.
type RefusedError struct {
	Reason undertonev1.Reason
	Detail string
	// Counted says whether this device is in the sum all the same; nil where
	// that is not known.
	Counted *bool
}

func (e *RefusedError) Error() string {
	reason := reasonText(e.Reason)
	if e.Detail == "" {
		return reason
	}
	return fmt.Sprintf("%s: %s", reason, e.Detail)
}

func (e *RefusedError) Unwrap() error {
	switch e.Reason {
	case undertonev1.Reason_REASON_NOT_OPEN, undertonev1.Reason_REASON_WRONG_ROUND, undertonev1.Reason_REASON_ALREADY_RELEASED,
		undertonev1.Reason_REASON_FULL, undertonev1.Reason_REASON_NOT_RUNNING, undertonev1.Reason_REASON_SUPERSEDED,
		undertonev1.Reason_REASON_COUNTED:
		return ErrOver
	case undertonev1.Reason_REASON_UNKNOWN_JOB:
		return ErrUnknownJob
	case undertonev1.Reason_REASON_FORBIDDEN:
		return ErrForbidden
	case undertonev1.Reason_REASON_RATE_LIMITED, undertonev1.Reason_REASON_OVERLOADED, undertonev1.Reason_REASON_NO_LEADER,
		undertonev1.Reason_REASON_BEHIND, undertonev1.Reason_REASON_DIVERGED, undertonev1.Reason_REASON_CORRUPT,
		undertonev1.Reason_REASON_NO_KEY:
		return ErrUnavailable
	}
	return ErrRejected
}
