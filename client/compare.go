package client

import (
	"context"
	"fmt"
	"slices"

	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// comparisons is how often the ledger may be seen to grow while it is compared.
const comparisons = 10

// Compare holds a checkpoint that somebody else kept, another device or an auditor,
// against the servers' ledger: what is shown to extend that must be what is shown to
// extend this device's, to the last record. So servers that show two histories are found
// out by the first two who compare.
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
		var server string
		answer, err := s.servers.poll(s.ctx, &undertonev1.PollRequest{MinIndex: s.index, LedgerSize: uint64(theirs.size())},
			func(out *undertonev1.PollResponse, from string) (err error) {
				server = from
				if met, err = theirs.follow(out.GetLedger(), own.key(), from); met != nil {
					return nil // two histories are judged below
				}
				return err
			})
		if err != nil {
			return err
		}
		shown := answer.GetLedger()
		key, now, err := signer(shown, own.key())
		if err != nil {
			return fmt.Errorf("%w: %w", ErrLedger, err)
		}
		forked := *own
		switch {
		case now.Size != own.size():
			continue // the ledger has grown: what extends theirs may not extend ours
		case now != own.checkpoint:
			forked.Fork = &fork{Server: server, Key: key, Note: shown.GetCheckpoint(), checkpoint: now}
		case met.Fork == nil:
			return nil
		default:
			forked.Fork = &fork{Server: server, Key: theirs.key(), Note: theirs.Note, Proof: met.Fork.Proof, checkpoint: theirs.checkpoint}
		}
		next := s.record.Load().clone()
		next.Ledger = &forked
		return also(forked.forked(), s.save(next))
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
