package ledger_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
	"golang.org/x/mod/sumdb/tlog"
)

func sqrt(n int) float64 { return math.Sqrt(float64(n)) }

// checkpointOf computes the root of records by itself.
func checkpointOf(t testing.TB, records [][]byte, name string) ledger.Checkpoint {
	t.Helper()
	return ledger.Checkpoint{Origin: name, Size: int64(len(records)), Root: ledger.Digest(treeHash(records))}
}

// treeHash is RFC 6962, section 2.1, word for word.
func treeHash(records [][]byte) tlog.Hash {
	switch len(records) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, records[0]...))
	}
	k := 1
	for 2*k < len(records) {
		k *= 2
	}
	left, right := treeHash(records[:k]), treeHash(records[k:])
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}

// holdOrdinary holds that a history is that of ordinary.
func holdOrdinary(t *testing.T, h *ledger.History) {
	t.Helper()
	const charge = 7812508
	if h.Rotations != 1 || h.Checkpoint.Size != 28 || h.Checkpoint.Origin != origin ||
		len(h.Restored) != 1 || h.Restored[0] != 14 || h.Before != 0 {
		t.Errorf("history %+v", h)
	}
	for i, want := range []struct {
		name              string
		record            int64
		attempts          string // each one's end, by the first letter
		spent             accounting.NanoRho
		released, members int // of the first attempt
		closed            bool
		canaries          int
	}{
		{"films", 1, "rfrr", 4 * charge, 3, 4001, true, 1},
		{"music", 2, "ffrf", 4 * charge, 1, 499, true, 0},
		{"books", 15, "ro", 2 * charge, 1, 21, false, 0},
	} {
		j := h.Jobs[i]
		var ends strings.Builder
		for _, a := range j.Attempts {
			ends.WriteByte(a.Status[0])
			if (a.End < 0) != (a.Status == ledger.StatusOpen) || a.Record <= j.Record || a.End >= 0 && a.End <= a.Record {
				t.Errorf("%s: attempt %+v", j.Name, a)
			}
			if a.Charge != charge || a.Recomputed > a.Charge || a.Recomputed < a.Charge-10 {
				t.Errorf("%s: charge %d, recomputed %d", j.Name, a.Charge, a.Recomputed)
			}
		}
		if j.Name != want.name || j.Record != want.record || ends.String() != want.attempts || j.Spent != want.spent ||
			j.Released != want.released || j.Attempts[0].Members != want.members || j.Closed != want.closed || (j.End >= 0) != want.closed ||
			len(j.Canaries) != want.canaries || j.Digest != sha256.Sum256(j.Raw) {
			t.Errorf("job %+v, want %+v", j, want)
		}
	}
}

func TestVerifyTellsTheHistory(t *testing.T) {
	a := ordinary(t)
	b := a.bundle(t)
	for size := range a.log.Size() + 1 {
		seen := checkpointOf(t, b.Records[:size], origin)
		h, err := ledger.Verify(b, a.first, seen)
		if err != nil {
			t.Fatalf("after %d records: %v", size, err)
		}
		if size == 0 {
			holdOrdinary(t, h)
		}
	}
	for _, trusted := range []string{a.first, a.public} {
		if h, err := ledger.Verify(b, trusted, ledger.Checkpoint{}); err != nil || h.Key != a.public {
			t.Errorf("%v, %v", h, err)
		}
	}
}

// Every prefix of a true history is one, but where one event has two records.
func TestEveryPrefixVerifies(t *testing.T) {
	a := ordinary(t)
	signers := map[bool]byte{false: 1, true: 2} // before and after the rotation
	for size := int64(1); size <= a.log.Size(); size++ {
		b := &ledger.Bundle{Records: a.log.Records()[:size], Specifications: map[ledger.Digest][]byte{}}
		all := bytes.Join(b.Records, nil)
		for digest, raw := range a.specs {
			if bytes.Contains(all, []byte(digest.String())) {
				b.Specifications[digest] = raw
			}
		}
		signer, _ := testKey(t, signers[size > 11])
		sign(t, b, signer)
		_, err := ledger.Verify(b, a.first, ledger.Checkpoint{})
		if between := size == 20; between != (err != nil) {
			t.Errorf("%d records: %v", size, err)
		}
	}
}

// A ledger may begin when there are jobs, of several eras.
func TestLedgerOfWhatWasThere(t *testing.T) {
	const before = 11
	a := newAuthorOf(t, before)
	began := a.now
	at := func(e ledger.Entry) { a.log.Append(e, began) }
	at(&ledger.Restored{Era: 2})
	s := terms{"films", 2, 3, ledger.TrustDistributed, dp.ZeroOut, 4000}.specification()
	a.now = began - 1000
	a.create(s)
	j := a.jobs["films"]
	for _, attempt := range []int{1, 2, 1_000_001, 2_000_001, 2_000_002} {
		a.now = began - 1000
		a.open("films", attempt)
		a.now = began - 1000
		if attempt < 2_000_002 {
			a.fail("films", "it was", 0)
		}
	}
	b := a.bundle(t)
	h, err := ledger.Verify(b, a.first, ledger.Checkpoint{})
	if err != nil {
		t.Fatal(err)
	}
	if got := h.Jobs[0]; len(got.Attempts) != 5 || got.Spent != j.spent || len(h.Restored) != 1 || h.Before != before {
		t.Errorf("%+v of %+v", got, h)
	}
	broken := *b
	broken.Records = b.Records[:before]
	sign(t, &broken, a.signer)
	if _, err := ledger.Verify(&broken, a.first, ledger.Checkpoint{}); err == nil || !strings.Contains(err.Error(), "within its beginning") {
		t.Error(err)
	}
	// Once it has begun, attempts are of its era.
	a.now = began
	a.fail("films", "it was", 0)
	a.open("films", 1_000_002)
	_, err = ledger.Verify(a.bundle(t), a.first, ledger.Checkpoint{})
	if err == nil || !strings.Contains(err.Error(), "attempt 2000003 comes next") {
		t.Error(err)
	}
}

// What a job had before the ledger began may be unknown, and nothing after that, whatever
// the clocks say.
func TestTheBeginningEnds(t *testing.T) {
	for _, c := range []struct {
		history int64
		wants   string
	}{
		{2, ""},
		{1, "record 2 (job films): it names no state"},
		{0, "record 1 (job films): it has no state 0"},
	} {
		a := newAuthorOf(t, c.history)
		began := a.now
		s := terms{"films", 1, 2, ledger.TrustDistributed, dp.ZeroOut, 4000}.specification()
		raw, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		digest, charge := ledger.Digest(sha256.Sum256(raw)), s.Releases[0].Charge
		a.specs[digest] = raw
		a.log.Append(&ledger.JobCreated{Job: s.Job, Specification: digest, Budget: s.Budget}, began)
		a.log.Append(&ledger.AttemptCharged{Job: s.Job, Round: 1, Attempt: 1, Specification: digest, Charge: charge, Spent: charge}, began)
		_, err = ledger.Verify(a.bundle(t), a.first, ledger.Checkpoint{})
		if c.wants == "" && err != nil || c.wants != "" && (err == nil || err.Error() != c.wants) {
			t.Errorf("a beginning of %d records: %v, want %q", c.history, err, c.wants)
		}
	}
}

// A history tells how many records a clock that was ahead has dated.
func TestRecordsOfTheFuture(t *testing.T) {
	a := ordinary(t)
	now := a.now
	a.log.Append(&ledger.Failed{Job: "books", Round: 2, Attempt: 1_000_001, Why: "a clock was ahead"}, ledger.MaxTime)
	a.log.Append(&ledger.Restored{Era: 2}, now+1) // and so takes the time before
	h, err := ledger.Verify(a.bundle(t), a.first, ledger.Checkpoint{})
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int64]int{0: 30, now - 1: 3, now: 2, math.MaxInt64: 0} {
		if got := h.DatedAfter(at); got != want {
			t.Errorf("%d records are dated after %d, want %d", got, at, want)
		}
	}
}

// Jobs may have spent more than can be counted together.
func TestHugeBudgets(t *testing.T) {
	a := newAuthor(t)
	for _, name := range []string{"films", "music"} {
		s := terms{name, 1, 0, ledger.TrustDistributed, dp.ZeroOut, 4000}.specification()
		s.Releases[0].Charge, s.Budget = math.MaxUint64, math.MaxUint64
		a.create(s)
		a.open(name, 1)
	}
	if _, err := ledger.Verify(a.bundle(t), a.first, ledger.Checkpoint{}); err != nil {
		t.Error(err)
	}
}

// Ledgers of earlier versions are read for ever.
func TestOldBundles(t *testing.T) {
	files, err := filepath.Glob("testdata/bundles/v*.zip")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		public, err := os.ReadFile(strings.TrimSuffix(file, ".zip") + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		b, err := read(raw)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		h, err := ledger.Verify(b, string(public), ledger.Checkpoint{})
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		holdOrdinary(t, h)
	}
}
