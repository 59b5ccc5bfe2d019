package ledger_test

import (
	"encoding/json"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/ledger"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// shape of a long ledger, of jobs that servers accept.
type shape struct{ jobs, rounds int }

// Ledgers of 100,000 records: few long jobs, and many short ones.
var shapes = []shape{{20, 2500}, {10_000, 5}}

func (s shape) String() string { return fmt.Sprintf("%d jobs of %d rounds", s.jobs, s.rounds) }

// long is a ledger in which each round of all jobs is released at the first attempt.
func long(t testing.TB, s shape) *author {
	a := newAuthor(t)
	names := make([]string, s.jobs)
	for i := range names {
		names[i] = fmt.Sprintf("job-%d", i)
		spec := terms{names[i], s.rounds, 1, ledger.TrustDistributed, dp.ZeroOut, 4000}.specification()
		raw, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		a.createWritten(spec, raw)
	}
	for range s.rounds {
		for _, name := range names {
			a.open(name, 1)
			a.release(name)
		}
	}
	return a
}

// BenchmarkVerify reads and verifies the files of long ledgers.
func BenchmarkVerify(b *testing.B) {
	for _, s := range shapes {
		a := long(b, s)
		bundle := a.bundle(b)
		file := written(b, bundle)
		b.Run(fmt.Sprintf("%v, %d records", s, len(bundle.Records)), func(b *testing.B) {
			b.ReportAllocs()
			b.ReportMetric(float64(len(file))/(1<<20), "MiB")
			for b.Loop() {
				start := time.Now()
				read, err := read(file)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(time.Since(start).Seconds(), "s/read")
				if _, err := ledger.Verify(read, a.first, ledger.Checkpoint{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkWriteBundle writes the files of long ledgers.
func BenchmarkWriteBundle(b *testing.B) {
	for _, s := range shapes {
		bundle := long(b, s).bundle(b)
		b.Run(s.String(), func(b *testing.B) {
			for b.Loop() {
				if err := ledger.WriteBundle(io.Discard, bundle); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestLongLedgers holds that ledgers of 100,000 records can be written, read and verified;
// -v tells in which time (see BenchmarkVerify).
func TestLongLedgers(t *testing.T) {
	if testing.Short() {
		t.Skip("100,000 records")
	}
	for _, s := range shapes {
		t.Run(s.String(), func(t *testing.T) {
			a := long(t, s)
			start := time.Now()
			file := written(t, a.bundle(t))
			wrote := time.Since(start)
			start = time.Now()
			b, err := read(file)
			if err != nil {
				t.Fatal(err)
			}
			opened := time.Since(start)
			start = time.Now()
			h, err := ledger.Verify(b, a.first, ledger.Checkpoint{})
			if err != nil {
				t.Fatal(err)
			}
			if h.Checkpoint.Size != a.log.Size() || h.Checkpoint.Size < 100_000 || len(h.Jobs) != s.jobs {
				t.Errorf("%d records, %d jobs", h.Checkpoint.Size, len(h.Jobs))
			}
			t.Logf("%d records, %d MiB: written in %.2f s, read in %.2f s, verified in %.2f s", len(b.Records), len(file)>>20,
				wrote.Seconds(), opened.Seconds(), time.Since(start).Seconds())
		})
	}
}

// virtualTree is a tree of equal records, of which any size is at hand at once.
type virtualTree struct{ levels []tlog.Hash }

func newVirtualTree(record []byte) *virtualTree {
	v := &virtualTree{[]tlog.Hash{tlog.RecordHash(record)}}
	for range 40 {
		h := v.levels[len(v.levels)-1]
		v.levels = append(v.levels, tlog.NodeHash(h, h))
	}
	return v
}

func (v *virtualTree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		level, _ := tlog.SplitStoredHashIndex(x)
		out[i] = v.levels[level]
	}
	return out, nil
}

// BenchmarkClientCheck is what a client does with the answer to a poll: the signature, that
// the checkpoint extends the one it had, and that its round's charge is in the ledger.
func BenchmarkClientCheck(b *testing.B) {
	for _, size := range []int64{100_000, 10_000_000} {
		b.Run(fmt.Sprintf("%d records", size), func(b *testing.B) { clientCheck(b, size, size/3, size-2) })
	}
}

func clientCheck(b *testing.B, size, old, index int64) {
	record := ledger.Encode(&ledger.AttemptCharged{Job: "films", Round: 5, Attempt: 1, Charge: 1 << 40, Spent: 1 << 42})
	tree := newVirtualTree(record)
	at := func(size int64) ledger.Checkpoint {
		root, err := tlog.TreeHash(size, tree)
		if err != nil {
			b.Fatal(err)
		}
		return ledger.Checkpoint{Origin: origin, Size: size, Root: ledger.Digest(root)}
	}
	proof := func(hashes []tlog.Hash, err error) (p ledger.Proof) {
		if err != nil {
			b.Fatal(err)
		}
		for _, h := range hashes {
			p = append(p, ledger.Digest(h))
		}
		return p
	}
	consistency, inclusion := proof(tlog.ProveTree(size, old, tree)), proof(tlog.ProveRecord(size, index, tree))
	signer, public := testKey(b, 1)
	signed, err := at(size).Sign(signer)
	if err != nil {
		b.Fatal(err)
	}
	var key note.Verifier
	if key, err = ledger.ParseKey(public); err != nil {
		b.Fatal(err)
	}
	before := at(old)
	b.ReportAllocs()
	for b.Loop() {
		c, err := ledger.OpenCheckpoint(signed, key)
		if err == nil {
			err = before.Follow(c, consistency)
		}
		if err == nil {
			err = c.Includes(record, index, inclusion)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(signed)+len(record)+32*(len(consistency)+len(inclusion))), "bytes/check")
}
