package ledger_test

import (
	"fmt"
	"testing"

	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/ledger"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// long is a ledger of so many jobs with so many rounds each.
func long(t testing.TB, jobs, rounds int) *author {
	a := newAuthor(t)
	names := make([]string, jobs)
	for i := range names {
		names[i] = fmt.Sprintf("job-%d", i)
		a.create(terms{names[i], rounds, 1, ledger.TrustDistributed, dp.ZeroOut, 4000}.specification())
	}
	for range rounds {
		for _, name := range names {
			a.open(name, 1)
			a.release(name)
		}
	}
	return a
}

// BenchmarkVerify verifies ledgers of 100,000 records: few long jobs, and many short ones.
func BenchmarkVerify(b *testing.B) {
	for _, c := range []struct{ jobs, rounds int }{{13, 3846}, {10_000, 4}} {
		a := long(b, c.jobs, c.rounds)
		bundle := a.bundle(b)
		b.Run(fmt.Sprintf("%d jobs, %d records", c.jobs, len(bundle.Records)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ledger.Verify(bundle, a.first, ledger.Checkpoint{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestLongLedgers holds that ledgers of 100,000 records are verified; -v tells in which
// time (see BenchmarkVerify).
func TestLongLedgers(t *testing.T) {
	if testing.Short() {
		t.Skip("100,000 records")
	}
	result := testing.Benchmark(func(b *testing.B) {
		a := long(b, 13, 3846)
		bundle := a.bundle(b)
		for b.Loop() {
			h, err := ledger.Verify(bundle, a.first, ledger.Checkpoint{})
			if err != nil || h.Checkpoint.Size != 100_023 {
				b.Fatal(h, err)
			}
		}
	})
	if result.N == 0 {
		t.Fatal("not verified")
	}
	t.Logf("100,023 records are verified in %.2f s", result.T.Seconds()/float64(result.N))
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
