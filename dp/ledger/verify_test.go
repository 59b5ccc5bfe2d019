package ledger_test

import (
	"math"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/ledger"
	"golang.org/x/mod/sumdb/tlog"
)

func sqrt(n int) float64 { return math.Sqrt(float64(n)) }

// checkpointOf computes the root of records by itself: RFC 6962, section 2.1.
func checkpointOf(t testing.TB, records [][]byte, name string) ledger.Checkpoint {
	t.Helper()
	return ledger.Checkpoint{Origin: name, Size: int64(len(records)), Root: ledger.Digest(treeHash(records))}
}

func treeHash(records [][]byte) tlog.Hash {
	switch len(records) {
	case 0:
		h, _ := tlog.TreeHash(0, nil)
		return h
	case 1:
		return tlog.RecordHash(records[0])
	}
	k := 1
	for 2*k < len(records) {
		k *= 2
	}
	return tlog.NodeHash(treeHash(records[:k]), treeHash(records[k:]))
}

func TestVerifyTellsTheHistory(t *testing.T) {
	a := ordinary(t)
	h, err := ledger.Verify(a.bundle(t), a.first, ledger.Checkpoint{})
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Jobs) != 3 {
		t.Fatalf("%d jobs, want 3", len(h.Jobs))
	}
}

func benchmarkBundle(t testing.TB, jobs, roundsEach int) *ledger.Bundle {
	a := newAuthor(t)
	for i := range jobs {
		a.create(terms{"job-" + string(rune('a'+i%26)) + "-" + itoa(i), roundsEach, 1, ledger.TrustDistributed, dp.ZeroOut, 4000}.specification())
	}
	for range roundsEach {
		for name := range a.jobs {
			a.open(name, 1)
			a.release(name)
		}
	}
	return a.bundle(t)
}

func itoa(i int) string {
	return string([]byte{byte('0' + i/10000%10), byte('0' + i/1000%10), byte('0' + i/100%10), byte('0' + i/10%10), byte('0' + i%10)})
}

func TestHundredThousand(t *testing.T) {
	for _, c := range []struct{ jobs, rounds int }{{12, 4096}, {10000, 4}} {
		b := benchmarkBundle(t, c.jobs, c.rounds)
		_, public := testKey(t, 1)
		start := time.Now()
		_, err := ledger.Verify(b, public, ledger.Checkpoint{})
		t.Logf("%d records, %v, %v", len(b.Records), time.Since(start), err)
	}
}
