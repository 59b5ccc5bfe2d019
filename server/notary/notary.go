// Package notary shows the cluster's ledger to those who do not trust the cluster: it
// signs checkpoints of what this node applied, which is what a leader committed, and
// proves that records are under them.
//
// # Promise
//
// Every node has the ledger's secret key and signs for itself: the log is the same
// sequence on all of them, and an Ed25519 signature is a function of key and text. So
// any two nodes' checkpoints are of one history, those of one size are the same bytes,
// and nothing can fork it by leading, failing or coming back.
//
// # Cost
//
// A checkpoint is signed once for each size of the log, and a reservation proved once
// for each checkpoint: what many clients ask for at a time is computed for the first.
package notary

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/ledger"
)

// Errors.
var (
	// ErrNoLedger says that the cluster has not begun its ledger yet.
	ErrNoLedger = errors.New("notary: the ledger has not begun")
	// ErrNoKey says that none of this node's key files has the key; the *KeyError that
	// comes with it says why.
	ErrNoKey = errors.New("notary: no key file of this node has the ledger's key")
)

// Node is the replica whose ledger is shown.
type Node interface {
	View(func(m *rounds.Machine, index uint64))
}

// Notary signs checkpoints. It may be used by many goroutines.
type Notary struct {
	node   Node
	keys   *Keys
	signed atomic.Uint64
	head   atomic.Pointer[Head]

	mu    sync.Mutex       // of the next head, and of what follows
	found map[string]found // by job
}

// found is where the attempt of a job that was last looked for is in the log.
type found struct {
	attempt
	index int64
}

type attempt struct{ round, attempt int }

// New returns the notary of a node.
func New(node Node, keys *Keys) *Notary {
	return &Notary{node: node, keys: keys, found: make(map[string]found)}
}

// Open is New with the keys in files. Fails with a *KeyError.
func Open(node Node, files []string) (*Notary, error) {
	keys, err := LoadKeys(files)
	if err != nil {
		return nil, err
	}
	return New(node, keys), nil
}

// Signed is how many checkpoints were signed.
func (n *Notary) Signed() uint64 { return n.signed.Load() }

// Head is a signed checkpoint, and the ledger that it is of, to be read freely.
type Head struct {
	Note       []byte // signed
	Checkpoint ledger.Checkpoint
	Log        *ledger.Log
	Rotations  [][]byte // the records of the keys after the first, in order
	Key        string   // public, that signed it
	// Index is an index of the replicated log at which the ledger is as long as this:
	// every node that has applied as much can show that its own extends it.
	Index uint64

	notary *Notary
	mu     sync.Mutex
	proved map[string]proved // by job
}

// proved is an attempt's reservation, nil if it has none.
type proved struct {
	attempt
	*Inclusion
}

// Head returns the ledger as applied, or as it was a moment later. Fails with ErrNoLedger
// or ErrNoKey.
func (n *Notary) Head() (*Head, error) {
	head := n.head.Load()
	var (
		log *ledger.Log
		at  uint64
	)
	n.node.View(func(m *rounds.Machine, index uint64) {
		if l := m.Ledger(); l != nil && (head == nil || l.Size() > head.Checkpoint.Size) {
			log, at = l.Clip(), index
		}
	})
	switch {
	case log != nil:
		return n.next(log, at)
	case head == nil:
		return nil, ErrNoLedger
	}
	return head, nil
}

// NotReadyPrefix is how what NotReady says begins.
const NotReadyPrefix = "ledger: "

// NotReady says why this node cannot show the ledger; nil if it can.
func (n *Notary) NotReady() []string {
	_, err := n.Head()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNoLedger):
		return []string{NotReadyPrefix + "no leader has begun it"}
	}
	if mistake, ok := errors.AsType[*KeyError](err); ok {
		return []string{NotReadyPrefix + "this node cannot sign it: " + mistake.Error()}
	}
	return []string{NotReadyPrefix + err.Error()}
}

// next signs a longer log than the last head's.
func (n *Notary) next(log *ledger.Log, at uint64) (*Head, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	last := n.head.Load()
	if last != nil && last.Checkpoint.Size >= log.Size() {
		return last, nil // somebody else was faster
	}
	h := &Head{Log: log, Index: at, notary: n, proved: make(map[string]proved)}
	from := int64(0)
	if last != nil {
		h.Checkpoint.Origin, h.Key, h.Rotations, from = last.Checkpoint.Origin, last.Key, last.Rotations, last.Checkpoint.Size
	} else {
		begun, err := ledger.Decode(log.Records()[0])
		if err != nil {
			return nil, err
		}
		b := begun.(*ledger.Begun)
		h.Checkpoint.Origin, h.Key = b.Origin, b.Key
	}
	for _, record := range log.Records()[from:] {
		if !ledger.OfKind(record, (*ledger.KeyRotated)(nil)) {
			continue
		}
		e, err := ledger.Decode(record)
		if err != nil {
			return nil, err
		}
		h.Key, h.Rotations = e.(*ledger.KeyRotated).Key, append(h.Rotations[:len(h.Rotations):len(h.Rotations)], record)
	}
	key, err := n.keys.find(h.Key, readPause)
	if err != nil {
		return nil, err
	}
	h.Checkpoint.Size = log.Size()
	if h.Checkpoint.Root, err = log.Root(log.Size()); err != nil {
		return nil, err
	}
	if h.Note, err = h.Checkpoint.Sign(key.signer); err != nil {
		return nil, err
	}
	n.signed.Add(1)
	n.head.Store(h)
	return h, nil
}

// Consistency proves that a head extends the first size records. Of a size that it does
// not extend there is no proof: the checkpoint itself shows that.
func (h *Head) Consistency(size uint64) (ledger.Proof, error) {
	if size >= uint64(h.Checkpoint.Size) {
		return nil, nil
	}
	return h.Log.Consistency(int64(size), h.Checkpoint.Size)
}

// Inclusion is a record of the ledger, and the proof that a Head's checkpoint covers it.
type Inclusion struct {
	Record []byte
	Index  int64
	Proof  ledger.Proof
}

// Reservation proves that an attempt is in the ledger, and charged; nil if it is not. It
// is meant for attempts that are open: their records are near the end.
func (h *Head) Reservation(job string, round, number int) (*Inclusion, error) {
	a := attempt{round, number}
	h.mu.Lock()
	defer h.mu.Unlock()
	if p, done := h.proved[job]; done && p.attempt == a {
		return p.Inclusion, nil
	}
	var in *Inclusion
	if at := h.notary.find(h, job, a); at >= 0 {
		proof, err := h.Log.Inclusion(at, h.Checkpoint.Size)
		if err != nil {
			return nil, err
		}
		in = &Inclusion{h.Log.Records()[at], at, proof}
	}
	h.proved[job] = proved{a, in}
	return in, nil
}

// find returns where an attempt was charged, -1 if it was not: where it was at the last
// head, or else it looks from the end on.
func (n *Notary) find(h *Head, job string, a attempt) int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if f, known := n.found[job]; known && f.attempt == a && f.index < h.Checkpoint.Size {
		return f.index
	}
	records := h.Log.Records()
	for i := len(records) - 1; i >= 0; i-- {
		if !ledger.OfKind(records[i], (*ledger.AttemptCharged)(nil)) {
			continue
		}
		e, err := ledger.Decode(records[i])
		if err != nil {
			continue
		}
		if c := e.(*ledger.AttemptCharged); c.Job == job && (attempt{c.Round, c.Attempt}) == a {
			n.found[job] = found{a, int64(i)}
			return int64(i)
		}
	}
	return -1
}

// Canary returns where a measurement was recorded last, whenever that was; -1 if it was
// not.
func (h *Head) Canary(m ledger.CanaryMeasured) int64 {
	m.Stamp = ledger.Stamp{}
	records := h.Log.Records()
	for i := len(records) - 1; i >= 0; i-- {
		if !ledger.OfKind(records[i], (*ledger.CanaryMeasured)(nil)) {
			continue
		}
		e, err := ledger.Decode(records[i])
		if err != nil {
			continue
		}
		c := *e.(*ledger.CanaryMeasured)
		if c.Stamp = m.Stamp; c == m {
			return int64(i)
		}
	}
	return -1
}

// Rotation returns the command that hands the ledger on to the next key. Fails with
// ErrNoLedger, and with ErrNoKey unless this node has both keys.
func (n *Notary) Rotation(next string) (rounds.RotateKey, error) {
	h, err := n.Head()
	if err != nil {
		return rounds.RotateKey{}, err
	}
	if _, err := n.keys.find(next, 0); err != nil {
		return rounds.RotateKey{}, err
	}
	key, err := n.keys.find(h.Key, 0)
	if err != nil {
		return rounds.RotateKey{}, err
	}
	endorsement, err := ledger.Endorse(key.signer, next)
	return rounds.RotateKey{Key: next, Endorsement: endorsement}, err
}

// Bundle returns the whole ledger with the specifications that it names. Fails with
// ErrNoLedger or ErrNoKey.
func (n *Notary) Bundle() (*ledger.Bundle, error) {
	h, err := n.Head()
	if err != nil {
		return nil, err
	}
	b := &ledger.Bundle{Checkpoint: h.Note, Records: h.Log.Records(), Specifications: make(map[ledger.Digest][]byte)}
	var jobs []string
	for _, record := range b.Records {
		if !ledger.OfKind(record, (*ledger.JobCreated)(nil)) {
			continue
		}
		e, err := ledger.Decode(record)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, e.(*ledger.JobCreated).Job)
	}
	n.node.View(func(m *rounds.Machine, _ uint64) {
		for _, name := range jobs {
			if job, ok := m.Job(name); ok {
				b.Specifications[ledger.Digest(job.Raw.Digest)] = job.Raw.Bytes
			}
		}
	})
	return b, nil
}
