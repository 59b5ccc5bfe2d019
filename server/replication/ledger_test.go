package replication

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/ledger"
)

func beginLedger(t testing.TB) rounds.BeginLedger {
	t.Helper()
	const origin = "replication.example"
	_, public, err := note.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{1}, 64)), origin)
	if err != nil {
		t.Fatal(err)
	}
	return rounds.BeginLedger{Origin: origin, Key: public}
}

// ledger is the records of a node's ledger.
func (m *member) ledger() (records [][]byte) {
	m.View(func(machine *rounds.Machine, _ uint64) {
		if l := machine.Ledger(); l != nil {
			records = l.Records()
		}
	})
	return records
}

// The ledger is the same on all nodes, restarted ones and those that caught up by
// snapshot among them, and has the time of those who proposed.
func TestLedger(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(3)
	begin := time.Now()
	c.leader().begin()
	f := c.follower()
	f.must(beginLedger(t), contribution("job", 1, 1, 1), contribution("job", 1, 1, 2),
		rounds.CloseRound{Job: "job", Round: 1, Attempt: 1},
		rounds.ReleaseRound{Job: "job", Round: 1, Attempt: 1, State: rounds.BlobOf([]byte("state 1"))})
	if err := f.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	f.close()
	f.start()
	c.leader().must(rounds.OpenRound{Job: "job", Round: 2, Attempt: 1}, rounds.CloseJob{Job: "job"})
	c.place("x").start(peersOf(c))
	c.wait("x votes", func() bool { return c.suffrage("x") == "Voter" })
	c.leader().must(createJob(t, "another")) // what all will have
	var want [][]byte
	c.wait("all nodes have the same ledger", func() bool {
		want = c.leader().ledger()
		for _, m := range c.nodes {
			if !slices.EqualFunc(m.ledger(), want, bytes.Equal) {
				return false
			}
		}
		return true
	})
	const records = 8 // begun, job, attempt, release, attempt, failure, closed; job
	if len(want) != records {
		t.Fatalf("%d records, want %d:\n%s", len(want), records, bytes.Join(want, []byte("\n")))
	}
	for i, record := range want {
		e, err := ledger.Decode(record)
		if err != nil {
			t.Fatal(err)
		}
		if at := time.UnixMilli(e.At()); at.Before(begin.Truncate(time.Millisecond)) || at.After(time.Now()) {
			t.Errorf("record %d is of %v", i, at)
		}
	}
}

// Commands are dated if the ledger may record them, and there is one.
func TestDates(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.place("a").start(expect(1))
	c.leader().begin()
	isDated := func(c rounds.Command) bool { _, yes := a.date(c).(rounds.Dated); return yes }
	open := rounds.OpenRound{Job: "job", Round: 1, Attempt: 2}
	if isDated(open) || !isDated(beginLedger(t)) {
		t.Error("without a ledger, only its beginning has a date")
	}
	a.must(beginLedger(t))
	if !isDated(open) || isDated(contribution("job", 1, 1, 1)) || isDated(rounds.Stage{}) || isDated(rounds.Run{}) {
		t.Error("with a ledger, all has a date but collecting and staging")
	}
}

// In the middle of a rolling upgrade nothing is proposed at which a node would halt;
// nodes that are away do not stand in the way.
func TestMemberOfAnOlderRelease(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(3)
	l, old := c.leader(), c.follower()
	l.begin()
	old.reads.Store(1)
	for _, command := range []rounds.Command{beginLedger(t), rounds.CloseJob{Job: "job"}} {
		err := led(func() error { _, err := l.Propose(context.Background(), command); return err })
		if !errors.Is(err, ErrOldMember) || !strings.Contains(err.Error(), "upgrade "+old.name) {
			t.Errorf("%T: %v", command, err)
		}
	}
	for _, m := range c.nodes {
		if m == old {
			continue
		}
		c.wait("the others know of it", func() bool { return slices.Equal(m.Older(), []string{old.name}) })
	}
	l.must(contribution("job", 1, 1, 1))
	old.close()
	c.wait("nobody is known to be older", func() bool { return len(l.Older()) == 0 })
	c.leader().must(beginLedger(t))
	old.start()
	old.reads.Store(1)
	c.leader().must(rounds.CloseJob{Job: "job"}) // it would have halted before
	c.wait("the older release's node has it too", func() bool { return old.job().State == rounds.JobClosed })
}

// A backup's ledger goes on in the new cluster, with a record that says so.
func TestBackupHasTheLedger(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(1)
	a := c.leader()
	a.begin()
	a.must(beginLedger(t))
	before := a.ledger()
	var backup bytes.Buffer
	if err := a.Backup(context.Background(), &backup); err != nil {
		t.Fatal(err)
	}
	if got := a.ledger(); len(got) != len(before) {
		t.Errorf("a backup left %d records in the ledger of %d", len(got), len(before))
	}
	other := newCluster(t)
	d := other.place("d")
	if err := RestoreBackup(d.dir(), "d", d.address, bytes.NewReader(backup.Bytes()), nil); err != nil {
		t.Fatal(err)
	}
	d.start()
	other.leader()
	after := d.ledger()
	if len(after) != len(before)+2 || !slices.EqualFunc(after[:len(before)], before, bytes.Equal) {
		t.Fatalf("the ledger has\n%s\nand had\n%s", bytes.Join(after, []byte("\n")), bytes.Join(before, []byte("\n")))
	}
	for i, want := range []string{`{"record":"failure"`, `{"record":"restored"`} {
		if record := after[len(before)+i]; !bytes.HasPrefix(record, []byte(want)) {
			t.Errorf("%s, want %s", record, want)
		}
	}
}
