package canary

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/ledger"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// ErrLedger says that servers did not show one ledger, signed by its key, with what they
// ask contributions for.
var ErrLedger = errors.New("canary: the servers' ledger")

// witness is the servers' ledger as all clients of an audit saw it: what any of them is
// shown must extend what any other was. One goroutine polls, as now this client and now
// that one, and so one proof follows the other.
type witness struct {
	trusted string // public key; "" until one is shown, if none was given
	last    ledger.Checkpoint
}

// follow takes what was shown to somebody who had told the size of the last checkpoint.
// Fails with ErrLedger; with ledger.ErrTruncated besides where another node may know
// more.
func (w *witness) follow(shown *undertonev1.Ledger) error {
	next, err := w.open(shown)
	if err == nil {
		var proof ledger.Proof
		if proof, err = proofOf(shown.GetConsistency()); err == nil {
			err = w.last.Follow(next, proof)
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLedger, err)
	}
	w.last = next
	return nil
}

// open returns the checkpoint, signed by the key that is trusted or one that it handed on
// to. Where none is trusted yet, it is the one that is shown.
func (w *witness) open(shown *undertonev1.Ledger) (c ledger.Checkpoint, err error) {
	if w.trusted == "" {
		w.trusted = strings.TrimSpace(shown.GetKey())
	}
	key, err := ledger.ParseKey(w.trusted)
	if err != nil {
		return c, err
	}
	c, err = ledger.OpenCheckpoint(shown.GetCheckpoint(), key)
	if !errors.Is(err, ledger.ErrSignature) || len(shown.GetRotations()) == 0 {
		return c, err
	}
	var rotations []*ledger.KeyRotated
	for _, record := range shown.GetRotations() {
		e, err := ledger.Decode(record)
		r, ok := e.(*ledger.KeyRotated)
		if err != nil || !ok {
			return c, fmt.Errorf("%w of a rotation", ledger.ErrEntry)
		}
		rotations = append(rotations, r)
	}
	if key, err = ledger.FollowKeys(w.trusted, rotations); err != nil {
		return c, err
	}
	return ledger.OpenCheckpoint(shown.GetCheckpoint(), key)
}

// reserves holds that the ledger has the attempt that work is offered at, charged for the
// specification, as a device does before it sends. Fails with ErrLedger.
func reserves(c ledger.Checkpoint, work *undertonev1.Work, spec *rounds.Spec, raw []byte) error {
	wrong := func(err error) error {
		return fmt.Errorf("%w: the reservation of %s, round %d, attempt %d: %w", ErrLedger, work.GetJob(), work.GetRound(), work.GetAttempt(), err)
	}
	r := work.GetReservation()
	proof, err := proofOf(r.GetProof())
	if err == nil && r.GetIndex() > math.MaxInt64 {
		err = ledger.ErrNotIncluded
	}
	if err == nil {
		err = c.Includes(r.GetRecord(), int64(r.GetIndex()), proof)
	}
	var e ledger.Entry
	if err == nil {
		e, err = ledger.Decode(r.GetRecord())
	}
	if err != nil {
		return wrong(err)
	}
	charged, ok := e.(*ledger.AttemptCharged)
	switch {
	case !ok || charged.Job != work.GetJob() || charged.Round != int(work.GetRound()) || charged.Attempt != int(work.GetAttempt()):
		return wrong(errors.New("it is of something else"))
	case charged.Specification != sha256.Sum256(raw):
		return wrong(errors.New("it is of another specification"))
	case string(charged.State[:]) != string(work.GetStateDigest()):
		return wrong(errors.New("it is of another state"))
	case charged.Charge != spec.Releases[charged.Round-1].Charge:
		return wrong(fmt.Errorf("it charges %v, and the specification %v", charged.Charge, spec.Releases[charged.Round-1].Charge))
	case charged.Spent > spec.Budget:
		return wrong(fmt.Errorf("with it %v are spent, of %v", charged.Spent, spec.Budget))
	}
	return nil
}

// longestProof is twice what a ledger of 2^63 records takes.
const longestProof = 128

func proofOf(hashes [][]byte) (p ledger.Proof, err error) {
	if len(hashes) > longestProof {
		return nil, fmt.Errorf("a proof of %d hashes", len(hashes))
	}
	for _, h := range hashes {
		if len(h) != len(ledger.Digest{}) {
			return nil, fmt.Errorf("a hash of %d bytes", len(h))
		}
		p = append(p, ledger.Digest(h))
	}
	return p, nil
}
