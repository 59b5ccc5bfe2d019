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
	if err := in.reserve(h.Client, int64(len(payload)), t.size()); err != nil {
		return Receipt{}, err
	}
	c := &contribution{client: h.Client, piece: payload, size: int64(len(payload)), done: make(chan struct{})}
	err = checkRange(t, payload)
	if err == nil && t.central {
		err = addNoise(t, c)
	}
	if err != nil {
		in.discard(c)
		return Receipt{}, err
	}
	return in.commit(ctx, h.Key, t, c)
}

// Upload is a contribution that arrives in pieces. It serves one goroutine. The
// same client's next upload to the attempt ends it: Write and Commit fail then.
type Upload struct {
	in      *Ingest
	header  Header
	terms   terms
	c       *contribution
	attempt *attempt

	mu      sync.Mutex // before Ingest.mu
	sum     uint32     // checksum so far
	got     int64
	ended   bool
	awaited bool // of Ingest.mu: a batch may wait for it
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
	u := &Upload{in: in, header: h, terms: t, c: &contribution{client: h.Client, done: make(chan struct{})}}
	if before := in.expect(u); before != nil {
		before.Abort()
	}
	return u, nil, nil
}

// Size is how many bytes the contribution has.
func (u *Upload) Size() int64 { return u.terms.size() }

// Write takes the next piece, and checks it: memory is reserved for what has
// arrived, never for what was announced.
func (u *Upload) Write(piece []byte) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return superseded()
	}
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
			u.c.pieces = append(u.c.pieces, nil)
			last++
		}
		n := min(len(piece), pieceSize(u.terms.width)-len(u.c.pieces[last]))
		if err := u.grow(&u.c.pieces[last], n); err != nil {
			return err
		}
		u.c.pieces[last] = append(u.c.pieces[last], piece[:n]...)
		piece = piece[n:]
	}
	return nil
}

// grow makes room for n bytes more in a piece, and reserves it: by doubling, so
// that what is reserved is less than twice what has arrived, up to a buffer.
func (u *Upload) grow(p *[]byte, n int) error {
	room := cap(*p)
	for room = max(room, leastPiece); room < len(*p)+n; room *= 2 {
	}
	if room == cap(*p) {
		return nil
	}
	more := int64(room - cap(*p))
	if err := u.in.reserve(u.header.Client, more, footprint(u.terms)); err != nil {
		return err
	}
	u.c.size += more
	var grown []byte
	if room == pooled {
		grown = buffers.Get().(*[pooled]byte)[:0]
	} else {
		grown = make([]byte, 0, room)
	}
	*p = append(grown, *p...)
	return nil
}

// footprint is the memory that a contribution takes.
func footprint(t terms) int64 {
	each := int64(pieceSize(t.width))
	return (t.size() + each - 1) / each * pooled
}

// Commit returns when the contribution is committed.
func (u *Upload) Commit(ctx context.Context) (Receipt, error) {
	queued, err := u.enqueue()
	if err != nil {
		return Receipt{}, err
	}
	return u.in.await(ctx, queued, queued != u.c)
}

// enqueue ends the upload: its contribution waits for a batch, or is dropped.
func (u *Upload) enqueue() (*contribution, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return nil, superseded()
	}
	u.ended = true
	defer u.in.arrived(u)
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
		u.in.discard(u.c)
		return nil, err
	}
	return u.in.enqueue(u.header.Key, u.terms, u.c)
}

// Abort gives the upload up.
func (u *Upload) Abort() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.ended {
		u.ended = true
		u.in.discard(u.c)
		u.in.arrived(u)
	}
}

func superseded() error {
	e := refusal.New(undertonev1.Reason_REASON_OVERLOADED, "the client has begun another upload")
	e.RetryAfter = overloadPause
	return e
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

// leastPiece is the memory that the first bytes of a piece take.
const leastPiece = 4 << 10

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

// discard drops a contribution that is nowhere queued.
func (in *Ingest) discard(c *contribution) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.drop(c)
}

// drop frees what a contribution holds. in.mu is held.
func (in *Ingest) drop(c *contribution) {
	for _, p := range c.pieces {
		if cap(p) == pooled {
			buffers.Put((*[pooled]byte)(p[:pooled]))
		}
	}
	in.release(c.client, c.size)
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
