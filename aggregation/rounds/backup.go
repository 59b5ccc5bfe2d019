package rounds

import (
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
func Anew(s *Snapshot, at int64) (*Snapshot, error) {
	m, err := Restore(s)
	if err != nil {
		return nil, err
	}
	if m.era == maxEra {
		return nil, fmt.Errorf("rounds: restored %d times, and no more", maxEra)
	}
	m.era++
	m.at = at
	m.abandon(whyRestored)
	m.record(&ledger.Restored{Era: m.era})
	for _, j := range m.jobs {
		j.era = m.era
		j.runs, j.until = false, 0
	}
	return m.Snapshot(), nil
}

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
