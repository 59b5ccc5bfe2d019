package replication

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/server/replication/encoding"
)

const (
	// compareEvery is how often nodes compare their running hashes.
	compareEvery = time.Second
	// doubt is how many comparisons in a row may find nodes that differ and no
	// majority, because others are not there, before this node stops.
	doubt = 3
)

// compare asks the other nodes, again and again, for their running hash at an
// index that both know, and stops serving when this node turns out to be the odd
// one.
func (n *Node) compare() {
	t := time.NewTicker(compareEvery)
	defer t.Stop()
	undecided := 0
	for {
		select {
		case <-n.stop:
			return
		case <-t.C:
		}
		same, differ, all := n.vote()
		switch {
		case len(differ) == 0:
			undecided = 0
			continue
		case 2*same > all:
			undecided = 0
			n.log.Error("other nodes' state differs from the majority's", "nodes", fmt.Sprint(differ))
			continue
		case same+len(differ) < all && undecided < doubt:
			undecided++
			continue
		}
		n.diverge(fmt.Sprintf("it differs from that of %v; of %d nodes %d agree with it", differ, all, same-1))
		return
	}
}

// vote counts the nodes whose state is this one's (with itself), and names those
// whose state is not.
func (n *Node) vote() (same int, differ []string, all int) {
	servers := n.servers()
	at := n.replica.last().index
	var mu sync.Mutex
	var wg sync.WaitGroup
	var older []string
	same = 1
	for _, s := range servers {
		if s.ID == raft.ServerID(n.config.Name) {
			continue
		}
		wg.Go(func() {
			info, err := n.ask(context.Background(), string(s.Address), at)
			if err != nil || info.GetName() != string(s.ID) {
				return
			}
			agree, known := n.agrees(info)
			mu.Lock()
			defer mu.Unlock()
			if max(info.GetCommandVersion(), 1) < encoding.CommandVersion {
				older = append(older, string(s.ID))
			}
			switch {
			case !known:
			case agree:
				same++
			default:
				differ = append(differ, string(s.ID))
			}
		})
	}
	wg.Wait()
	slices.Sort(older)
	n.older.Store(&older)
	return same, differ, len(servers)
}

// Older names the members whose program does not read every command that this node's
// does, of those that answered when nodes last compared their hashes.
func (n *Node) Older() []string {
	if older := n.older.Load(); older != nil {
		return *older
	}
	return nil
}

func (n *Node) agrees(info *undertonev1.InfoResponse) (agree, known bool) {
	theirs, ok := digestOf(info.GetHash())
	if !ok || info.GetHashIndex() == 0 {
		return false, false
	}
	_, ours, known := n.replica.at(info.GetHashIndex())
	return ours == theirs, known
}

// diverge takes the node out of service for good. It takes its raft down with
// it: it should neither lead, nor hand its state to others as a snapshot. Its
// own questions and answers go on, for an operator to look.
func (n *Node) diverge(why string) {
	n.log.Error("this node's state differs from the others': it serves nobody until its data directory is replaced", "why", why)
	n.diverged.Store(&why)
	if err := n.dir.SetDiverged(why); err != nil {
		n.log.Error("could not mark the data directory", "error", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	if n.raft.State() == raft.Leader {
		n.await(ctx, n.raft.LeadershipTransfer())
	}
	n.shutdown()
	n.epoch.next()
}
