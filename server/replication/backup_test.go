package replication

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/server/replication/encoding"
)

// A cluster goes on after its backup: a device contributes, in the attempt that was
// open and in one after it. Restored, nothing is taken for what that device has seen.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(3)
	c.leader().begin()
	for i := range 10 {
		c.follower().must(contribution("job", 1, 1, i))
	}
	var backup bytes.Buffer
	f := c.follower()
	if err := f.Backup(context.Background(), &backup); err != nil {
		t.Fatal(err)
	}
	f.must(contribution("job", 1, 1, 10), rounds.CloseRound{Job: "job", Round: 1, Attempt: 1},
		rounds.FailRound{Job: "job", Round: 1, Attempt: 1, Why: "a test"}, rounds.OpenRound{Job: "job", Round: 1, Attempt: 2})
	seen := f.must(contribution("job", 1, 2, 10)) // what the device asks for from now on

	other := newCluster(t)
	d := other.place("d")
	for at := 0; at < backup.Len(); at += 97 {
		bad := bytes.Clone(backup.Bytes())
		bad[at] ^= 1
		if err := RestoreBackup(d.dir(), "d", d.address, bytes.NewReader(bad), nil); err == nil || strings.Contains(err.Error(), "\n") {
			t.Fatalf("byte %d of a backup flipped: %v", at, err)
		}
	}
	if err := RestoreBackup(d.dir(), "d", d.address, bytes.NewReader(backup.Bytes()), nil); err != nil {
		t.Fatal(err)
	}
	if err := RestoreBackup(d.dir(), "d", d.address, bytes.NewReader(backup.Bytes()), nil); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("restored over what was there: %v", err)
	}
	d.start()
	other.leader()
	if got := d.replica.last().index; got < seen {
		t.Errorf("the restored log begins at %d, and a device has seen %d", got, seen)
	}
	if err := d.again(contribution("job", 1, 1, 11)); !isRefused(err, rounds.NotOpen) {
		t.Errorf("a contribution to the attempt that was open: %v, want not open", err)
	}
	if err := d.again(rounds.OpenRound{Job: "job", Round: 1, Attempt: 2}); !isRefused(err, rounds.WrongRound) {
		t.Errorf("an attempt was opened whose number the device knows: %v", err)
	}
	job := d.job()
	if job.State != rounds.Paused || job.Attempts[0].Phase != rounds.Failed {
		t.Errorf("the restored job is %v, its attempt %v", job.State, job.Attempts[0].Phase)
	}
	next := job.Next
	d.must(rounds.Run{Job: "job"}, rounds.OpenRound{Job: "job", Round: 1, Attempt: next}, contribution("job", 1, next, 10))
	e := other.place("e").start(peersOf(other))
	other.wait("e votes", func() bool { return other.suffrage("e") == "Voter" && e.members() == 1 })
	other.agree()
}

// Of two backups of one round neither has what was contributed, so that their
// difference has not what was contributed between them.
func TestBackupLeavesOpenSumsOut(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(1)
	a := c.leader()
	a.begin()
	a.must(contribution("job", 1, 1, 1))
	for _, phase := range []rounds.Phase{rounds.Collecting, rounds.Closed} {
		a.must(contribution("job", 1, 1, 2+int(phase)))
		if phase == rounds.Closed {
			a.must(rounds.CloseRound{Job: "job", Round: 1, Attempt: 1})
		}
		var backup bytes.Buffer
		if err := a.Backup(context.Background(), &backup); err != nil {
			t.Fatal(err)
		}
		state, err := encoding.ReadSnapshot(&backup)
		if err != nil {
			t.Fatal(err)
		}
		job := state.Snapshot.Jobs[0]
		if last := job.Attempts[0]; len(job.Sum) > 0 || last.Members > 0 || last.Sum != (rounds.Digest{}) || last.Phase != rounds.Failed {
			t.Errorf("the backup of an attempt that is %v has a sum of %d numbers, and %+v", phase, len(job.Sum), last)
		}
		if own := a.replica.state().Snapshot.Jobs[0]; len(own.Sum) != coordinates || own.Attempts[0].Phase != phase {
			t.Errorf("raft's own snapshot: a sum of %d numbers, %v", len(own.Sum), own.Attempts[0].Phase)
		}
	}
}

func TestRecoverFromALostMajority(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(3)
	c.leader().begin()
	for i := range 10 {
		c.leader().must(contribution("job", 1, 1, i))
	}
	c.agree()
	survivor := c.follower()
	for _, m := range c.nodes {
		m.close()
	}
	for _, m := range c.nodes {
		if m != survivor {
			delete(c.nodes, m.name)
		}
	}
	if err := Recover(survivor.dir(), map[string]string{"other": "127.0.0.1:1"}); err == nil {
		t.Error("recovered with a membership without the node")
	}
	if err := Recover(t.TempDir(), map[string]string{"a": "127.0.0.1:1"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("recovered from nothing: %v", err)
	}
	if err := Recover(survivor.dir(), map[string]string{survivor.name: survivor.address}); err != nil {
		t.Fatal(err)
	}
	survivor.start()
	c.leader()
	if got := survivor.members(); got != 10 {
		t.Errorf("%d contributions, want 10", got)
	}
	survivor.must(contribution("job", 1, 1, 10))
	c.place("x").start(peersOf(c))
	c.wait("x votes", func() bool { return c.suffrage("x") == "Voter" })
	c.agree()
}

func TestStageBlob(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(3)
	f := c.follower()
	ctx := context.Background()
	small, err := f.StageBlob(ctx, "job", 0, 0, make([]byte, InlineLimit))
	if err != nil || len(small.Bytes) != InlineLimit {
		t.Errorf("a small blob: %d bytes inline, %v", len(small.Bytes), err)
	}
	state := bytes.Repeat([]byte("state"), 300_000)
	blob, err := f.StageBlob(ctx, "job", 0, 0, state)
	if err != nil || blob.Bytes != nil {
		t.Fatalf("a large blob: %d bytes inline, %v", len(blob.Bytes), err)
	}
	create := createJob(t, "job")
	create.State = blob
	f.must(create)
	f.View(func(m *rounds.Machine, _ uint64) {
		j, _ := m.Job("job")
		if !bytes.Equal(j.Latest.Bytes, state) {
			t.Errorf("%d bytes of state came back", len(j.Latest.Bytes))
		}
	})
	create.State = rounds.BlobOf(state)
	if _, err := f.Propose(ctx, create); err == nil || !strings.Contains(err.Error(), "stage") {
		t.Errorf("a command that no entry holds: %v", err)
	}
	c.leader().must(rounds.Run{Job: "job"})
	c.agree()
}
