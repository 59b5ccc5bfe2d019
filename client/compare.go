package client

import (
	"context"
	"fmt"
	"slices"

	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// comparisons is how often the ledger may grow while it is compared.
const comparisons = 10

// Compare holds a checkpoint that somebody else kept, another device or an auditor,
// against the servers' ledger: it must be of the history that this device is shown. A
// server that shows two histories is found out by the first two who compare.
//
// Fails with ErrTwoHistories if it is of another one, which ends all dealings as in Sync,
// and with the evidence in Status; with ErrLedger if no key signed it that this device
// knows; and otherwise as Sync does.
func (d *Device) Compare(ctx context.Context, note []byte) error {
	if d.cfg.Offline {
		return ErrClosed
	}
	s, end := d.begin(ctx)
	defer end()
	if err := s.record.Load().Ledger.forked(); err != nil {
		return err
	}
	for range comparisons {
		if _, err := s.look(0); err != nil {
			return err
		}
		own := s.record.Load().Ledger
		theirs, err := own.another(note)
		if err != nil {
			return err
		}
		var met *witnessed
		_, err = s.servers.poll(s.ctx, &undertonev1.PollRequest{MinIndex: s.index, LedgerSize: uint64(theirs.size())},
			func(out *undertonev1.PollResponse, from string) (err error) {
				met, err = theirs.follow(out.GetLedger(), own.key(), from)
				return err
			})
		if met == nil {
			return err
		}
		apart := met.Fork
		switch {
		case apart == nil && met.checkpoint == own.checkpoint:
			return nil
		case apart != nil && apart.checkpoint == own.checkpoint:
			forked := *own
			forked.Fork = &fork{Server: apart.Server, Key: theirs.key(), Note: theirs.Note, Proof: apart.Proof, checkpoint: theirs.checkpoint}
			next := s.record.Load().clone()
			next.Ledger = &forked
			return also(forked.forked(), s.save(next))
		}
		// The ledger has grown meanwhile: what extends theirs may not extend ours.
	}
	return fmt.Errorf("%w: the ledger grows faster than it can be compared", ErrUnavailable)
}

// another reads a checkpoint that somebody else kept, by a key that w knows. Fails with
// ErrLedger.
func (w *witnessed) another(note []byte) (*witnessed, error) {
	var err error
	for _, key := range slices.Backward(w.Keys) {
		theirs := &witnessed{Keys: []string{key}, Note: note}
		if err = theirs.open(); err == nil {
			return theirs, nil
		}
	}
	return nil, fmt.Errorf("%w: the checkpoint to compare: %w", ErrLedger, err)
}
