package rounds

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// Snapshot is a machine's whole state as plain data. It shares with the
// machine only what never changes, so it may be encoded while the machine goes
// on.
type Snapshot struct {
	Clients []ClientID // by number, in the order in which they first took part
	Jobs    []JobSnapshot
	Staged  []StagedBlob
	Era     int // how often the state was taken from a backup: see Anew
	// Ledger is its records, none where it has not begun.
	Ledger [][]byte
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

// Snapshot copies the sums that are being collected and the members, a bit each;
// the registry, the states, what is staged and the ledger it shares.
func (m *Machine) Snapshot() *Snapshot {
	s := &Snapshot{Clients: slices.Clip(m.clients.order), Era: m.era}
	s.Staged = m.staged.snapshot(s.Staged)
	for _, name := range m.Jobs() {
		j := m.jobs[name]
		s.Jobs = append(s.Jobs, j.snapshot())
		s.Staged = j.staged.snapshot(s.Staged)
	}
	if m.ledger != nil {
		s.Ledger = m.ledger.Records()
	}
	return s
}

func (j *job) snapshot() JobSnapshot {
	s := JobSnapshot{
		Spec:     j.raw.Bytes,
		State:    j.state(),
		Until:    j.until,
		Latest:   j.latest,
		Attempts: slices.Clone(j.attempts),
		Sum:      j.sum,
		Members:  encodeMembers(j.members),
		Before:   encodeMembers(j.before),
	}
	if a := j.last(); a != nil && a.Phase == Collecting {
		s.Sum = slices.Clone(j.sum)
	}
	return s
}

func (s staging) snapshot(dst []StagedBlob) []StagedBlob {
	for _, b := range s {
		shared := *b
		shared.Bytes = slices.Clip(b.Bytes)
		dst = append(dst, shared)
	}
	return dst
}

func encodeMembers(members *roaring.Bitmap) []byte {
	if members == nil {
		return nil
	}
	b, err := members.ToBytes()
	if err != nil {
		panic(err) // a buffer takes what is written to it
	}
	return b
}

// Restore returns the machine of a snapshot, or an error if none can have been
// in that state. The snapshot may be restored again, but its bytes are then the
// machine's too, and may not be changed.
func Restore(s *Snapshot) (*Machine, error) {
	m := NewMachine()
	m.clients.numbers = make(map[ClientID]uint32, len(s.Clients))
	m.clients.order = slices.Clip(s.Clients)
	for n, id := range s.Clients {
		m.clients.numbers[id] = uint32(n)
	}
	if len(m.clients.numbers) != len(s.Clients) {
		return nil, errors.New("rounds: snapshot: a client has two numbers")
	}
	if m.era = s.Era; m.era < 0 || m.era > maxEra {
		return nil, fmt.Errorf("rounds: snapshot: era %d of %d", m.era, maxEra)
	}
	for _, js := range s.Jobs {
		j, err := restoreJob(js, len(s.Clients), m.era)
		if err != nil {
			return nil, fmt.Errorf("rounds: snapshot: %w", err)
		}
		name := j.spec.Job
		if m.jobs[name] != nil {
			return nil, fmt.Errorf("rounds: snapshot: two jobs %s", name)
		}
		m.jobs[name] = j
	}
	for _, b := range s.Staged {
		piece := Stage{b.Job, b.Round, b.Attempt, b.Digest, b.Size, 0, b.Bytes}
		if refusal := m.stage(piece); refusal != nil {
			return nil, fmt.Errorf("rounds: snapshot: staged for %.64q: %w", b.Job, refusal)
		}
	}
	if len(s.Ledger) > 0 {
		if err := m.restoreLedger(s.Ledger); err != nil {
			return nil, fmt.Errorf("rounds: snapshot: ledger: %w", err)
		}
	}
	staged := len(m.staged)
	for _, j := range m.jobs {
		staged += len(j.staged)
	}
	if staged != len(s.Staged) {
		return nil, fmt.Errorf("rounds: snapshot: %d staged blobs, of which %d can be", len(s.Staged), staged)
	}
	return m, nil
}

// restoreJob goes through the job's attempts as they happened, and so checks
// that they can have happened.
func restoreJob(s JobSnapshot, clients, era int) (*job, error) {
	spec, serr := parseSpec(s.Spec)
	if serr != nil {
		return nil, serr
	}
	fail := func(format string, args ...any) (*job, error) {
		return nil, fmt.Errorf("job %s: %s", spec.Job, fmt.Sprintf(format, args...))
	}
	if s.Until < 0 || s.Until > len(spec.Releases) {
		return fail("until round %d of %d", s.Until, len(spec.Releases))
	}
	if int64(len(s.Latest.Bytes)) != s.Latest.Size || sha256.Sum256(s.Latest.Bytes) != s.Latest.Digest {
		return fail("the latest state has another digest or size")
	}
	j := newJob(spec, s.Spec, s.Latest.Bytes)
	j.until = s.Until
	// A job that may open all of its rounds is never paused. Where the state says
	// something else, that is for good, and it does not matter any more.
	j.runs = s.Until > 0 || s.State != Paused
	j.closed = s.State == JobClosed
	var released Digest
	for _, a := range s.Attempts {
		j.era = max(j.era, min(a.Attempt/eraAttempts, era)) // of when it was opened
		if err := j.replay(a); err != nil {
			return fail("%v: %v", a, err)
		}
		if a.Phase == Released {
			released = a.State
		}
	}
	j.era = era
	if j.released > 0 && released != j.latest.Digest {
		return fail("the latest state is not the one released")
	}
	if last := j.last(); last != nil && last.isOpen() {
		if err := j.restoreSum(s.Sum); err != nil {
			return fail("%v: %v", *last, err)
		}
	} else if len(s.Sum) != 0 {
		return fail("a sum of no attempt")
	}
	var err error
	if j.members, err = decodeMembers(s.Members, j.attempts, 1, clients); err != nil {
		return fail("%v", err)
	}
	if j.before, err = decodeMembers(s.Before, j.attempts, 2, clients); err != nil {
		return fail("%v", err)
	}
	if j.state() != s.State {
		return fail("is %v, and should be %v", s.State, j.state())
	}
	return j, nil
}

// replay appends an attempt that was opened after those replayed before.
func (j *job) replay(a Attempt) error {
	switch {
	case j.finished():
		return errors.New("every round is released")
	case j.isOpen():
		return errors.New("another attempt is open")
	case len(j.attempts) >= maxAttempts:
		return fmt.Errorf("a job has %d attempts at most", maxAttempts)
	}
	if next := j.next(); a.Round != next.Round || a.Attempt != next.Attempt || a.Charge != next.Charge {
		return fmt.Errorf("%v comes next, with a charge of %d nano-rho", next, uint64(next.Charge))
	}
	if err := j.filter.Reserve(a.Charge); err != nil {
		return err
	}
	valid := false
	switch collected := a.Members >= j.spec.NMin && a.Members <= j.spec.RoundSize; a.Phase {
	case Collecting:
		valid = a.Members >= 0 && a.Members < j.spec.RoundSize && a.Sum == Digest{} && a.State == Digest{} && a.Why == ""
	case Closed:
		valid = collected && a.State == Digest{} && a.Why == ""
	case Released:
		valid = collected && a.Why == ""
		j.released++
	case Failed:
		valid = a.Members >= 0 && a.Members <= j.spec.RoundSize && a.State == Digest{} && validLine(a.Why)
	}
	if !valid {
		return fmt.Errorf("cannot be %v with %d members", a.Phase, a.Members)
	}
	j.attempts = append(j.attempts, a)
	return nil
}

// restoreSum takes the sum of the open attempt.
func (j *job) restoreSum(sum []int64) error {
	a := j.last()
	if want := j.current().Length; len(sum) != want {
		return fmt.Errorf("a sum of %d coordinates, want %d", len(sum), want)
	}
	j.sum = slices.Clone(sum)
	if a.Phase == Closed {
		j.spec.Lattice.Reduce(j.sum)
		if !slices.Equal(j.sum, sum) || sumDigest(sum, j.spec.Width()) != a.Sum {
			return errors.New("the sum has another digest")
		}
	}
	return nil
}

// decodeMembers reads the members of the attempt that is back from the end of
// attempts, nil if there is none.
func decodeMembers(b []byte, attempts []Attempt, back, clients int) (*roaring.Bitmap, error) {
	if len(attempts) < back {
		if len(b) != 0 {
			return nil, errors.New("members of no attempt")
		}
		return nil, nil
	}
	a := attempts[len(attempts)-back]
	members := roaring.New()
	if _, err := members.ReadFrom(bytes.NewReader(b)); err != nil {
		return nil, fmt.Errorf("members of %v: %w", a, err)
	}
	if err := members.Validate(); err != nil {
		return nil, fmt.Errorf("members of %v: %w", a, err)
	}
	if !bytes.Equal(encodeMembers(members), b) {
		return nil, fmt.Errorf("members of %v: not as they are written", a)
	}
	if n := members.GetCardinality(); n != uint64(a.Members) || n > 0 && int(members.Maximum()) >= clients {
		return nil, fmt.Errorf("members of %v: %d of %d clients, want %d", a, n, clients, a.Members)
	}
	return members, nil
}
