package replication

import (
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/raft"
)

// transport is raft's network transport, with three differences.
//
// Heartbeats go through raft's main loop like every other message, because
// SetHeartbeatHandler does nothing. The network transport would answer them on a
// goroutine of its own, and there appendEntries races with the leader's loop
// (hashicorp/raft issue 695). Say a leader is stopped for a while and another
// one is elected. When the first goes on, a heartbeat of the second turns it
// into a follower of the new term in the middle of its own dispatchLogs: the
// entry at hand is appended with the new term, which it never led, at an index
// where the new leader has another entry of that term. By log matching, raft
// takes the two for one, and two nodes apply different commands at one index. On
// the main loop a heartbeat comes before or after dispatchLogs, never within.
//
// The price is that a node does not answer heartbeats while its main loop waits
// for its disk. Pre-vote keeps a node that was slow from unseating a leader that
// the others still hear.
//
// And messages go to a node by name, not only to whoever answers at its address
// (see port.connect).
type transport struct{ *raft.NetworkTransport }

var (
	_ raft.Transport   = transport{}
	_ raft.WithPreVote = transport{}
	_ raft.WithClose   = transport{}
)

func (transport) SetHeartbeatHandler(func(raft.RPC)) {}

// AppendEntriesPipeline is not offered. When a follower refuses an entry, raft's
// reader of a pipeline ends, and its writer may be about to send once more: it
// then waits for a reader for ever, the follower gets heartbeats and no entries,
// and Shutdown waits for the writer (hashicorp/raft issue 612). Without it one
// message a follower is under way at a time, which holds all entries there are.
func (t transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

func (t transport) AppendEntries(id raft.ServerID, a raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return t.NetworkTransport.AppendEntries(id, named(id, a), req, resp)
}

func (t transport) RequestVote(id raft.ServerID, a raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.NetworkTransport.RequestVote(id, named(id, a), req, resp)
}

func (t transport) RequestPreVote(id raft.ServerID, a raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.NetworkTransport.RequestPreVote(id, named(id, a), req, resp)
}

func (t transport) InstallSnapshot(id raft.ServerID, a raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, r io.Reader) error {
	return t.NetworkTransport.InstallSnapshot(id, named(id, a), req, resp, r)
}

func (t transport) TimeoutNow(id raft.ServerID, a raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.NetworkTransport.TimeoutNow(id, named(id, a), req, resp)
}

// named is NAME/HOST:PORT; names have no slash.
func named(id raft.ServerID, a raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(id) + "/" + a
}

func split(a raft.ServerAddress) (name, addr string, err error) {
	name, addr, ok := strings.Cut(string(a), "/")
	if !ok {
		return "", "", fmt.Errorf("address %q without a name", a)
	}
	return name, addr, nil
}
