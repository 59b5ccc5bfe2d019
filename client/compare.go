package client

import (
	"context"
	"fmt"
	"slices"
)

// Compare holds a checkpoint that somebody else kept, another device or an auditor,
// against the servers' ledger: one that extends both that and what this device saw must
// be shown. So servers that show two histories are found out by the first two who compare.
//
// Fails with a *ForkError if none is: it is on record as if Sync had met it, the evidence
// in Status; with ErrLedger if no key signed it that this device knows; and
// otherwise as Sync does.
func (d *Device) Compare(ctx context.Context, note []byte) error {
	if d.cfg.Offline {
		return ErrClosed
	}
	s, end := d.begin(ctx)
	defer end()
	if err := s.rejoin(); err != nil {
		return err
	}
	if _, err := s.look(0); err != nil {
		return err
	}
	known := s.record.Load()
	other, err := known.Ledger.another(note)
	if err != nil {
		return err
	}
	next, err := s.join(known.Ledger, other)
	switch {
	case s.ctx.Err() != nil:
		return context.Cause(s.ctx)
	case next == nil:
		return err
	}
	return also(err, s.save(known.witness(next)))
}

// another reads a checkpoint that somebody else kept, by a key that w knows. Fails with
// ErrLedger.
func (w *witnessed) another(note []byte) (*fork, error) {
	var err error
	for _, key := range slices.Backward(w.Keys) {
		other := &fork{Key: key, Note: note}
		if other.checkpoint, err = openCheckpoint(note, key); err == nil {
			return other, nil
		}
	}
	return nil, fmt.Errorf("%w: the checkpoint to compare: %w", ErrLedger, err)
}
