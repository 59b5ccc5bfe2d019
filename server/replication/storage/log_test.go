package storage

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/metadb"
)

const testSegment = 4 << 10

func testLog(t testing.TB, dir string) (*Log, error) {
	t.Helper()
	g := newGuard(nil, time.Minute, func(err error) { t.Errorf("fatal: %v", err) })
	t.Cleanup(g.close)
	return openLog(dir, testSegment, g, hclog.NewNullLogger())
}

func mustLog(t testing.TB, dir string) *Log {
	t.Helper()
	l, err := testLog(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func entries(first, n int) (out []*raft.Log) {
	for i := first; i < first+n; i++ {
		e := &raft.Log{
			Index: uint64(i), Term: uint64(i/10 + 1), Type: raft.LogCommand,
			Data: bytes.Repeat([]byte{byte(i)}, 40+i%7), AppendedAt: time.Unix(0, int64(i+1)),
		}
		if i%3 == 0 {
			e.Extensions = []byte("extension")
		}
		out = append(out, e)
	}
	return out
}

// fill appends entries 1 to n, three a batch.
func fill(t testing.TB, l *Log, n int) {
	t.Helper()
	for i := 1; i <= n; i += 3 {
		if err := l.StoreLogs(entries(i, min(3, n-i+1))); err != nil {
			t.Fatal(err)
		}
	}
}

// equal fails unless the log holds the entries 1 to n as fill wrote them.
func equal(l *Log, n int) error {
	last, err := l.LastIndex()
	if err != nil {
		return err
	}
	if last != uint64(n) {
		return fmt.Errorf("the last entry is %d, want %d", last, n)
	}
	for i, want := range entries(1, n) {
		var got raft.Log
		if err := l.GetLog(uint64(i+1), &got); err != nil {
			return err
		}
		if !reflect.DeepEqual(&got, want) {
			return fmt.Errorf("entry %d: %+v, want %+v", i+1, got, want)
		}
	}
	return nil
}

func TestLogRestarts(t *testing.T) {
	dir := t.TempDir()
	l := mustLog(t, dir)
	fill(t, l, 100) // several segments
	if err := l.SetUint64([]byte("CurrentTerm"), 7); err != nil {
		t.Fatal(err)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	l = mustLog(t, dir)
	if err := equal(l, 100); err != nil {
		t.Error(err)
	}
	if term, err := l.GetUint64([]byte("CurrentTerm")); term != 7 || err != nil {
		t.Errorf("term %d, %v, want 7", term, err)
	}
	if none, err := l.Get([]byte("nothing")); none != nil || err != nil {
		t.Errorf("a value that was never set: %q, %v", none, err)
	}
}

// A follower's log loses its tail when a new leader has other entries there. A
// log that was cut, and then restarted, must go on (raft-wal before v0.4.1 does
// not: its issue 31).
func TestLogRestartsAfterItsTailWasCut(t *testing.T) {
	dir := t.TempDir()
	l := mustLog(t, dir)
	fill(t, l, 10)
	if err := l.DeleteRange(7, 10); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
		l = mustLog(t, dir)
		if err := equal(l, 6); err != nil {
			t.Error(err)
		}
	}
	if err := l.StoreLogs(entries(7, 10)); err != nil {
		t.Fatal(err)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	if err := equal(mustLog(t, dir), 16); err != nil {
		t.Error(err)
	}
}

func TestLogForgetsItsHead(t *testing.T) {
	dir := t.TempDir()
	l := mustLog(t, dir)
	fill(t, l, 200)
	all, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil {
		t.Fatal(err)
	}
	before := len(all)
	if err := l.DeleteRange(1, 150); err != nil {
		t.Fatal(err)
	}
	if first, err := l.FirstIndex(); first != 151 || err != nil {
		t.Errorf("first entry %d, %v, want 151", first, err)
	}
	if err := l.GetLog(150, new(raft.Log)); err != raft.ErrLogNotFound {
		t.Errorf("a deleted entry: %v", err)
	}
	segments, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil || len(segments) == 0 || len(segments) >= before {
		t.Errorf("%d segments after most entries went, %d before: %v", len(segments), before, err)
	}
}

// Every single bit that flips in a log that was closed is found, or was of no
// meaning (padding, free pages).
func TestFlippedBits(t *testing.T) {
	const n = 60
	dir := t.TempDir()
	l := mustLog(t, dir)
	fill(t, l, n)
	if err := l.SetUint64([]byte("CurrentTerm"), 7); err != nil {
		t.Fatal(err)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	original := map[string][]byte{}
	for _, f := range files {
		if original[f.Name()], err = os.ReadFile(filepath.Join(dir, f.Name())); err != nil {
			t.Fatal(err)
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	found := 0
	for name, content := range original {
		flips := 150
		if testing.Short() {
			flips = 20
		}
		for range flips {
			at := rnd.IntN(len(content))
			if name != metadb.FileName {
				at = rnd.IntN(len(bytes.TrimRight(content, "\x00")))
			}
			damaged := bytes.Clone(content)
			damaged[at] ^= 1 << rnd.IntN(8)
			again := t.TempDir()
			for other, b := range original {
				if other == name {
					b = damaged
				}
				if err := os.WriteFile(filepath.Join(again, other), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l, err := testLog(t, again)
			if err != nil {
				if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "goroutine") {
					t.Errorf("%s, byte %d: not one line: %v", name, at, err)
				}
				found++
				continue
			}
			err = equal(l, n)
			if term, termErr := l.GetUint64([]byte("CurrentTerm")); term != 7 || termErr != nil {
				err = errors.Join(err, fmt.Errorf("term %d, %v", term, termErr))
			}
			if err != nil {
				t.Errorf("%s, byte %d: damaged, and opened: %v", name, at, err)
			}
			l.wal.Close()
		}
	}
	if found == 0 {
		t.Error("no flipped bit was found at all")
	}
}

// A crash tears the batch that was being written, and no other.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	l := mustLog(t, dir)
	fill(t, l, 9)
	segments, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	before, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := l.StoreLogs(entries(10, 3)); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	begin, end := len(bytes.TrimRight(before, "\x00")), len(bytes.TrimRight(after, "\x00"))
	l.wal.Close() // not in good order: without its mark
	for torn := begin; torn < end; torn += 5 {
		again := t.TempDir()
		meta, err := os.ReadFile(filepath.Join(dir, metadb.FileName))
		if err != nil {
			t.Fatal(err)
		}
		b := bytes.Clone(after)
		clear(b[torn:])
		for name, content := range map[string][]byte{metadb.FileName: meta, filepath.Base(segments[0]): b} {
			if err := os.WriteFile(filepath.Join(again, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		l := mustLog(t, again)
		if err := equal(l, 9); err != nil {
			t.Errorf("torn at byte %d of %d to %d: %v", torn, begin, end, err)
		}
		if err := l.StoreLogs(entries(10, 3)); err != nil {
			t.Error(err)
		}
		if err := equal(l, 12); err != nil {
			t.Errorf("torn at byte %d, written again: %v", torn, err)
		}
		l.wal.Close()
	}
}

func FuzzCodec(f *testing.F) {
	for _, e := range append(entries(1, 4), &raft.Log{Index: 1, Type: raft.LogNoop}) {
		var b bytes.Buffer
		if err := (codec{}).Encode(e, &b); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e raft.Log
		if err := (codec{}).Decode(b, &e); err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		var again bytes.Buffer
		if err := (codec{}).Encode(&e, &again); err != nil || !bytes.Equal(again.Bytes(), b) {
			t.Fatalf("%x came back as %x, %v", b, again.Bytes(), err)
		}
	})
}
