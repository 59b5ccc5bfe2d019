package notary_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/server/internal/solo"
	"github.com/undertone-fl/undertone/server/notary"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, n *solo.Node, files ...string) *notary.Notary {
	t.Helper()
	if len(files) == 0 {
		files = []string{solo.KeyFile(t)}
	}
	out, err := notary.Open(n, files)
	must(t, err)
	return out
}

func head(t testing.TB, n *notary.Notary) *notary.Head {
	t.Helper()
	h, err := n.Head()
	must(t, err)
	return h
}

// opened is a checkpoint as somebody who has a public key reads it.
func opened(t testing.TB, h *notary.Head, public string) ledger.Checkpoint {
	t.Helper()
	key, err := ledger.ParseKey(public)
	must(t, err)
	c, err := ledger.OpenCheckpoint(h.Note, key)
	must(t, err)
	return c
}

// Two nodes sign the same bytes, once for each size of the log, however many ask; and
// each checkpoint extends the ones before.
func TestHead(t *testing.T) {
	n := solo.New()
	one, other := open(t, n), open(t, n)
	if _, err := one.Head(); !errors.Is(err, notary.ErrNoLedger) || len(one.NotReady()) != 1 {
		t.Errorf("before the ledger: %v, %q", err, one.NotReady())
	}
	n.BeginLedger(t)
	first := opened(t, head(t, one), solo.PublicKey)
	spec := n.Create(t, solo.Parameters(), solo.Terms("movies"))
	n.Do(t, rounds.OpenRound{Job: spec.Job, Round: 1, Attempt: 1})

	var wait sync.WaitGroup
	for range 32 {
		wait.Go(func() {
			if _, err := one.Head(); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	a, b := head(t, one), head(t, other)
	if !bytes.Equal(a.Note, b.Note) || a.Key != solo.PublicKey || len(one.NotReady()) != 0 {
		t.Errorf("%s\nis not\n%s", a.Note, b.Note)
	}
	if one.Signed() != 2 || other.Signed() != 1 {
		t.Errorf("signed %d and %d times, want 2 and 1", one.Signed(), other.Signed())
	}
	latest := opened(t, a, solo.PublicKey)
	proof, err := a.Consistency(uint64(first.Size))
	must(t, err)
	must(t, first.Follow(latest, proof))
	if err := first.Follow(latest, nil); !errors.Is(err, ledger.ErrFork) {
		t.Errorf("without a proof: %v", err)
	}
	for _, size := range []uint64{0, uint64(latest.Size), 1 << 63} {
		if proof, err := a.Consistency(size); len(proof) > 0 || err != nil {
			t.Errorf("of %d records: %v, %v", size, proof, err)
		}
	}
}

// The index that a head names is one at which every node has as much of the ledger: a
// client that asks another node for no less is not shown a shorter one.
func TestHeadIndex(t *testing.T) {
	n := solo.New()
	size := map[uint64]int64{} // of the ledger, at each index
	note := func() {
		n.View(func(m *rounds.Machine, index uint64) {
			if l := m.Ledger(); l != nil {
				size[index] = l.Size()
			}
		})
	}
	n.BeginLedger(t)
	terms := solo.Terms("movies")
	terms.Spare = 3
	spec := n.Create(t, solo.Parameters(), terms)
	note()
	shown := open(t, n)
	for attempt := 1; attempt <= 3; attempt++ {
		for _, c := range []rounds.Command{
			rounds.OpenRound{Job: spec.Job, Round: 1, Attempt: attempt},
			rounds.Run{Job: spec.Job}, // is not on record
			rounds.CloseRound{Job: spec.Job, Round: 1, Attempt: attempt},
			rounds.Run{Job: spec.Job},
		} {
			n.Do(t, c)
			note()
			if h := head(t, shown); size[h.Index] < h.Checkpoint.Size {
				t.Fatalf("%d records by index %d, where there are %d", h.Checkpoint.Size, h.Index, size[h.Index])
			}
		}
	}
}

// An open attempt's reservation is under the checkpoint; what was never opened has none.
func TestReservation(t *testing.T) {
	n := solo.New()
	n.BeginLedger(t)
	shown := open(t, n)
	terms := solo.Terms("movies")
	terms.Spare = 3
	spec := n.Create(t, solo.Parameters(), terms)
	terms.Job = "books"
	n.Create(t, solo.Parameters(), terms)
	n.Do(t, rounds.OpenRound{Job: "books", Round: 1, Attempt: 1})
	for attempt := 1; attempt <= 3; attempt++ {
		if in, err := head(t, shown).Reservation(spec.Job, 1, attempt); in != nil || err != nil {
			t.Errorf("before attempt %d: %v, %v", attempt, in, err)
		}
		n.Do(t, rounds.OpenRound{Job: spec.Job, Round: 1, Attempt: attempt})
		h := head(t, shown)
		for range 2 { // looked for, and remembered
			in, err := h.Reservation(spec.Job, 1, attempt)
			must(t, err)
			if in == nil {
				t.Fatalf("attempt %d has no reservation", attempt)
			}
			must(t, opened(t, h, solo.PublicKey).Includes(in.Record, in.Index, in.Proof))
			e, err := ledger.Decode(in.Record)
			must(t, err)
			if c, ok := e.(*ledger.AttemptCharged); !ok || c.Job != spec.Job || c.Round != 1 || c.Attempt != attempt || c.Charge != spec.Releases[0].Charge {
				t.Errorf("attempt %d: %s", attempt, in.Record)
			}
		}
		n.Do(t, rounds.CloseRound{Job: spec.Job, Round: 1, Attempt: attempt})
	}
	// The other job's is where it was, under the latest checkpoint.
	h := head(t, shown)
	in, err := h.Reservation("books", 1, 1)
	must(t, err)
	must(t, opened(t, h, solo.PublicKey).Includes(in.Record, in.Index, in.Proof))
}

func newKey(t testing.TB, origin string) (secret, public string) {
	t.Helper()
	secret, public, err := ledger.NewKey(origin)
	must(t, err)
	return secret, public
}

func appendLine(t testing.TB, path, line string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = fmt.Fprintln(f, line)
	must(t, errors.Join(err, f.Close()))
}

// A rotation is taken up by the nodes that have the next key, without being restarted;
// the others show nothing until they have it. Who holds the first key follows.
func TestRotation(t *testing.T) {
	n := solo.New()
	n.BeginLedger(t)
	hasFile, lacksFile := solo.KeyFile(t), solo.KeyFile(t)
	has, lacks := open(t, n, hasFile), open(t, n, lacksFile)
	head(t, lacks)
	secret, public := newKey(t, solo.Origin)
	if _, err := has.Rotation(public); !errors.Is(err, notary.ErrNoKey) {
		t.Fatalf("a key that no file has: %v", err)
	}
	appendLine(t, hasFile, secret)
	rotation, err := has.Rotation(public)
	must(t, err)
	n.Do(t, rotation)

	h := head(t, has)
	if h.Key != public || len(h.Rotations) != 1 {
		t.Fatalf("signed with %s, after %d rotations", h.Key, len(h.Rotations))
	}
	e, err := ledger.Decode(h.Rotations[0])
	must(t, err)
	followed, err := ledger.FollowKeys(solo.PublicKey, []*ledger.KeyRotated{e.(*ledger.KeyRotated)})
	must(t, err)
	_, err = ledger.OpenCheckpoint(h.Note, followed)
	must(t, err)
	old, err := ledger.ParseKey(solo.PublicKey)
	must(t, err)
	if _, err := ledger.OpenCheckpoint(h.Note, old); !errors.Is(err, ledger.ErrSignature) {
		t.Errorf("by the old key alone: %v", err)
	}

	if _, err := lacks.Head(); !errors.Is(err, notary.ErrNoKey) || len(lacks.NotReady()) != 1 {
		t.Fatalf("without the key: %v, %q", err, lacks.NotReady())
	}
	appendLine(t, lacksFile, secret)
	for start := time.Now(); len(lacks.NotReady()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			t.Fatalf("the key is in the file: %q", lacks.NotReady())
		}
	}
	if !bytes.Equal(head(t, lacks).Note, h.Note) {
		t.Error("two nodes sign two checkpoints")
	}
}

// Why a key cannot be used is said of the file that is to have it, every time that it is
// asked, and without the key.
func TestNotReady(t *testing.T) {
	n := solo.New()
	n.BeginLedger(t)
	other, _ := newKey(t, solo.Origin)
	elsewhere, _ := newKey(t, "books.example.org")
	for _, c := range []struct {
		name   string
		secret string // the file's, when the node starts
		change func(path string)
		want   string
	}{
		{"another key", other, func(string) {}, "has not the key solo.example/ledger+105ffe9e"},
		{"another ledger's", elsewhere, func(string) {}, "has keys of the ledger books.example.org only, and not solo.example/ledger+105ffe9e"},
		{"for everybody by now", other, func(path string) { must(t, os.Chmod(path, 0o644)) }, "chmod 600"},
		{"spoilt by now", other, func(path string) { appendLine(t, path, "rubbish") }, "line 2 is no secret key"},
		{"gone by now", other, func(path string) { must(t, os.Remove(path)) }, "no such file"},
		{"a directory by now", other, func(path string) { must(t, errors.Join(os.Remove(path), os.Mkdir(path, 0o755))) }, "it is a directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "ledger.key")
			must(t, os.WriteFile(path, []byte(c.secret+"\n"), 0o600))
			lacks := open(t, n, path)
			c.change(path)
			told := func() (last string) {
				why := lacks.NotReady()
				if len(why) != 1 || !strings.HasPrefix(why[0], notary.NotReadyPrefix) {
					t.Fatalf("%q", why)
				}
				return why[0]
			}
			for start := time.Now(); !strings.Contains(told(), c.want); time.Sleep(10 * time.Millisecond) {
				if time.Since(start) > 30*time.Second {
					t.Fatal(told())
				}
			}
			for range 3 { // whether the files are read again or not
				if why := told(); !strings.Contains(why, path) || !strings.Contains(why, c.want) || strings.Contains(why, c.secret[len(c.secret)-12:]) {
					t.Error(why)
				}
			}
		})
	}
}

func TestKeyFiles(t *testing.T) {
	secret, public := newKey(t, "movies.example.org")
	other, _ := newKey(t, "books.example.org")
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, []byte(text), mode))
		return path
	}
	good := file("good", "# a key\n\n  "+secret+"  \n"+secret, 0o600)
	keys, err := notary.LoadKeys([]string{good})
	must(t, err)
	if first := keys.First(); first.Origin != "movies.example.org" || first.Public != public {
		t.Errorf("%+v, want %s", first, public)
	}
	if _, err := notary.LoadKeys(nil); !errors.Is(err, notary.ErrNoFile) {
		t.Errorf("no files: %v", err)
	}
	for name, path := range map[string]string{
		"no file":     filepath.Join(dir, "nowhere"),
		"a directory": dir,
		"empty":       file("empty", "# nothing\n", 0o600),
		"public":      file("public", public, 0o600),
		"cut off":     file("cut", secret[:len(secret)-4], 0o600),
		"for others":  file("others", secret, 0o640),
		"another's":   file("another", other, 0o600),
	} {
		_, err := notary.LoadKeys([]string{good, path})
		mistake, ok := errors.AsType[*notary.KeyError](err)
		if name == "a directory" && !strings.Contains(err.Error(), "it is a directory") {
			t.Errorf("%s: %v", name, err)
		}
		if !ok || mistake.Path != path || bytes.Contains([]byte(err.Error()), []byte(secret[len(secret)-12:])) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a notary hands out verifies, with the specifications that it names and no other.
func TestBundle(t *testing.T) {
	n := solo.New()
	n.BeginLedger(t)
	spec := n.Create(t, solo.Parameters(), solo.Terms("movies"))
	n.Do(t, rounds.OpenRound{Job: spec.Job, Round: 1, Attempt: 1})
	b, err := open(t, n).Bundle()
	must(t, err)
	h, err := ledger.Verify(b, solo.PublicKey, ledger.Checkpoint{})
	must(t, err)
	if len(h.Jobs) != 1 || len(b.Specifications) != 1 || h.Jobs[0].Spent != spec.Releases[0].Charge {
		t.Errorf("%d jobs, %d specifications", len(h.Jobs), len(b.Specifications))
	}
}

// BenchmarkPoll is what a poll adds in a ledger of 100,000 records: the head, the proof
// that it extends another, an attempt's reservation.
//
//	go test -run xxx -bench Poll ./server/notary
func BenchmarkPoll(b *testing.B) {
	n := solo.New()
	n.BeginLedger(b)
	terms := solo.Terms("canary")
	spec := n.Create(b, solo.Parameters(), terms)
	for i := range 100_000 {
		n.Do(b, rounds.RecordCanary{Measured: ledger.CanaryMeasured{
			Job: spec.Job, By: "auditor/ada", Delta: "1e-06", Confidence: 950_000, Trials: uint64(i + 1), Measured: 1, How: "by hand",
		}})
	}
	n.Do(b, rounds.OpenRound{Job: spec.Job, Round: 1, Attempt: 1})
	shown := open(b, n)
	start := time.Now()
	head(b, shown)
	first := time.Since(start)
	b.ReportAllocs()
	for b.Loop() {
		h := head(b, shown)
		if _, err := h.Consistency(77_777); err != nil {
			b.Fatal(err)
		}
		if in, err := h.Reservation(spec.Job, 1, 1); in == nil || err != nil {
			b.Fatal(in, err)
		}
	}
	b.ReportMetric(float64(first.Microseconds()), "µs/first")
}
