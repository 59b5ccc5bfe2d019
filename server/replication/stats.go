package replication

import (
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Stats are a node's figures, to be shown as metrics.
type Stats struct {
	Leading     bool
	Term        uint64
	Members     int
	Committed   uint64        // index of the last entry known to be committed
	Applied     uint64        // index of the last command applied
	FirstEntry  uint64        // index of the oldest entry in the log
	LastEntry   uint64        // and of the newest
	LogBytes    uint64        // of entries appended since the node started
	LastContact time.Duration // since the leader was heard of; 0 on the leader
	Proposals   uint64        // that Propose saw through, applied or refused by the machine
	ProposeTime time.Duration // that they took, all together
	Diverged    bool
	Installed   uint64 // snapshots of the leader's that replaced the state since the node started
}

type counters struct {
	proposals atomic.Uint64
	took      atomic.Int64
}

func (c *counters) committed(took time.Duration) {
	c.proposals.Add(1)
	c.took.Add(int64(took))
}

// Stats returns the node's figures.
func (n *Node) Stats() Stats {
	leading, term := n.Leading()
	s := Stats{
		Leading: leading, Term: term, Members: len(n.servers()),
		Committed: n.raft.CommitIndex(), Applied: n.replica.last().index,
		LastEntry: n.raft.LastIndex(), LogBytes: n.dir.Log.Appended(),
		Proposals: n.counters.proposals.Load(), ProposeTime: time.Duration(n.counters.took.Load()),
		Diverged: n.diverged.Load() != nil, Installed: n.replica.installed.Load(),
	}
	s.FirstEntry, _ = n.dir.Log.FirstIndex() // 0 once it is closed
	if contact := n.raft.LastContact(); !contact.IsZero() && n.raft.State() != raft.Leader {
		s.LastContact = time.Since(contact)
	}
	return s
}
