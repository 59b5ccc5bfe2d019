package replication

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/server/replication/encoding"
	"github.com/undertone-fl/undertone/server/replication/storage"
)

func (m *member) setFault(f func(storage.Op) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

// died waits for the one line that a node ends with.
func (m *member) died() error {
	m.c.t.Helper()
	select {
	case err := <-m.fatal:
		if strings.Contains(err.Error(), "\n") {
			m.c.t.Errorf("%s died with more than a line: %v", m.name, err)
		}
		return err
	case <-time.After(patience):
		m.c.t.Fatalf("%s did not die", m.name)
		return nil
	}
}

// A leader whose disk is full, or hangs, ends; the others elect another one, and
// nothing that was acknowledged is lost.
func TestDiskFailsOnTheLeader(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	for name, fault := range map[string]func(storage.Op) error{
		"full": func(storage.Op) error { return syscall.ENOSPC },
		"hung": func(storage.Op) error { <-release; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			// Not so short that a busy machine's disk takes as long.
			c.form(3, func(c *Config) { c.DiskPatience = 3 * time.Second })
			l := c.leader()
			l.begin()
			l.must(contribution("job", 1, 1, 1))
			l.setFault(fault)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if _, err := l.Propose(ctx, contribution("job", 1, 1, 2)); !errors.Is(err, ErrIndeterminate) && !errors.Is(err, ErrStopped) {
				t.Errorf("propose to a leader whose disk is %s: %v", name, err)
			}
			if err := l.died(); !strings.Contains(err.Error(), "disk") {
				t.Errorf("died of %v", err)
			}
			if why := l.NotReady(); len(why) != 1 || !strings.Contains(why[0], "disk") {
				t.Errorf("not ready: %v", why)
			}
			l.close()
			l.setFault(nil)
			f := c.follower()
			if _, err := f.propose(contribution("job", 1, 1, 2)); err != nil && !isRefused(err, rounds.Counted) {
				t.Error(err)
			}
			if got := f.members(); got != 2 {
				t.Errorf("%d contributions, want 2", got)
			}
		})
	}
}

func TestDiskFailsOnAFollower(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(3)
	c.leader().begin()
	f := c.follower()
	f.setFault(func(op storage.Op) error {
		if op == storage.Append {
			return syscall.EIO
		}
		return nil
	})
	l := c.leader()
	l.must(contribution("job", 1, 1, 1))
	if err := f.died(); !errors.Is(err, syscall.EIO) {
		t.Errorf("died of %v", err)
	}
	l.must(contribution("job", 1, 1, 2))
	f.close()
	f.setFault(nil)
	f.start()
	c.agree()
}

// A log entry or a snapshot of which a bit flipped on the disk is never applied:
// the node does not start, and says why in a line.
func TestFlippedBitsOnDisk(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.place("a").start(expect(1))
	a.begin()
	for i := range 20 {
		a.must(contribution("job", 1, 1, i))
	}
	if err := a.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	a.must(contribution("job", 1, 1, 20))
	a.close()
	var files []string
	for _, pattern := range []string{"log/*.wal", "snapshots/*/state.bin", "snapshots/*/meta.json"} {
		found, err := filepath.Glob(filepath.Join(a.dir(), pattern))
		if err != nil || len(found) != 1 {
			t.Fatal(pattern, found, err)
		}
		files = append(files, found...)
	}
	for _, name := range files {
		good, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(good)
		bad[len(bytes.TrimRight(good, "\x00"))/2] ^= 4
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := a.open(); err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), a.dir()) {
			t.Errorf("%s damaged: %v", name, err)
		}
		if err := os.WriteFile(name, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a.start()
	c.leader()
	if got := a.members(); got != 21 {
		t.Errorf("%d contributions, want 21", got)
	}
}

// An entry that goes bad while the node runs ends it when it is read.
func TestFlippedBitWhileRunning(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(3)
	l := c.leader()
	l.begin()
	f := c.follower()
	f.close()
	for i := range 20 {
		l.must(contribution("job", 1, 1, i))
	}
	segments, err := filepath.Glob(filepath.Join(l.dir(), "log/*.wal"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	file, err := os.OpenFile(segments[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	at := int64(len(bytes.TrimRight(content, "\x00"))) - 500 // an entry that the follower lacks
	if _, err := file.WriteAt([]byte{content[at] ^ 1}, at); err != nil {
		t.Fatal(err)
	}
	file.Close()
	f.start()
	if err := l.died(); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("died of %v", err)
	}
	l.close()
	f.must(contribution("job", 1, 1, 21))
}

// A node whose state went wrong finds itself alone with it, stops serving, says
// so, and does not come back.
func TestDivergence(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(3)
	odd := c.leader()
	odd.begin()
	odd.replica.mu.Lock()
	odd.replica.corrupt = func(_ uint64, effect *rounds.Digest) { effect[0] ^= 1 }
	odd.replica.mu.Unlock()
	odd.must(contribution("job", 1, 1, 1))
	c.wait("it notices", func() bool {
		_, err := odd.Propose(context.Background(), contribution("job", 1, 1, 2))
		return errors.Is(err, ErrDiverged)
	})
	ctx := context.Background()
	for what, err := range map[string]error{
		"WaitIndex": odd.WaitIndex(ctx, 1), "Verify": odd.Verify(ctx), "RemoveNode": odd.RemoveNode(ctx, "b"),
		"Backup": odd.Backup(ctx, new(bytes.Buffer)),
	} {
		if !errors.Is(err, ErrDiverged) {
			t.Errorf("%s on a node that diverged: %v", what, err)
		}
	}
	if why := odd.NotReady(); len(why) != 1 || !strings.Contains(why[0], "differs") {
		t.Errorf("not ready: %v", why)
	}
	// The others go on, and see it.
	name, next := odd.name, 10
	for _, m := range c.nodes {
		if m != odd {
			next++
			m.must(contribution("job", 1, 1, next))
			members, err := m.Members(ctx)
			if err != nil {
				t.Error(err)
			}
			for _, member := range members {
				if member.Diverged != (member.Name == name) {
					t.Errorf("%s sees %s diverged: %v", m.name, member.Name, member.Diverged)
				}
			}
		}
	}
	odd.close()
	odd.start()
	if _, err := odd.Propose(ctx, contribution("job", 1, 1, 4)); !errors.Is(err, ErrDiverged) {
		t.Errorf("after a restart: %v", err)
	}
}

// A command that this version does not know ends the node before it is applied.
func TestUnknownCommandIsFatal(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.place("a").start(expect(1))
	l := c.leader()
	newer := []byte{0x08, encoding.CommandVersion + 1}
	go a.raft.Apply(newer, 0).Error()
	if err := l.died(); !errors.Is(err, encoding.ErrNewer) {
		t.Errorf("died of %v", err)
	}
}

// The leader is cut off: the others go on, it does not, and what it was asked in
// the meantime is said to be unknown or not done.
func TestPartition(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(3)
	old := c.leader()
	old.begin()
	old.must(contribution("job", 1, 1, 1))
	old.partition()
	other := c.leader()
	if other == old {
		t.Fatal("the node that is cut off leads")
	}
	other.must(contribution("job", 1, 1, 2))
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if _, err := old.Propose(ctx, contribution("job", 1, 1, 3)); err == nil {
		t.Error("a node that is cut off acknowledged a command")
	}
	if err := old.Verify(context.Background()); !errors.Is(err, ErrNoLeader) {
		t.Errorf("Verify on the old leader: %v", err)
	}
	old.heal()
	c.agree()
	got := other.members()
	if got != 2 && got != 3 {
		t.Errorf("%d contributions, want 2, or 3 if the unacknowledged one got through", got)
	}
}

// Without a majority nothing is acknowledged; with it again, all goes on.
func TestMajorityLost(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(3)
	c.leader().begin()
	l := c.leader()
	for _, m := range c.nodes {
		if m != l {
			m.partition()
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := l.Propose(ctx, contribution("job", 1, 1, 1)); err == nil {
		t.Error("acknowledged without a majority")
	}
	c.wait("it steps down", func() bool { leads, _ := l.Leading(); return !leads })
	for _, m := range c.nodes {
		m.heal()
	}
	c.leader()
	if _, err := l.propose(contribution("job", 1, 1, 1)); err != nil && !isRefused(err, rounds.Counted) {
		t.Error(err)
	}
	c.agree()
	if got := l.members(); got != 1 {
		t.Errorf("%d contributions, want 1", got)
	}
}
