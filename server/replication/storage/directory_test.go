package storage

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

var owner = Owner{Cluster: "c", Node: "n"}

func options(t testing.TB) Options {
	return Options{Logger: hclog.NewNullLogger(), Fatal: func(err error) { t.Errorf("fatal: %v", err) }}
}

func mustOpen(t testing.TB, path string) *Directory {
	t.Helper()
	d, err := Open(path, owner, options(t))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDirectoryRefusesWhatIsNotItsOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	d := mustOpen(t, path)
	if _, err := Open(path, owner, options(t)); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, path).Close()

	for _, other := range []Owner{{"c", "m"}, {"d", "n"}} {
		if _, err := Open(path, other, options(t)); !errors.Is(err, ErrForeign) {
			t.Errorf("opened as %v: %v", other, err)
		}
	}
	version := filepath.Join(path, versionFile)
	for content, want := range map[string]error{
		`{"version":2,"cluster":"c","node":"n"}`: ErrNewer,
		`{"version":`:                            nil,
		``:                                       nil,
	} {
		if err := os.WriteFile(version, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(path, owner, options(t))
		if err == nil || want != nil && !errors.Is(err, want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("VERSION %q: %v", content, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none"), Owner{}, options(t)); err == nil {
		t.Error("opened a directory that is not there")
	}
}

func takeSnapshot(t testing.TB, d *Directory, index uint64, content string) raft.SnapshotSink {
	t.Helper()
	_, transport := raft.NewInmemTransport("")
	servers := raft.Configuration{Servers: []raft.Server{{ID: "n", Address: "n:1"}}}
	sink, err := d.Snapshots.Create(1, index, 1, servers, 1, transport)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(sink, content); err != nil {
		t.Fatal(err)
	}
	return sink
}

func TestSnapshots(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path)
	for index, content := range []string{"one", "two", "three"} {
		if err := takeSnapshot(t, d, uint64(index+1), content).Close(); err != nil {
			t.Fatal(err)
		}
	}
	takeSnapshot(t, d, 4, "unfinished")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, path)
	meta, r, err := d.Snapshots.Latest()
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if string(content) != "three" || meta.Index != 3 || err != nil {
		t.Errorf("%q at %d, %v, want three at 3", content, meta.Index, err)
	}
	if list, err := d.Snapshots.List(); len(list) != retain || err != nil {
		t.Errorf("%d snapshots kept, %v, want %d", len(list), err, retain)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	for _, file := range []string{"state.bin", metaFile} {
		name := filepath.Join(path, snapshotDir, meta.ID, file)
		good, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for at := range good {
			bad := append([]byte(nil), good...)
			bad[at] ^= 1
			if err := os.WriteFile(name, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			g := newGuard(nil, time.Minute, func(error) {})
			s, err := openSnapshots(path, g, hclog.NewNullLogger())
			if err == nil {
				_, _, err = s.Latest()
			}
			if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), meta.ID) {
				t.Fatalf("%s with byte %d flipped: %v", file, at, err)
			}
			g.close()
		}
		if err := os.WriteFile(name, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mustOpen(t, path).Close()
}

// A gap between the snapshot and the log is no state to start from.
func TestDirectoryRefusesAGap(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path)
	fill(t, d.Log, 9)
	if err := takeSnapshot(t, d, 6, "six").Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Log.DeleteRange(1, 6); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, path).Close()
	if err := os.RemoveAll(filepath.Join(path, snapshotDir)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, owner, options(t)); err == nil {
		t.Error("opened without the snapshot")
	}
}

func TestDiskErrorsAreFatal(t *testing.T) {
	for _, op := range []Op{Append, Truncate, Stable, Snapshot} {
		var broken bool
		var fatal []error
		d, err := Open(t.TempDir(), owner, Options{
			Logger: hclog.NewNullLogger(),
			Fatal:  func(err error) { fatal = append(fatal, err) },
			Fault: func(o Op) error {
				if broken && o == op {
					return syscall.ENOSPC
				}
				return nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		fill(t, d.Log, 3)
		broken = true
		switch op {
		case Append:
			err = d.Log.StoreLogs(entries(4, 1))
		case Truncate:
			err = d.Log.DeleteRange(1, 2)
		case Stable:
			err = d.Log.SetUint64([]byte("CurrentTerm"), 1)
		case Snapshot:
			_, transport := raft.NewInmemTransport("")
			_, err = d.Snapshots.Create(1, 3, 1, raft.Configuration{}, 1, transport)
		}
		if !errors.Is(err, syscall.ENOSPC) || len(fatal) != 1 || !errors.Is(fatal[0], syscall.ENOSPC) || !strings.Contains(fatal[0].Error(), string(op)) {
			t.Errorf("%s: %v, fatal %v", op, err, fatal)
		}
		broken = false
		d.Close()
	}
}

func TestAHungDiskIsFatal(t *testing.T) {
	hang := make(chan struct{})
	fatal := make(chan error, 1)
	d, err := Open(t.TempDir(), owner, Options{
		Logger:   hclog.NewNullLogger(),
		Patience: 100 * time.Millisecond,
		Fatal:    func(err error) { fatal <- err },
		Fault: func(o Op) error {
			if o == Append {
				<-hang
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- d.Log.StoreLogs(entries(1, 1)) }()
	if err := <-fatal; !strings.Contains(err.Error(), "hangs") {
		t.Errorf("fatal: %v", err)
	}
	close(hang)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestDiverged(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path)
	if why, err := d.Diverged(); why != "" || err != nil {
		t.Errorf("a new directory: %q, %v", why, err)
	}
	if err := d.SetDiverged("because"); err != nil {
		t.Fatal(err)
	}
	d.Close()
	d = mustOpen(t, path)
	defer d.Close()
	if why, err := d.Diverged(); why != "because" || err != nil {
		t.Errorf("%q, %v", why, err)
	}
}

// TestTooManyOpenFiles has files run out while a snapshot is made: there is none
// this time, and that is all.
func TestTooManyOpenFiles(t *testing.T) {
	for _, out := range []error{syscall.EMFILE, syscall.ENFILE} {
		var full error
		o := options(t) // whose Fatal fails the test
		o.Fault = func(Op) error { return full }
		d, err := Open(filepath.Join(t.TempDir(), "data"), owner, o)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		_, transport := raft.NewInmemTransport("")
		full = &os.PathError{Op: "open", Path: "state.bin", Err: out}
		if _, err := d.Snapshots.Create(1, 1, 1, raft.Configuration{}, 1, transport); !errors.Is(err, out) {
			t.Errorf("a snapshot without files: %v, want %v", err, out)
		}
		full = nil
		if err := takeSnapshot(t, d, 1, "one").Close(); err != nil {
			t.Errorf("a snapshot afterwards: %v", err)
		}
	}
}

// What still runs when a directory is given up meets no error: raft would panic.
func TestAbandonedDirectoryStandsStill(t *testing.T) {
	d := mustOpen(t, t.TempDir())
	d.Abandon()
	read := make(chan error, 1)
	go func() { read <- d.Log.GetLog(1, new(raft.Log)) }()
	select {
	case err := <-read:
		t.Fatalf("read from a directory that was given up: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
}
