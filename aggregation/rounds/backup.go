package rounds

import (
	"errors"
	"fmt"

	"github.com/undertone-fl/undertone/dp/ledger"
)

// A state that is taken from a backup is older than what was seen of it: after
// the backup attempts were opened, and clients may have contributed to them. Each
// time begins an era, whose attempts have numbers of their own, so that an attempt
// is never taken for another one of the same round.
const (
	eraAttempts = 1_000_000 // above maxAttempts
	maxEra      = 2000      // so that an attempt's number fits an int of 32 bits
)

// Backup returns what of a snapshot may be taken out of a cluster. Attempts that
// were open are failed in it, without their sums and members: the sums of two
// backups would differ by what the few clients sent that came between them, whose
// few shares of noise hide little.
func Backup(s *Snapshot) (*Snapshot, error) {
	m, err := Restore(s)
	if err != nil {
		return nil, err
	}
	m.abandon(whyNotInBackup)
	return m.Snapshot(), nil
}

// Anew returns the snapshot that a new cluster begins with, out of one that was
// taken from a cluster that may have gone on after it. Attempts that were open are
// failed, every job is paused, and the numbers of further attempts are above all
// that the old cluster can have opened. What it spent and released after the
// snapshot nobody here can know: a job of which that may be wants a person's
// decision. The ledger goes on with a record that says so, of the time at, in
// milliseconds since 1970.
//
// Whoever saw more of the ledger than the snapshot has takes what goes on for a second
// history, and is right. With another, the ledger is left behind, and that one begins
// instead, with the whole history of the jobs but for measurements: nobody can take it for
// the same, nor for one that extends it. Fails if it is of the same origin.
func Anew(s *Snapshot, at int64, another *BeginLedger) (*Snapshot, error) {
	m, err := Restore(s)
	if err != nil {
		return nil, err
	}
	if m.era == maxEra {
		return nil, fmt.Errorf("rounds: restored %d times, and no more", maxEra)
	}
	if another != nil {
		if m.ledger != nil && m.origin == another.Origin {
			return nil, fmt.Errorf("rounds: %w than %.64q", ErrSameOrigin, m.origin)
		}
		m.ledger = nil
	}
	m.era++
	m.at = min(at, ledger.MaxTime)
	m.abandon(whyRestored)
	m.record(&ledger.Restored{Era: m.era})
	for _, j := range m.jobs {
		j.era = m.era
		j.runs, j.until = false, 0
	}
	if another != nil {
		if refusal := m.beginLedger(*another); refusal != nil {
			return nil, fmt.Errorf("rounds: %w", refusal)
		}
	}
	return m.Snapshot(), nil
}

// ErrSameOrigin says that a ledger has the name of the one that it is to take the place
// of: there would be two histories.
var ErrSameOrigin = errors.New("the new ledger needs another origin")

// abandon fails every open attempt and forgets what it had collected.
func (m *Machine) abandon(why string) {
	for _, name := range m.Jobs() {
		j := m.jobs[name]
		if !j.isOpen() {
			continue
		}
		a := j.last()
		a.Members, a.Sum = 0, Digest{}
		j.members.Clear()
		m.fail(j, why)
	}
}
