package client

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// witnessed is the servers' ledger as this device last saw it, which every later
// answer must extend.
type witnessed struct {
	// Keys are public: those that were trusted, each of which led to the next, and the
	// last of which signed Note.
	Keys []string `json:"keys"`
	// Pinned says that a Config.LedgerKey is among them; otherwise the first one that
	// was shown is trusted.
	Pinned bool   `json:"pinned"`
	Note   []byte `json:"note"`
	// Fork ends all dealings with these servers until both are shown to be of one ledger.
	Fork *fork `json:"fork,omitempty"`

	checkpoint ledger.Checkpoint // that Note signs
}

const (
	// largestNote leaves room for the signatures of others beside the ledger's own.
	largestNote = 16 << 10
	// longestProof is twice what a ledger of 2^63 records takes.
	longestProof = 128
)

// open checks what was read from disk, and reads the checkpoint.
func (w *witnessed) open() (err error) {
	if len(w.Keys) == 0 {
		return ledger.ErrSignature
	}
	if w.checkpoint, err = openCheckpoint(w.Note, w.key()); err == nil && w.Fork != nil {
		w.Fork.checkpoint, err = openCheckpoint(w.Fork.Note, w.Fork.Key)
	}
	return err
}

func openCheckpoint(note []byte, key string) (ledger.Checkpoint, error) {
	verifier, err := ledger.ParseKey(key)
	if err != nil {
		return ledger.Checkpoint{}, err
	}
	return ledger.OpenCheckpoint(note, verifier)
}

// key is the one that signs now; w may be nil.
func (w *witnessed) key() string {
	if w == nil || len(w.Keys) == 0 {
		return ""
	}
	return w.Keys[len(w.Keys)-1]
}

// size is the number of records witnessed; w may be nil.
func (w *witnessed) size() int64 {
	if w == nil {
		return 0
	}
	return w.checkpoint.Size
}

// LedgerStatus is the servers' ledger as a device last saw it. Whoever has the note of
// another device, or an auditor's, can compare.
type LedgerStatus struct {
	Origin string        `json:"origin"`
	Size   int64         `json:"size"` // records
	Root   ledger.Digest `json:"root"`
	Key    string        `json:"key"` // public, that signed it
	// Pinned says that Config.LedgerKey led to the key; otherwise the first that was
	// shown is trusted.
	Pinned bool   `json:"pinned"`
	Note   string `json:"note"` // the signed checkpoint
	// Fork is the evidence of two histories, nil where there is none.
	Fork *Fork `json:"fork,omitempty"`
}

// status is for Status; w may be nil.
func (w *witnessed) status() *LedgerStatus {
	if w == nil {
		return nil
	}
	s := &LedgerStatus{
		Origin: w.checkpoint.Origin, Size: w.checkpoint.Size, Root: w.checkpoint.Root,
		Key: w.key(), Pinned: w.Pinned, Note: string(w.Note),
	}
	if f := w.Fork; f != nil {
		s.Fork = &Fork{f.Server, f.Key, string(f.Note), f.Proof, w.parts(f)}
	}
	return s
}

// follow holds what a server shows of the ledger against what was witnessed (nil:
// nothing), and returns what is witnessed from then on. pin is Config.LedgerKey.
//
// Fails with ErrLedger, and ErrOtherLedger besides where it is one of another origin; with
// ErrUnavailable besides ErrLedger or ErrBackwards where time or another node may mend it;
// or with a *ForkError: then it returns what was witnessed, with the evidence.
func (w *witnessed) follow(shown *undertonev1.Ledger, pin, server string) (*witnessed, error) {
	if len(shown.GetCheckpoint()) == 0 {
		return nil, fmt.Errorf("%w: %w: none is shown", ErrUnavailable, ErrLedger)
	}
	proof, ok := digests(shown.GetConsistency())
	if !ok || len(shown.GetCheckpoint()) > largestNote {
		return nil, fmt.Errorf("%w: it is malformed", ErrLedger)
	}
	if w == nil {
		w = new(witnessed)
	}
	next := &witnessed{Keys: w.Keys, Pinned: w.Pinned || pin != "", Note: shown.GetCheckpoint()}
	key, checkpoint, err := signer(shown, cmp.Or(w.key(), pin, strings.TrimSpace(shown.GetKey())), w.Keys...)
	if err != nil {
		if other, e := openCheckpoint(shown.GetCheckpoint(), shown.GetKey()); e == nil && w.key() != "" && other.Origin != w.checkpoint.Origin {
			err = fmt.Errorf("%w, %.64q, and this device follows %.64q: to follow that one instead, get its public key from somebody you trust, and give it as Config.LedgerKey (--ledger-key)",
				ErrOtherLedger, other.Origin, w.checkpoint.Origin)
		}
		return nil, fmt.Errorf("%w: %w", ErrLedger, err)
	}
	next.checkpoint = checkpoint
	if key != w.key() {
		next.Keys = append(slices.Clip(next.Keys), key)
	}
	if pin != "" && !slices.Contains(next.Keys, pin) {
		// Either it was the first to be trusted, or it must lead to the same key as
		// what was.
		if _, _, err := signer(shown, pin); err != nil {
			return nil, fmt.Errorf("%w: the key that is pinned: %w", ErrLedger, err)
		}
		next.Keys = slices.Insert(slices.Clone(next.Keys), 0, pin)
	}
	switch err := w.checkpoint.Follow(next.checkpoint, proof); {
	case errors.Is(err, ledger.ErrTruncated):
		return nil, fmt.Errorf("%w: %w: %d records of the ledger, after %d", ErrUnavailable, ErrBackwards, next.checkpoint.Size, w.checkpoint.Size)
	case err != nil:
		forked := w.with(&fork{Server: server, Key: key, Note: next.Note, Proof: proof, checkpoint: next.checkpoint})
		return forked, forked.forked(nil)
	case next.checkpoint == w.checkpoint && slices.Equal(next.Keys, w.Keys) && next.Pinned == w.Pinned:
		return w, nil
	}
	return next, nil
}

// signer returns the key that trusted leads to and that signed what is shown, with the
// checkpoint. former signed before trusted, and never again. Fails with the errors of
// ledger.FollowKeys and ledger.OpenCheckpoint.
func signer(shown *undertonev1.Ledger, trusted string, former ...string) (key string, c ledger.Checkpoint, err error) {
	c, err = openCheckpoint(shown.GetCheckpoint(), trusted)
	if !errors.Is(err, ledger.ErrSignature) || len(shown.GetRotations()) == 0 {
		return trusted, c, err
	}
	var rotations []*ledger.KeyRotated
	for _, record := range shown.GetRotations() {
		e, err := ledger.Decode(record)
		r, ok := e.(*ledger.KeyRotated)
		if err == nil && !ok {
			err = fmt.Errorf("%w of a rotation", ledger.ErrEntry)
		}
		if err != nil {
			return "", c, err
		}
		rotations = append(rotations, r)
	}
	last, err := ledger.FollowKeys(trusted, rotations, former...)
	if err != nil {
		return "", c, err
	}
	c, err = ledger.OpenCheckpoint(shown.GetCheckpoint(), last)
	return rotations[len(rotations)-1].Key, c, err
}

// reserves checks that the ledger has the attempt that work is offered at: charged
// before anybody was asked, with what the specification says, for the state that
// contributions are computed from. own is what this device was charged by the job, the
// attempt among it: the job cannot have spent less. Fails with ErrReservation, or with
// ErrBudget where the job spent more than it may.
func (w *witnessed) reserves(work *undertonev1.Work, spec *jobSpec, own accounting.NanoRho) error {
	proof, ok := digests(work.GetReservation().GetProof())
	record := work.GetReservation().GetRecord()
	index := work.GetReservation().GetIndex()
	if !ok || len(record) == 0 || index > math.MaxInt64 {
		return fmt.Errorf("%w: no record with its proof is shown", ErrReservation)
	}
	if err := w.checkpoint.Includes(record, int64(index), proof); err != nil {
		return fmt.Errorf("%w: %w", ErrReservation, err)
	}
	e, err := ledger.Decode(record)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrReservation, err)
	}
	r, ok := e.(*ledger.AttemptCharged)
	if !ok {
		return fmt.Errorf("%w: record %d is of another kind", ErrReservation, index)
	}
	offered := attemptKey{work.GetJob(), int(work.GetRound()), int(work.GetAttempt())}
	charge := spec.Releases[offered.round-1].Charge
	problem := ""
	switch state := ledger.Digest(work.GetStateDigest()); {
	case attemptKey{r.Job, r.Round, r.Attempt} != offered:
		problem = fmt.Sprintf("it is that of %v", attemptKey{r.Job, r.Round, r.Attempt})
	case r.Specification != ledger.Digest(spec.digest):
		problem = fmt.Sprintf("it is that of the specification %.8v, and not %.8v", r.Specification, spec.digest)
	case r.State != state:
		problem = fmt.Sprintf("it is that of the model %.8v, and not %.8v", r.State, state)
	case r.Charge != charge:
		problem = fmt.Sprintf("it charges %v, and the specification %v", r.Charge, charge)
	case r.Spent < own:
		problem = fmt.Sprintf("it says that %v are spent, and this device alone was charged %v", r.Spent, own)
	case r.Spent > spec.Budget:
		return fmt.Errorf("%w of %v: with %v, %v are spent", ErrBudget, spec.Budget, offered, r.Spent)
	default:
		return nil
	}
	return fmt.Errorf("%w: %s", ErrReservation, problem)
}

// digests reports whether a proof is a list of digests, not too long, and returns it.
func digests(proof [][]byte) (ledger.Proof, bool) {
	if len(proof) > longestProof {
		return nil, false
	}
	out := make(ledger.Proof, len(proof))
	for i, hash := range proof {
		if len(hash) != len(out[i]) {
			return nil, false
		}
		out[i] = ledger.Digest(hash)
	}
	return out, true
}
