package contract

import (
	"errors"

	"golang.org/x/mod/sumdb/note"

	"github.com/undertone-fl/undertone/dp/ledger"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// Ledger is a log with the key that signs it: as honest as the records that the test
// has in it.
type Ledger struct {
	*ledger.Log
	Key       string // public, that signs
	Rotations []*ledger.KeyRotated
	signer    note.Signer
}

const origin = "test.example/ledger"

// NewLedger begins a ledger with a key of its own.
func NewLedger() (*Ledger, error) { return NewLedgerOf(origin) }

// NewLedgerOf begins a ledger of some origin, with a key of its own.
func NewLedgerOf(origin string) (*Ledger, error) {
	secret, public, err := ledger.NewKey(origin)
	if err != nil {
		return nil, err
	}
	return BeginLedger(secret, public)
}

// BeginLedger begins a ledger with a key, which it is the same with every time.
func BeginLedger(secret, public string) (*Ledger, error) {
	signer, err := note.NewSigner(secret)
	if err != nil {
		return nil, err
	}
	l := &Ledger{Log: new(ledger.Log), Key: public, signer: signer}
	l.Append(&ledger.Begun{Origin: signer.Name(), Key: public, Format: 1}, 0)
	return l, nil
}

// First returns another ledger that has the first size records of l, and its key.
func (l *Ledger) First(size int64) (*Ledger, error) {
	log, err := ledger.Restore(l.Records()[:size])
	return &Ledger{Log: log, Key: l.Key, Rotations: l.Rotations, signer: l.signer}, err
}

// Rotate hands the ledger on to a new key, which the old one endorses, or does not.
func (l *Ledger) Rotate(endorsed bool) error {
	secret, public, err := ledger.NewKey(l.signer.Name())
	if err != nil {
		return err
	}
	next, err := BeginLedger(secret, public)
	if err != nil {
		return err
	}
	if !endorsed {
		return l.handOn(next, next.signer)
	}
	return l.handOn(next, l.signer)
}

// RotateTo hands the ledger on to the key of another one, and the old key endorses it.
func (l *Ledger) RotateTo(next *Ledger) error { return l.handOn(next, l.signer) }

func (l *Ledger) handOn(next *Ledger, by note.Signer) (err error) {
	r := &ledger.KeyRotated{Key: next.Key}
	if r.Endorsement, err = ledger.Endorse(by, next.Key); err != nil {
		return err
	}
	l.Append(r, 0)
	l.Key, l.signer, l.Rotations = next.Key, next.signer, append(l.Rotations[:len(l.Rotations):len(l.Rotations)], r)
	return nil
}

// Note is the ledger's signed checkpoint.
func (l *Ledger) Note() ([]byte, error) {
	root, err := l.Root(l.Size())
	if err != nil {
		return nil, err
	}
	return ledger.Checkpoint{Origin: l.signer.Name(), Size: l.Size(), Root: root}.Sign(l.signer)
}

// Show returns the ledger's checkpoint, for who has one of the first seen records.
func (l *Ledger) Show(seen uint64) (*undertonev1.Ledger, error) {
	signed, err := l.Note()
	if err != nil {
		return nil, err
	}
	out := &undertonev1.Ledger{Checkpoint: signed, Key: l.Key}
	for _, r := range l.Rotations {
		out.Rotations = append(out.Rotations, ledger.Encode(r))
	}
	if int64(seen) <= l.Size() {
		proof, err := l.Consistency(int64(seen), l.Size())
		if err != nil {
			return nil, err
		}
		out.Consistency = hashes(proof)
	}
	return out, nil
}

// Reservation returns the proof that a record is in the ledger.
func (l *Ledger) Reservation(index int64) (*undertonev1.Inclusion, error) {
	if index >= l.Size() {
		return nil, errors.New("there is no such record")
	}
	proof, err := l.Inclusion(index, l.Size())
	return &undertonev1.Inclusion{Record: l.Records()[index], Index: uint64(index), Proof: hashes(proof)}, err
}

func hashes(p ledger.Proof) [][]byte {
	out := make([][]byte, len(p))
	for i, d := range p {
		out[i] = d[:]
	}
	return out
}

// record appends an event to what everybody is shown, and returns its index.
func (s *Service) record(e ledger.Entry) int64 {
	var at int64
	for l := range s.ledgers() {
		at, _ = l.Append(e, 0)
	}
	return at
}

// ledgers are those that are shown to anybody.
func (s *Service) ledgers() map[*Ledger]bool {
	all := map[*Ledger]bool{}
	for _, l := range s.Shown {
		all[l] = true
	}
	if s.Ledger != nil {
		all[s.Ledger] = true
	}
	return all
}

// Fork splits the ledger: those named are shown another history from now on, in which
// somebody's measurement of a job's noise is another one.
func (s *Service) Fork(clients ...string) {
	s.t.Helper()
	s.Mu.Lock()
	defer s.Mu.Unlock()
	other, err := s.Ledger.First(s.Ledger.Size())
	if err != nil {
		s.t.Fatal(err)
	}
	s.Ledger.Append(&ledger.CanaryMeasured{Job: "taste", By: "auditor/alice", Passed: true}, 0)
	other.Append(&ledger.CanaryMeasured{Job: "taste", By: "auditor/alice", Passed: false}, 0)
	for _, name := range clients {
		s.Shown[name] = other
	}
	s.Index++
}

// Anew has everybody shown another ledger from now on, of another origin: it has the
// history of the one until now, but for the last records, and goes on from there.
func (s *Service) Anew(origin string, lost int) {
	s.t.Helper()
	s.Mu.Lock()
	defer s.Mu.Unlock()
	l, err := NewLedgerOf(origin)
	if err != nil {
		s.t.Fatal(err)
	}
	records := s.Ledger.Records()
	for _, record := range records[1 : len(records)-lost] {
		e, err := ledger.Decode(record)
		if err != nil {
			s.t.Fatal(err)
		}
		l.Append(e, 0)
	}
	s.Ledger = l
	s.Index++
}

// show adds the ledger to an answer.
func (s *Service) show(who string, seen uint64, out *undertonev1.PollResponse) (err error) {
	l := s.Ledger
	if other := s.Shown[who]; other != nil {
		l = other
	}
	if l == nil {
		return nil
	}
	if out.Ledger, err = l.Show(seen); err != nil {
		return err
	}
	for _, w := range out.GetWork() {
		if at := s.Jobs[w.GetJob()].reserved; at < l.Size() {
			if w.Reservation, err = l.Reservation(at); err != nil {
				return err
			}
		}
	}
	return nil
}
