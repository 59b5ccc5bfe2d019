package replication

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/undertone-fl/undertone/aggregation/rounds"
)

// write makes testdata anew. It is what a version is, so that is for a new
// version only.
var write = flag.Bool("write", false, "write testdata")

// A data directory of each version, with a snapshot and some log after it, opens as
// it always did: v1 has no ledger, and v2 one. Log segments are kept without the zeros
// that they end with.
func TestOldDataDirectory(t *testing.T) {
	for _, version := range []string{"v1", "v2"} {
		t.Run(version, func(t *testing.T) { oldDataDirectory(t, version) })
	}
}

func oldDataDirectory(t *testing.T, name string) {
	version := filepath.Join("testdata", name)
	c := newCluster(t)
	a := c.place("a")
	if *write {
		a.start(expect(1))
		a.begin()
		a.must(contribution("job", 1, 1, 1))
		if name == "v2" {
			a.must(beginLedger(t))
		}
		if err := a.raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		a.must(contribution("job", 1, 1, 2))
		if name == "v2" {
			a.must(createJob(t, "closed"), rounds.CloseJob{Job: "closed"})
		}
		hash := a.replica.last().hash
		a.close()
		if err := os.RemoveAll(version); err != nil {
			t.Fatal(err)
		}
		copyDirectory(t, a.dir(), filepath.Join(version, "data"))
		if err := os.WriteFile(filepath.Join(version, "hash"), []byte(hex.EncodeToString(hash[:])+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(a.dir()); err != nil {
			t.Fatal(err)
		}
	}
	copyDirectory(t, filepath.Join(version, "data"), a.dir())
	want, err := os.ReadFile(filepath.Join(version, "hash"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Recover(a.dir(), map[string]string{"a": a.address}); err != nil { // its address was another
		t.Fatal(err)
	}
	a.start()
	c.leader()
	if got := a.replica.last().hash; hex.EncodeToString(got[:]) != strings.TrimSpace(string(want)) {
		t.Errorf("running hash %x, want %s", got, want)
	}
	if records := len(a.ledger()); records != map[string]int{"v2": 5}[name] {
		t.Errorf("a ledger of %d records", records)
	}
	if err := a.again(contribution("job", 1, 1, 2)); !isRefused(err, rounds.Counted) {
		t.Errorf("an old contribution: %v, want counted", err)
	}
}

func copyDirectory(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(to, "log/*.wal"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range segments {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, append(bytes.TrimRight(b, "\x00"), make([]byte, 8)...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
