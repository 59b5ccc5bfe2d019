package rounds

import (
	"github.com/undertone-fl/undertone/dp/ledger"
)

// Dated is a command and when it was proposed, in milliseconds since 1970, by the
// proposer's clock. It is the one thing from outside that the ledger's records say; no
// decision depends on it.
type Dated struct {
	At int64
	Command
}

// BeginLedger begins the ledger, which records all jobs from then on, and first what was
// there before it. A machine without a ledger records nothing: it is one of before there
// were ledgers. To begin it again with the same origin is no error.
type BeginLedger struct {
	Origin, Key string // see ledger.Begun
}

// RotateKey hands the ledger on to another key. It is refused unless the key that signs
// now endorsed it (ledger.Endorse). To the key that is there already it is no error.
type RotateKey struct {
	Key, Endorsement string
}

// CloseJob ends a job for good: its open attempt fails, and nothing more is spent on it.
// To close it again is no error.
type CloseJob struct {
	Job string
}

// RecordCanary puts a measurement of a job's noise on record.
type RecordCanary struct {
	Measured ledger.CanaryMeasured
}

func (BeginLedger) command()  {}
func (RotateKey) command()    {}
func (CloseJob) command()     {}
func (RecordCanary) command() {}

// Ledger returns the ledger, nil where none was begun. It may be read until the next
// command, and its Clip for ever.
func (m *Machine) Ledger() *ledger.Log { panic("rounds: to be built") }
