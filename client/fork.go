package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/undertone-fl/undertone/dp/ledger"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// fork is another checkpoint that the ledger's key signed, and that was not shown to be of
// one ledger with the one witnessed.
type fork struct {
	Server string       `json:"server"`
	Key    string       `json:"key"` // public, that signed Note
	Note   []byte       `json:"note"`
	Proof  ledger.Proof `json:"proof"` // that failed

	checkpoint ledger.Checkpoint // that Note signs
}

// Fork is a checkpoint that the ledger's key signed, and that a server did not show to
// be of the same ledger as the one seen before.
type Fork struct {
	// Server is its address; empty if somebody else's checkpoint was compared.
	Server string `json:"server"`
	Key    string `json:"key"` // public, that signed it
	Note   string `json:"note"`
	// Proof is what the server gave: it does not prove that the longer extends the
	// shorter.
	Proof ledger.Proof `json:"proof"`
	// Proven is ForkError.Proven.
	Proven bool `json:"proven"`
}

// ForkError says that the ledger's key signed two checkpoints that were not shown to be
// of one ledger: a server answered wrongly, or there are two histories, of which each is
// shown to some. Until that is known nothing is sent. It matches ErrTwoHistories, and the
// evidence is in Status.
//
// Every Sync asks the servers for one ledger that extends both, and only that clears it.
type ForkError struct {
	Server      string // that showed the other, empty if it was given to Compare
	Kept, Other int64  // records that the two are of
	// Proven says that they are of one size and differ: no ledger extends both, and
	// nobody is asked any more.
	Proven bool
	// Again is why there was no such ledger when the servers were asked; nil if they were
	// not yet. It matches ErrUnavailable where they could not be.
	Again error
}

func (e *ForkError) Error() string {
	switch {
	case e.Proven:
		return fmt.Sprintf("%v: of the ledger's first %d records, both signed, the other from %s: that is proof, and nothing is sent under this ledger any more",
			ErrTwoHistories, e.Kept, cmp.Or(e.Server, "elsewhere"))
	case e.Again != nil:
		return fmt.Sprintf("%v: that of %d records and that of %d, both signed; asked for one that extends both: %v", ErrTwoHistories, e.Kept, e.Other, e.Again)
	}
	return fmt.Sprintf("%v: that of %d records and that of %d from %s, both signed, are not shown to be of one ledger; nothing is sent before one is shown that extends both",
		ErrTwoHistories, e.Kept, e.Other, cmp.Or(e.Server, "elsewhere"))
}

func (e *ForkError) Unwrap() []error {
	if e.Again == nil {
		return []error{ErrTwoHistories}
	}
	return []error{ErrTwoHistories, e.Again}
}

// forked returns the *ForkError of a fork that was witnessed, nil without one; w may be
// nil.
func (w *witnessed) forked(again error) error {
	if w == nil || w.Fork == nil {
		return nil
	}
	return &ForkError{w.Fork.Server, w.checkpoint.Size, w.Fork.checkpoint.Size, w.parts(w.Fork), again}
}

// parts reports whether no ledger extends both: they are of one size, and differ.
func (w *witnessed) parts(f *fork) bool {
	return w.checkpoint.Size == f.checkpoint.Size && w.checkpoint.Root != f.checkpoint.Root
}

// with returns w with the evidence of a fork, or without.
func (w *witnessed) with(f *fork) *witnessed {
	next := *w
	next.Fork = f
	return &next
}

// rejoin clears a fork on record, if the servers show one ledger that extends both of its
// checkpoints. Fails with a *ForkError while they do not.
func (s *syncing) rejoin() error {
	before := s.record.Load()
	w := before.follows(s.cfg.LedgerKey)
	if w == nil || w.Fork == nil || w.parts(w.Fork) {
		return w.forked(nil)
	}
	next, err := s.join(w.with(nil), w.Fork)
	switch {
	case s.ctx.Err() != nil:
		return context.Cause(s.ctx)
	case next == nil:
		return w.forked(err)
	case err != nil && !next.parts(next.Fork):
		return err // with the evidence that is on record already
	}
	if err := also(err, s.save(before.witness(next))); err != nil {
		return err
	}
	s.log.Info("one ledger was shown that extends both checkpoints", "records", next.size())
	return nil
}

// comparisons is how often the ledger may be seen to grow while two checkpoints are held
// against it.
const comparisons = 10

// apartError says which server shows no ledger that extends two checkpoints. Another may.
type apartError struct{ server string }

func (e *apartError) Error() string { return e.server + " shows none" }
func (e *apartError) Unwrap() error { return ErrLedger }

// join asks one server after another for a ledger that extends both own and other, and
// returns it as what own follows. If none shows one, or what is shown proves that there is
// none, it fails with a *ForkError, and returns own, or what extends it, with the evidence.
// Where the servers could not be asked it returns nil, and fails as servers.call does.
func (s *syncing) join(own *witnessed, other *fork) (next *witnessed, err error) {
	if own.parts(other) {
		next = own.with(other)
		return next, next.forked(nil)
	}
	theirs := &witnessed{Keys: []string{other.Key}, Note: other.Note, checkpoint: other.checkpoint}
	evidence := *other
	var apart, grows error
	err = s.servers.call(s.ctx, try, func(ctx context.Context, n node) error {
		for range comparisons {
			mine, a, err := s.shown(ctx, n, own, s.cfg.LedgerKey)
			if err != nil {
				return err
			}
			met, b, err := s.shown(ctx, n, theirs, own.key())
			if err != nil {
				return err
			}
			for _, kept := range []*witnessed{own, mine} {
				for _, f := range []*fork{other, a, b} {
					if kept != nil && kept.parts(f) {
						next = kept.with(f)
						return nil
					}
				}
			}
			switch {
			case met == nil:
				evidence.Proof = b.Proof
				fallthrough
			case mine == nil:
				apart = &apartError{n.address}
				return apart
			case mine.checkpoint == met.checkpoint && mine.key() == met.key():
				next = mine
				return nil
			}
		}
		grows = fmt.Errorf("%w: the ledger grows faster than it can be compared", ErrUnavailable)
		return nil
	})
	switch {
	case next != nil:
		return next, next.forked(nil)
	case err == nil:
		return nil, grows
	case apart != nil && s.ctx.Err() == nil:
		next = own.with(&evidence)
		return next, next.forked(apart)
	}
	return nil, err
}

// shown asks a server for a ledger that extends w. Returns what is witnessed by it, nil if
// it does not extend w, and the checkpoint itself.
func (s *syncing) shown(ctx context.Context, n node, w *witnessed, pin string) (next *witnessed, shown *fork, err error) {
	out, err := n.poll(ctx, &undertonev1.PollRequest{MinIndex: s.index, LedgerSize: uint64(w.size())})
	if err != nil {
		return nil, nil, err
	}
	next, err = w.follow(out.GetLedger(), pin, n.address)
	switch {
	case errors.Is(err, ErrTwoHistories):
		return nil, next.Fork, nil
	case err != nil:
		return nil, nil, err
	}
	return next, &fork{Server: n.address, Key: next.key(), Note: next.Note, checkpoint: next.checkpoint}, nil
}
