package rounds

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
)

// Why the machine itself fails an attempt. The ledger has the words for ever.
const (
	whyTooFew      = "%d contributions of %d"
	whyJobClosed   = "the job was closed"
	whyNotInBackup = "a backup leaves out what an open attempt had collected"
	whyRestored    = "the state was restored from a backup"
)

// jobCreated is the record of the job itself, with the state before its first release.
func (j *job) jobCreated(first Digest) ledger.Entry {
	return &ledger.JobCreated{
		Job: j.spec.Job, Specification: ledger.Digest(j.raw.Digest),
		State: ledger.Digest(first), Budget: j.spec.Budget,
	}
}

// attemptCharged is the record of an attempt that opens, from a state.
func (j *job) attemptCharged(a *Attempt, state Digest, spent accounting.NanoRho) ledger.Entry {
	return &ledger.AttemptCharged{
		Job: j.spec.Job, Round: a.Round, Attempt: a.Attempt,
		Specification: ledger.Digest(j.raw.Digest), State: ledger.Digest(state), Charge: a.Charge, Spent: spent,
	}
}

// attemptEnded is the record of what became of an attempt that is no longer open.
func (j *job) attemptEnded(a *Attempt) ledger.Entry {
	if a.Phase == Failed {
		// Reasons are older than the ledger, and may have what its lines may not.
		return &ledger.Failed{Job: j.spec.Job, Round: a.Round, Attempt: a.Attempt, Members: a.Members, Why: ledger.OneLine(a.Why)}
	}
	r := &j.spec.Releases[a.Round-1]
	return &ledger.Released{
		Job: j.spec.Job, Round: a.Round, Attempt: a.Attempt, Members: a.Members,
		Sum: ledger.Digest(a.Sum), State: ledger.Digest(a.State),
		Mechanism: ledger.Mechanism{
			Length: r.Length, Clip: r.Bound, Sigma: uint64(r.Sigma),
			ScaleBits: j.spec.Lattice.ScaleBits, ModulusBits: j.spec.Lattice.ModulusBits,
			NMin: j.spec.NMin, Adjacency: j.spec.Adjacency, Trust: string(j.spec.Trust), Sampler: ledger.SamplerNone,
		},
		Charge: a.Charge,
	}
}

// jobClosed is the record of a job on which nothing more is spent.
func (j *job) jobClosed() ledger.Entry {
	return &ledger.JobClosed{Job: j.spec.Job, Released: j.released, Spent: j.filter.Spent()}
}

// history is every record of the job that its state implies, in order: what a ledger
// that was there from the job's beginning has of it, given the state before its first
// release, but for measurements.
func (j *job) history(first Digest) iter.Seq[ledger.Entry] {
	return func(yield func(ledger.Entry) bool) {
		if !yield(j.jobCreated(first)) {
			return
		}
		state := first
		var spent accounting.NanoRho
		for i := range j.attempts {
			a := &j.attempts[i]
			spent += a.Charge // below the budget
			if !yield(j.attemptCharged(a, state, spent)) {
				return
			}
			if a.isOpen() {
				break // it is the last
			}
			if !yield(j.attemptEnded(a)) {
				return
			}
			if a.Phase == Released {
				state = a.State
			}
		}
		if j.closed || j.finished() {
			yield(j.jobClosed())
		}
	}
}

// restoreLedger takes the ledger of a snapshot, if it is that of the machine's state:
// if the records of each job are its history, all of it and nothing else. It writes the
// records anew, so that none can say what the state does not.
func (m *Machine) restoreLedger(records [][]byte) error {
	m.ledger = new(ledger.Log)
	c := comparison{m: m, left: make(map[string][]ledger.Entry)}
	for i, record := range records {
		read, err := ledger.Decode(record)
		var expected ledger.Entry
		if err == nil {
			expected, err = c.expect(read)
		}
		if err == nil {
			if _, written := m.ledger.Append(expected, read.At()); !bytes.Equal(written, record) {
				err = fmt.Errorf("is %.512s, and should be %s", record, written)
			}
		}
		if err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
	}
	for _, name := range m.Jobs() {
		if left, created := c.left[name]; !created || len(left) > 0 {
			return fmt.Errorf("job %s: records are missing", name)
		}
	}
	switch {
	case c.era != m.era:
		return fmt.Errorf("of era %d, and the state of %d", c.era, m.era)
	case m.ledger.Size() <= c.begun.History:
		return fmt.Errorf("breaks off within its beginning, of %d records", c.begun.History)
	}
	return nil
}

// comparison holds a ledger against the state, record by record.
type comparison struct {
	m     *Machine
	begun ledger.Begun
	left  map[string][]ledger.Entry // of each job's history, once it was created
	era   int
}

// wasThere reports whether the record says what there was before the ledger began.
func (c *comparison) wasThere() bool {
	return c.m.ledger.Size() > 0 && c.m.ledger.Size() <= c.begun.History
}

// expect returns the entry that the state expects where e was read, but for its time;
// e itself where the state does not know.
func (c *comparison) expect(e ledger.Entry) (ledger.Entry, error) {
	m := c.m
	if _, begun := e.(*ledger.Begun); begun != (m.ledger.Size() == 0) {
		return nil, errors.New("a ledger begins once, and with its first record")
	}
	if c.wasThere() && e.At() != c.begun.Time {
		return nil, errors.New("the beginning of a ledger has one time")
	}
	switch e := e.(type) {
	case *ledger.Begun:
		if !validKey(e.Origin, e.Key) || e.Format != ledger.Format || e.History < 0 {
			return nil, errors.New("no ledger begins so")
		}
		m.origin, m.keys, c.begun = e.Origin, []string{e.Key}, *e
	case *ledger.KeyRotated:
		if c.wasThere() || slices.Contains(m.keys, e.Key) || !m.endorsed(e.Key, e.Endorsement) || len(m.keys) > MaxRotations {
			return nil, errors.New("no next key")
		}
		m.keys = append(m.keys, e.Key)
	case *ledger.Restored:
		late := c.wasThere() && m.ledger.Size() == 1 // the eras before are not on record
		if e.Era != c.era+1 && !late || c.wasThere() != late || e.Era <= c.era || e.Era > m.era {
			return nil, fmt.Errorf("era %d, after %d and up to %d", e.Era, c.era, m.era)
		}
		c.era = e.Era
	case *ledger.CanaryMeasured:
		j := m.jobs[e.Job]
		measured := *e
		measured.Stamp = ledger.Stamp{}
		if _, created := c.left[e.Job]; !created || c.wasThere() || j.canary == measured || measured.Check() != nil || j.measured == MaxMeasurements {
			return nil, errors.New("no such measurement is recorded")
		}
		j.canary, j.measured = measured, j.measured+1
	case *ledger.JobCreated:
		j := m.jobs[e.Job]
		if _, twice := c.left[e.Job]; twice || j == nil {
			return nil, fmt.Errorf("job %.64q is not there, or twice", e.Job)
		}
		if e.State == (ledger.Digest{}) && !c.wasThere() {
			return nil, fmt.Errorf("job %.64q has no state", e.Job)
		}
		first := j.latest.Digest
		if j.released > 0 { // the state does not know any more
			first = Digest(e.State)
		}
		c.left[e.Job] = slices.Collect(j.history(first))
		return c.next(e.Job)
	case *ledger.AttemptCharged:
		if e.State == (ledger.Digest{}) && !c.wasThere() {
			return nil, fmt.Errorf("%v of job %.64q has no state", Attempt{Round: e.Round, Attempt: e.Attempt}, e.Job)
		}
		return c.next(e.Job)
	case *ledger.Released:
		return c.next(e.Job)
	case *ledger.Failed:
		return c.next(e.Job)
	case *ledger.JobClosed:
		return c.next(e.Job)
	}
	return e, nil
}

// next is what comes next in a job's history.
func (c *comparison) next(job string) (ledger.Entry, error) {
	left := c.left[job]
	if len(left) == 0 {
		return nil, fmt.Errorf("nothing of it happened to job %.64q", job)
	}
	c.left[job] = left[1:]
	return left[0], nil
}
