package replication

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/undertone-fl/undertone/aggregation/rounds"
)

func (c *cluster) suffrage(name string) string {
	for _, s := range c.leader().servers() {
		if string(s.ID) == name {
			return s.Suffrage.String()
		}
	}
	return "none"
}

func peersOf(c *cluster) func(*Config) {
	peers := c.peers()
	return func(c *Config) { c.Peers = peers }
}

func TestJoinPromoteLeave(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(3)
	c.leader().begin()
	c.leader().must(contribution("job", 1, 1, 1))

	d := c.place("d").start(peersOf(c))
	c.wait("d votes", func() bool { return c.suffrage("d") == "Voter" })
	e := c.place("e").start(peersOf(c), func(c *Config) { c.Learner = true })
	c.wait("e learns", func() bool { return c.suffrage("e") == "Nonvoter" && len(e.NotReady()) == 0 })
	for i, m := range []*member{d, e} {
		m.must(contribution("job", 1, 1, 2+i))
		if got := m.members(); got != 2+i {
			t.Errorf("%s has %d contributions, want %d", m.name, got, 2+i)
		}
	}
	c.agree()

	ctx := context.Background()
	if err := led(func() error { return d.PromoteNode(ctx, "e") }); err != nil || c.suffrage("e") != "Voter" {
		t.Errorf("promote e: %v, it is %s", err, c.suffrage("e"))
	}
	if err := led(func() error { return d.RemoveNode(ctx, "nobody") }); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("remove a node that is none: %v", err)
	}
	if err := led(func() error { return e.RemoveNode(ctx, "d") }); err != nil {
		t.Errorf("remove d: %v", err)
	}
	c.wait("d is out", func() bool { return c.suffrage("d") == "none" })
	d.close()
	delete(c.nodes, "d")
	c.agree()

	if err := led(func() error { return e.TransferLeadership(ctx, "e") }); err != nil {
		t.Errorf("transfer: %v", err)
	}
	c.wait("e leads", func() bool { return c.leader() == e })
	if err := led(func() error { return c.nodes["a"].TransferLeadership(ctx, "nobody") }); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("transfer to a node that is none: %v", err)
	}
}

func TestRemoveTheLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(3)
	l := c.leader()
	l.begin()
	if err := led(func() error { return l.RemoveNode(context.Background(), l.name) }); err != nil {
		t.Fatal(err)
	}
	c.wait("it knows", func() bool {
		return slices.ContainsFunc(l.NotReady(), func(s string) bool { return strings.Contains(s, "not a member") })
	})
	l.close()
	delete(c.nodes, l.name)
	c.agree()
	if n := len(c.leader().servers()); n != 2 {
		t.Errorf("%d members, want 2", n)
	}
}

// While nobody has noticed yet that the leader is gone, a change of the membership
// is told so, and may be asked for again.
func TestMembershipWithoutALeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(3)
	l, f := c.leader(), c.follower()
	l.partition()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for err := f.RemoveNode(ctx, l.name); err != nil; err = f.RemoveNode(ctx, l.name) {
		if !errors.Is(err, ErrNoLeader) && !errors.Is(err, ErrIndeterminate) {
			t.Fatal(err)
		}
	}
}

func TestTheLastVoteStays(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.place("a").start(expect(1))
	c.leader()
	if err := led(func() error { return a.RemoveNode(context.Background(), "a") }); !errors.Is(err, ErrMembership) {
		t.Errorf("remove the only node: %v", err)
	}
}

// A node that moved tells the others where it is now.
func TestAddressChanges(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(3)
	c.leader().begin()
	f := c.follower()
	f.close()
	f.address = freeAddress(t)
	f.moved()
	f.start(peersOf(c))
	c.wait("the new address", func() bool {
		return slices.ContainsFunc(c.leader().servers(), func(s raft.Server) bool {
			return string(s.ID) == f.name && string(s.Address) == f.address && s.Suffrage == raft.Voter
		})
	})
	c.agree()
}

// A voter that comes back without its data has forgotten what it acknowledged:
// it is not taken for what it was.
func TestLostDirectory(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(3)
	c.leader().begin()
	ctx := context.Background()
	req := c.follower()
	req.close()
	fresh := c.place("fresh")
	fresh.name = req.name // same name, another directory and address
	fresh.moved()
	fresh.c.nodes["fresh"] = fresh
	old := c.dir
	c.dir = t.TempDir()
	fresh.start(peersOf(c))
	c.dir = old
	c.wait("the refusal", func() bool {
		return slices.ContainsFunc(fresh.NotReady(), func(s string) bool { return strings.Contains(s, "lost its data directory") })
	})
	if err := led(func() error { return c.leader().RemoveNode(ctx, req.name) }); err != nil {
		t.Fatal(err)
	}
	delete(c.nodes, req.name)
	c.wait("it joins", func() bool { return c.suffrage(req.name) == "Voter" })
	c.agree()
}

// A node that joins again under its old name fetches a log that begins with its
// vote of old, and is ready once it has its new one: also if it ends, and starts
// again, before that.
func TestReadyNodeVotes(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(3)
	c.leader().begin()
	f := c.follower()
	for i := range 3 {
		for k := range 200 {
			c.leader().must(contribution("job", 1, 1, 1000*i+k))
		}
		if err := c.leader().RemoveNode(context.Background(), f.name); err != nil {
			t.Fatal(err)
		}
		f.close()
		if err := os.RemoveAll(f.dir()); err != nil {
			t.Fatal(err)
		}
		f.start(peersOf(c))
		if i > 0 {
			c.wait("it is a member", f.Node.member)
			f.close()
			f.start(peersOf(c))
		}
		c.wait("it is ready", func() bool { return len(f.NotReady()) == 0 })
		if got := c.suffrage(f.name); got != "Voter" {
			t.Errorf("%s is ready, and a %s", f.name, got)
		}
	}
	c.agree()
}

func TestOtherClustersAreRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.place("a").start(expect(1))
	b := c.place("b")
	b.start(func(c *Config) { c.Cluster, c.Peers = "other", []string{a.address} })
	c.wait("the refusal", func() bool {
		return slices.ContainsFunc(b.NotReady(), func(s string) bool { return strings.Contains(s, `cluster "test"`) })
	})
	delete(c.nodes, "b")
	if n := len(c.leader().servers()); n != 1 {
		t.Errorf("%d members, want 1", n)
	}
	b.close()
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	m := c.place("a")
	for want, change := range map[string]func(*Config){
		"name":             func(c *Config) { c.Name = "b" },
		"cluster":          func(c *Config) { c.Cluster = "" },
		"advertise":        func(c *Config) { c.Advertise = "0.0.0.0:1" },
		"heartbeat":        func(c *Config) { c.Heartbeat = 1 },
		"bootstrap-expect": func(c *Config) { c.Expect = -1 },
		"learner":          func(c *Config) { c.Expect, c.Learner = 1, true },
		"peers":            func(c *Config) { c.Expect = 3 },
		"peers: the data":  func(c *Config) {},
	} {
		if err := m.open(change); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// A slow follower, that the log no longer reaches, catches up by snapshot.
func TestCatchUpBySnapshot(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.form(3)
	c.leader().begin()
	f := c.follower()
	f.close()
	l := c.leader()
	for i := range 50 {
		l.must(contribution("job", 1, 1, i))
	}
	for _, m := range c.nodes {
		if m.closed {
			continue
		}
		r := m.raft.ReloadableConfig()
		r.TrailingLogs = 1
		if err := m.raft.ReloadConfig(r); err != nil {
			t.Fatal(err)
		}
		c.wait("the membership is applied", func() bool { return m.raft.Snapshot().Error() == nil })
	}
	if first, err := l.Node.dir.Log.FirstIndex(); err != nil || first < 50 {
		t.Fatalf("the log begins at %d, %v: nothing to catch up by snapshot", first, err)
	}
	f.start()
	c.agree()
	if got := f.members(); got != 50 {
		t.Errorf("%d contributions, want 50", got)
	}
	// And again from what it has on its disk.
	f.close()
	f.start()
	c.agree()
	if err := f.again(contribution("job", 1, 1, 49)); !isRefused(err, rounds.Counted) {
		t.Errorf("a contribution from before the snapshot: %v, want counted", err)
	}
}
