package ingest

import (
	"context"
	"hash/crc32"
	"sync"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/server/refusal"
)

// Submit takes a whole contribution, and returns when it is committed. It owns
// payload from then on.
func (in *Ingest) Submit(ctx context.Context, h Header, payload []byte) (Receipt, error) {
	t, got, err := in.admit(ctx, &h)
	if err != nil {
		return Receipt{}, err
	}
	if got != nil {
		in.config.Metrics.Duplicate.Inc()
		return *got, nil
	}
	if err := checkSize(t, int64(len(payload)), true); err != nil {
		return Receipt{}, err
	}
	if crc32.Checksum(payload, castagnoli) != h.Checksum {
		return Receipt{}, corrupt()
	}
	if err := in.reserve(int64(len(payload))); err != nil {
		return Receipt{}, err
	}
	c := &contribution{client: h.Client, piece: payload, size: int64(len(payload)), done: make(chan struct{})}
	err = checkRange(t, payload)
	if err == nil && t.central {
		err = addNoise(t, c)
	}
	if err != nil {
		in.drop(c)
		return Receipt{}, err
	}
	return in.commit(ctx, h.Key, t, c)
}

// Upload is a contribution that arrives in pieces. It serves one goroutine.
type Upload struct {
	in      *Ingest
	header  Header
	terms   terms
	c       *contribution
	attempt *attempt
	sum     uint32 // checksum so far
	got     int64
}

// Begin prepares for the pieces of a contribution. With a receipt there is
// nothing to upload: it is in the sum already. Exactly one of Commit and Abort
// is to be called on an upload.
func (in *Ingest) Begin(ctx context.Context, h Header) (*Upload, *Receipt, error) {
	t, got, err := in.admit(ctx, &h)
	if err != nil {
		return nil, nil, err
	}
	if got != nil {
		in.config.Metrics.Duplicate.Inc()
		return nil, got, nil
	}
	if c := in.waiting(h.Key, h.Client); c != nil {
		r, err := in.await(ctx, c, true)
		return nil, &r, err
	}
	return &Upload{
		in: in, header: h, terms: t, attempt: in.expect(h.Key, t),
		c: &contribution{client: h.Client, done: make(chan struct{})},
	}, nil, nil
}

// Size is how many bytes the contribution has.
func (u *Upload) Size() int64 { return u.terms.size() }

// Write takes the next piece, and checks it: memory is reserved for what has
// arrived, never for what was announced.
func (u *Upload) Write(piece []byte) error {
	if err := checkSize(u.terms, u.got+int64(len(piece)), false); err != nil {
		return err
	}
	u.sum = crc32.Update(u.sum, castagnoli, piece)
	u.got += int64(len(piece))
	for len(piece) > 0 {
		last := len(u.c.pieces) - 1
		if last < 0 || len(u.c.pieces[last]) == pieceSize(u.terms.width) {
			if last >= 0 {
				if err := checkRange(u.terms, u.c.pieces[last]); err != nil {
					return err
				}
			}
			if err := u.in.reserve(pooled); err != nil {
				return err
			}
			u.c.size += pooled
			u.c.pieces = append(u.c.pieces, buffers.Get().(*[pooled]byte)[:0])
			last++
		}
		p := u.c.pieces[last]
		n := min(len(piece), pieceSize(u.terms.width)-len(p))
		u.c.pieces[last] = append(p, piece[:n]...)
		piece = piece[n:]
	}
	return nil
}

// Commit returns when the contribution is committed.
func (u *Upload) Commit(ctx context.Context) (Receipt, error) {
	err := checkSize(u.terms, u.got, true)
	if err == nil && u.sum != u.header.Checksum {
		err = corrupt()
	}
	if err == nil {
		err = checkRange(u.terms, u.c.pieces[len(u.c.pieces)-1])
	}
	if err == nil && u.terms.central {
		err = addNoise(u.terms, u.c)
	}
	if err != nil {
		u.Abort()
		return Receipt{}, err
	}
	queued, err := u.in.enqueue(u.header.Key, u.terms, u.c)
	u.in.arrived(u.attempt)
	if err != nil {
		return Receipt{}, err
	}
	return u.in.await(ctx, queued, queued != u.c)
}

// Abort gives the upload up.
func (u *Upload) Abort() {
	u.in.drop(u.c)
	u.in.arrived(u.attempt)
}

// contribution is one that waits to be committed.
type contribution struct {
	client rounds.ClientID
	// Its packed coordinates: one piece that is its own, or pooled ones of whole
	// coordinates, all but the last one full.
	piece  []byte
	pieces [][]byte
	size   int64 // bytes reserved for it

	done    chan struct{} // closed once what follows is set
	receipt Receipt
	err     error
}

// pooled is the size of a buffer: of a piece on the wire.
const pooled = 256 << 10

var buffers = sync.Pool{New: func() any { return new([pooled]byte) }}

// pieceSize is how many bytes of whole coordinates a buffer holds.
func pieceSize(width int) int { return pooled - pooled%width }

// each calls f with the pieces and the coordinate that each begins at.
func (c *contribution) each(width int, f func(at int, piece []byte) error) error {
	if c.piece != nil {
		return f(0, c.piece)
	}
	at := 0
	for _, p := range c.pieces {
		if err := f(at, p); err != nil {
			return err
		}
		at += len(p) / width
	}
	return nil
}

// drop frees what a contribution holds.
func (in *Ingest) drop(c *contribution) {
	for _, p := range c.pieces {
		buffers.Put((*[pooled]byte)(p[:pooled]))
	}
	in.release(c.size)
	c.piece, c.pieces, c.size = nil, nil, 0
}

func checkSize(t terms, got int64, whole bool) error {
	switch want := t.size(); {
	case got > want:
		return refusal.New(undertonev1.Reason_REASON_TOO_LARGE, "more than the %d bytes of a contribution", want)
	case whole && got < want:
		return refusal.New(undertonev1.Reason_REASON_MALFORMED, "%d bytes instead of the %d of a contribution", got, want)
	}
	return nil
}

func corrupt() error {
	return refusal.New(undertonev1.Reason_REASON_CORRUPT, "the payload does not have the checksum it was sent with")
}

// stride is how many coordinates are looked at together: they stay in the first
// level of the cache.
const stride = 2048

var scratches = sync.Pool{New: func() any { return new([stride]int64) }}

// checkRange refuses packed coordinates of which one is larger than any honest
// one. It says neither which nor how large.
func checkRange(t terms, piece []byte) error {
	scratch := scratches.Get().(*[stride]int64) // a sum that nobody reads
	defer scratches.Put(scratch)
	for len(piece) > 0 {
		n := min(stride, len(piece)/t.width)
		if aggregation.AddPacked(scratch[:n], piece[:n*t.width], t.width, t.release.Largest) != nil {
			return refusal.New(undertonev1.Reason_REASON_OUT_OF_RANGE, "a coordinate is larger than any honest one")
		}
		piece = piece[n*t.width:]
	}
	return nil
}
