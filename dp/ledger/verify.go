package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// ErrHistory says that records tell what cannot have happened: a release without its
// charge, a charge below its cost, a budget exceeded, a round twice.
var ErrHistory = errors.New("ledger: this cannot have happened")

// Fault is the first thing that is wrong with a ledger.
type Fault struct {
	Record  int64  // its index, or -1: it is not one record's
	Job     string // empty where it is of no job
	Problem string // one line
	Err     error  // ErrEntry, ErrHistory, ErrBundle, ErrSignature, ErrCheckpoint, ErrFork or ErrTruncated
}

func (f *Fault) Error() string {
	switch {
	case f.Record >= 0 && f.Job != "":
		return fmt.Sprintf("record %d (job %s): %s", f.Record, f.Job, f.Problem)
	case f.Record >= 0:
		return fmt.Sprintf("record %d: %s", f.Record, f.Problem)
	}
	return f.Problem
}

// Unwrap returns the sentinel error.
func (f *Fault) Unwrap() error { return f.Err }

// Verify recomputes everything that a bundle says, and returns the history that it
// tells: every hash, the checkpoint's signature by the key that trusted leads to, that
// it extends seen (the last checkpoint that this auditor kept; zero: none), every charge
// from the mechanism it pays for, and that no event could not have happened when it did.
//
// trusted may be any key that signed this log's checkpoints, now or before a rotation.
//
// Fails with a *Fault: the first in the order of the records, or else what is wrong with
// the checkpoint over them. A trusted key that is none fails with another error.
func Verify(b *Bundle, trusted string, seen Checkpoint) (*History, error) {
	held, err := parseKey(trusted)
	if err != nil {
		return nil, err
	}
	h, fault := verify(b, held, seen)
	if fault != nil {
		return nil, fault
	}
	return h, nil
}

func verify(b *Bundle, held publicKey, seen Checkpoint) (*History, *Fault) {
	decoded := decodeAll(b.Records)
	r := newReplay(readSpecifications(b.Specifications))
	for i := range decoded {
		if err := decoded[i].err; err != nil {
			return nil, &Fault{int64(i), "", clean(err, ErrEntry), ErrEntry}
		}
		if fault := r.next(decoded[i].entry); fault != nil {
			return nil, fault
		}
	}
	if fault := r.end(); fault != nil {
		return nil, fault
	}
	if fault := r.keys.check(held); fault != nil {
		return nil, fault
	}
	hashes := treeOf(decoded)
	c, fault := checkCheckpoint(b, r.keys.signer(), hashes)
	if fault != nil {
		return nil, fault
	}
	if fault := checkSeen(seen, c, hashes); fault != nil {
		return nil, fault
	}
	if fault := r.unnamed(); fault != nil {
		return nil, fault
	}
	h := r.history
	h.Checkpoint, h.Key, h.Rotations = c, r.keys.signer().text, len(r.keys)-1
	return h, nil
}

// checkCheckpoint holds that the checkpoint is of the records, and signed.
func checkCheckpoint(b *Bundle, key publicKey, tree hashes) (Checkpoint, *Fault) {
	none := func(err error, format string, args ...any) (Checkpoint, *Fault) {
		return Checkpoint{}, &Fault{-1, "", fmt.Sprintf(format, args...), err}
	}
	c, err := OpenCheckpoint(b.Checkpoint, key.Verifier)
	switch {
	case errors.Is(err, ErrSignature):
		return none(ErrSignature, "the checkpoint is not signed with the ledger's key, %s", key.text)
	case err != nil:
		return none(ErrCheckpoint, "the checkpoint cannot be read: %s", clean(err, ErrCheckpoint))
	case c.Size != int64(len(b.Records)):
		return none(ErrCheckpoint, "the checkpoint is of %d records, and there are %d", c.Size, len(b.Records))
	}
	if root, err := tlog.TreeHash(c.Size, tree); err != nil || Digest(root) != c.Root {
		return none(ErrCheckpoint, "the checkpoint is of other records: its root is %v, theirs is %v", c.Root, Digest(root))
	}
	return c, nil
}

// checkSeen holds that the records begin with those of a checkpoint that was kept.
func checkSeen(seen, c Checkpoint, tree hashes) *Fault {
	switch {
	case seen.Size == 0:
		return nil
	case seen.Origin != c.Origin:
		return &Fault{-1, "", fmt.Sprintf("the checkpoint that was kept is of another ledger, %.64q", seen.Origin), ErrCheckpoint}
	case seen.Size > c.Size:
		return &Fault{-1, "", fmt.Sprintf("records were taken back: there are %d, and the checkpoint that was kept has %d", c.Size, seen.Size), ErrTruncated}
	}
	if root, err := tlog.TreeHash(seen.Size, tree); err != nil || Digest(root) != seen.Root {
		return &Fault{-1, "", fmt.Sprintf("there are two histories: the first %d records are not those of the checkpoint that was kept", seen.Size), ErrFork}
	}
	return nil
}

// decoded is a record as it was read.
type decoded struct {
	entry Entry
	hash  tlog.Hash // of the leaf
	err   error
}

func decodeAll(records [][]byte) []decoded {
	out := make([]decoded, len(records))
	inParallel(len(records), func(i int) {
		out[i].hash = tlog.RecordHash(records[i])
		out[i].entry, out[i].err = Decode(records[i])
	})
	return out
}

// treeOf returns the hashes of a tree as a Log holds them.
func treeOf(records []decoded) hashes {
	tree := make(hashes, 0, 2*len(records))
	for i := range records {
		added, err := tlog.StoredHashesForRecordHash(int64(i), records[i].hash, tree)
		if err != nil {
			panic(err) // every hash is there
		}
		tree = append(tree, added...)
	}
	return tree
}

// readSpecification's result, of bytes that are or are not those of their digest.
type specification struct {
	*Specification
	raw   []byte
	twice string // a field that its parameters have twice, somewhere
	err   error
}

func readSpecifications(documents map[Digest][]byte) map[Digest]specification {
	digests := slices.Collect(maps.Keys(documents))
	read := make([]specification, len(digests))
	inParallel(len(digests), func(i int) {
		raw := documents[digests[i]]
		if sha256.Sum256(raw) != digests[i] {
			read[i].err = fmt.Errorf("its bytes have another digest")
			return
		}
		read[i].raw = raw
		if read[i].Specification, read[i].err = readSpecification(raw); read[i].err == nil {
			read[i].twice = fieldTwice(read[i].Parameters)
		}
	})
	out := make(map[Digest]specification, len(digests))
	for i, d := range digests {
		out[d] = read[i]
	}
	return out
}

// inParallel calls do for 0 to n-1 on all processors.
func inParallel(n int, do func(i int)) {
	const chunk = 256
	var wait sync.WaitGroup
	starts := make(chan int)
	for range min(runtime.GOMAXPROCS(0), n/chunk+1) {
		wait.Go(func() {
			for start := range starts {
				for i := start; i < min(start+chunk, n); i++ {
					do(i)
				}
			}
		})
	}
	for start := 0; start < n; start += chunk {
		starts <- start
	}
	close(starts)
	wait.Wait()
}

// keyChain is a log's keys, in the order in which they signed.
type keyChain []publicKey

// signer is the key that signs now.
func (k keyChain) signer() publicKey { return k[len(k)-1] }

// has reports whether a key is one of the chain.
func (k keyChain) has(key publicKey) bool {
	return slices.ContainsFunc(k, func(other publicKey) bool { return other.text == key.text })
}

// check holds that a key is one of the chain: from there on, each key was endorsed by
// the one before.
func (k keyChain) check(held publicKey) *Fault {
	if k.has(held) {
		return nil
	}
	return &Fault{-1, "", fmt.Sprintf("the ledger has never been signed with the key that is trusted, %s", held.text), ErrSignature}
}

// publicKey is a key and its text, which is the same for the same key.
type publicKey struct {
	note.Verifier
	text string
}
