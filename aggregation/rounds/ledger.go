package rounds

import (
	"slices"
	"unicode/utf8"

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
// now endorsed it (ledger.Endorse), and for a key that signed before. To the key that is
// there already it is no error.
type RotateKey struct {
	Key, Endorsement string
}

// CloseJob ends a job for good: its open attempt fails, and nothing more is spent on it.
// To close it again is no error.
type CloseJob struct {
	Job string
}

// RecordCanary puts a measurement of a job's noise on record. To put the job's last one
// there again is no error.
type RecordCanary struct {
	Measured ledger.CanaryMeasured // but for its Stamp
}

func (BeginLedger) command()  {}
func (RotateKey) command()    {}
func (CloseJob) command()     {}
func (RecordCanary) command() {}

// Ledger returns the ledger, nil where none was begun. It may be read until the next
// command, and its Clip for ever.
func (m *Machine) Ledger() *ledger.Log { return m.ledger }

// record appends to the ledger, if there is one.
func (m *Machine) record(e ledger.Entry) {
	if m.ledger == nil {
		return
	}
	index, record := m.ledger.Append(e, m.at)
	m.effect.record(index+1, record)
}

func (m *Machine) beginLedger(c BeginLedger) *Refusal {
	switch {
	case !validKey(c.Origin, c.Key):
		return refuse(Malformed, "%.64q is no key of %.64q", c.Key, c.Origin)
	case m.ledger != nil && m.origin != c.Origin:
		return refuse(Malformed, "the ledger of %s has begun", m.origin)
	case m.ledger != nil:
		return nil
	}
	m.ledger, m.origin, m.keys = new(ledger.Log), c.Origin, []string{c.Key}
	before := m.history()
	m.record(&ledger.Begun{Origin: c.Origin, Key: c.Key, Format: ledger.Format, History: int64(len(before))})
	for _, e := range before {
		m.record(e)
	}
	return nil
}

// history is what a ledger says first that begins now, of what there was before.
func (m *Machine) history() (all []ledger.Entry) {
	if m.era > 0 {
		all = append(all, &ledger.Restored{Era: m.era})
	}
	for _, name := range m.Jobs() {
		j := m.jobs[name]
		var first Digest
		if j.released == 0 {
			first = j.latest.Digest
		}
		all = slices.AppendSeq(all, j.history(first))
	}
	return all
}

// key is the one that signs the ledger's checkpoints now, public.
func (m *Machine) key() string { return m.keys[len(m.keys)-1] }

func (m *Machine) rotateKey(c RotateKey) *Refusal {
	switch {
	case m.ledger == nil:
		return refuse(Malformed, "there is no ledger")
	case c.Key == m.key():
		return nil
	case !m.endorsed(c.Key, c.Endorsement):
		return refuse(Malformed, "key %.64q is not endorsed by the ledger's", c.Key)
	case slices.Contains(m.keys, c.Key):
		return refuse(Malformed, "key %.64q was the ledger's before: what it endorsed then would be good again", c.Key)
	case len(m.keys) > MaxRotations:
		return refuse(TooMany, "the ledger's key was rotated %d times, and no more", MaxRotations)
	}
	m.keys = append(m.keys, c.Key)
	m.record(&ledger.KeyRotated{Key: c.Key, Endorsement: c.Endorsement})
	return nil
}

func (m *Machine) recordCanary(c RecordCanary) *Refusal {
	measured := c.Measured
	measured.Stamp = ledger.Stamp{}
	j, refusal := m.job(measured.Job)
	switch {
	case refusal != nil:
		return refusal
	case m.ledger == nil:
		return refuse(Malformed, "there is no ledger")
	case measured.Check() != nil:
		return refuse(Malformed, "%v", measured.Check())
	case j.canary == measured:
		return nil
	case j.measured == MaxMeasurements:
		return refuse(TooMany, "%d measurements of %s are on record, and no more", MaxMeasurements, measured.Job)
	}
	j.canary, j.measured = measured, j.measured+1
	m.record(&measured)
	return nil
}

// Bounds of what the ledger takes from outside. It is kept for ever, and read as a whole:
// nobody may have it grow without spending a job's budget.
const (
	MaxMeasurements = 1000 // of a job
	MaxRotations    = 1000

	maxKey         = 512  // bytes
	maxEndorsement = 2048 // bytes
)

// validKey reports whether a key is one of the log's, as its records have it.
func validKey(origin, key string) bool {
	return len(key) <= maxKey && ledger.CheckKey(origin, key) == nil
}

// endorsed reports whether the key that signs now hands on to the next.
func (m *Machine) endorsed(next, endorsement string) bool {
	if !validKey(m.origin, next) || len(endorsement) > maxEndorsement || !utf8.ValidString(endorsement) {
		return false
	}
	key, err := ledger.ParseKey(m.key())
	if err != nil {
		return false
	}
	_, err = ledger.CheckEndorsement(key, next, endorsement)
	return err == nil
}
