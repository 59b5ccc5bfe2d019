package replication

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
)

// How much log there is. A start replays what came after the latest snapshot, so
// both count and bytes are bounded: entries are between a hundred bytes and half
// a megabyte. What trails a snapshot saves a follower that was away for a short
// while from fetching all of it.
const (
	snapshotEntries  = 8192
	snapshotBytes    = 64 << 20
	trailingEntries  = 4096
	trailingBytes    = 32 << 20
	leastTrailing    = 64
	snapshotInterval = 5 * time.Second // between looks at the number of entries
	compactEvery     = time.Second     // between looks at the bytes
)

// compact has snapshots made by the bytes that were logged; raft makes them by
// the number of entries.
func (n *Node) compact() {
	t := time.NewTicker(compactEvery)
	defer t.Stop()
	var bytes, index uint64
	trailing := uint64(trailingEntries)
	for {
		select {
		case <-n.stop:
			return
		case <-t.C:
		}
		grown, last := n.dir.Log.Appended()-bytes, n.raft.LastIndex()
		if grown < snapshotBytes || last <= index {
			continue
		}
		mean := grown/(last-index) + 1
		if keep := max(leastTrailing, min(trailingEntries, trailingBytes/mean)); keep != trailing {
			trailing = keep
			c := n.raft.ReloadableConfig()
			c.TrailingLogs = trailing
			if err := n.raft.ReloadConfig(c); err != nil {
				n.log.Error("could not change how much log is kept", "error", err)
			}
		}
		if err := n.await(context.Background(), n.raft.Snapshot()); err != nil && err != raft.ErrNothingNewToSnapshot {
			n.log.Warn("no snapshot was made", "error", err)
		}
		bytes += grown
		index = last
	}
}
