package ledger_test

import (
	"math"
	"testing"

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
