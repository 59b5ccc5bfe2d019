package replication

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/undertone-fl/undertone/aggregation/rounds"
)

func TestOneNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.place("a").start(expect(1))
	a.begin()
	first := contribution("job", 1, 1, 1)
	index := a.must(first)
	if err := a.again(first); !isRefused(err, rounds.Counted) {
		t.Errorf("a contribution twice: %v, want counted", err)
	}
	if err := a.WaitIndex(context.Background(), index); err != nil {
		t.Error(err)
	}
	if err := a.Verify(context.Background()); err != nil {
		t.Error(err)
	}
	if why := a.NotReady(); why != nil {
		t.Errorf("not ready: %v", why)
	}
	before := a.replica.last()
	a.close()
	if _, err := a.Propose(context.Background(), first); !errors.Is(err, ErrStopped) {
		t.Errorf("propose to a closed node: %v", err)
	}
	a.start()
	c.leader()
	if after := a.replica.last(); after != before {
		t.Errorf("after a restart the state is %x at %d, was %x at %d", after.hash, after.index, before.hash, before.index)
	}
}

func isRefused(err error, r rounds.Reason) bool {
	var refusal *rounds.Refusal
	return errors.As(err, &refusal) && refusal.Reason == r
}

func TestThreeNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(3)
	f := c.follower()
	changed := f.Changed()
	f.begin() // forwarded
	select {
	case <-changed:
	case <-time.After(patience):
		t.Error("Changed did not tell of a change")
	}
	for i, m := range []*member{c.leader(), f, c.leader(), f} {
		m.must(contribution("job", 1, 1, i))
		if got := m.members(); got != i+1 {
			t.Errorf("after %d contributions %s has %d", i+1, m.name, got)
		}
	}
	if err := f.again(contribution("job", 1, 1, 2)); !isRefused(err, rounds.Counted) {
		t.Errorf("a refusal through the leader: %v, want counted", err)
	} else {
		var refusal *rounds.Refusal
		errors.As(err, &refusal)
		if len(refusal.Counted) != 1 || refusal.Counted[0] != 0 {
			t.Errorf("the refusal names members %v, want [0]", refusal.Counted)
		}
	}
	if err := f.Verify(context.Background()); !errors.Is(err, ErrNoLeader) {
		t.Errorf("Verify on a follower: %v", err)
	}
	c.agree()
	members, err := f.Members(context.Background())
	if err != nil || len(members) != 3 {
		t.Fatalf("members: %v, %v", members, err)
	}
	for _, m := range members {
		if !m.Voter || !m.Reachable || m.Version != "v0" || m.APIAddress != "api."+m.Name || m.Leader != (m.Name == c.leader().name) {
			t.Errorf("member %+v", m)
		}
	}
}

func TestFailover(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(3)
	old := c.leader()
	old.begin()
	old.must(contribution("job", 1, 1, 1))
	old.close()
	f := c.follower()
	f.must(contribution("job", 1, 1, 2))
	if got := f.members(); got != 2 {
		t.Errorf("%d contributions after the leader went, want 2", got)
	}
	old.start()
	c.agree()
	if got := old.members(); got != 2 {
		t.Errorf("%d contributions on the node that came back, want 2", got)
	}
}

// TestTransferThatNeverEnds sets the mark that raft leaves after a transfer which
// an election interrupts.
func TestTransferThatNeverEnds(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.place("a").start(expect(1))
	a.begin()
	field := reflect.ValueOf(a.raft).Elem().FieldByName("leaderState").FieldByName("leadershipTransferInProgress")
	mark := (*int32)(unsafe.Pointer(field.UnsafeAddr()))

	// One that ends is waited for.
	atomic.StoreInt32(mark, 1)
	time.AfterFunc(2*transferLook, func() { atomic.StoreInt32(mark, 0) })
	a.must(contribution("job", 1, 1, 1))

	atomic.StoreInt32(mark, 1)
	if _, err := a.Propose(context.Background(), contribution("job", 1, 1, 2)); !errors.Is(err, ErrNoLeader) && !errors.Is(err, ErrStopped) {
		t.Errorf("a proposal meanwhile: %v", err)
	}
	select {
	case err := <-a.fatal:
		if !strings.Contains(err.Error(), "restart") {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(patience):
		t.Error("the node goes on, and refuses everything")
	}
}
