package replication

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/undertone-fl/undertone/aggregation/rounds"
)

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
	hash := f.replica.last()

	other := newCluster(t)
	d := other.place("d")
	for at := 0; at < backup.Len(); at += 97 {
		bad := bytes.Clone(backup.Bytes())
		bad[at] ^= 1
		if err := RestoreBackup(d.dir(), "d", d.address, bytes.NewReader(bad)); err == nil || strings.Contains(err.Error(), "\n") {
			t.Fatalf("byte %d of a backup flipped: %v", at, err)
		}
	}
	if err := RestoreBackup(d.dir(), "d", d.address, bytes.NewReader(backup.Bytes())); err != nil {
		t.Fatal(err)
	}
	if err := RestoreBackup(d.dir(), "d", d.address, bytes.NewReader(backup.Bytes())); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("restored over what was there: %v", err)
	}
	d.start()
	other.leader()
	if got := d.replica.last(); got != hash {
		t.Errorf("restored state %x at %d, want %x at %d", got.hash, got.index, hash.hash, hash.index)
	}
	d.must(contribution("job", 1, 1, 10))
	if err := d.again(contribution("job", 1, 1, 3)); !isRefused(err, rounds.Counted) {
		t.Errorf("a contribution from before the backup: %v, want counted", err)
	}
	e := other.place("e").start(peersOf(other))
	other.wait("e votes", func() bool { return other.suffrage("e") == "Voter" && e.members() == 11 })
	other.agree()
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
