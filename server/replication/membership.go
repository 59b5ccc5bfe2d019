package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
)

const (
	// enterEvery is how often a node that is not a member yet tries again.
	enterEvery = 200 * time.Millisecond
	// settle is how soon it looks whether what it did has come about.
	settle = 20 * time.Millisecond
	// askTimeout bounds a question to another node.
	askTimeout = time.Second
	// caughtUp is how many commands a learner may lack and still be given a
	// vote: from then on a commit may have to wait for it.
	caughtUp = 256
	// changeTimeout bounds the wait for another change of the membership to end.
	changeTimeout = 5 * time.Second
)

// joiningKey is set, beside the term and the vote, until a fresh node has entered
// its cluster.
var joiningKey = []byte("undertone-joining")

// servers is the membership as this node knows it.
func (n *Node) servers() []raft.Server {
	f := n.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return f.Configuration().Servers
}

func (n *Node) lookup(name string) (raft.Server, bool) {
	for _, s := range n.servers() {
		if s.ID == raft.ServerID(name) {
			return s, true
		}
	}
	return raft.Server{}, false
}

// member reports whether this node has a membership: a cluster was formed, and
// it is or was of it.
func (n *Node) member() bool { return len(n.servers()) > 0 }

// enter makes the node a member, with the vote and the address it should have.
func (n *Node) enter() {
	joining, _ := n.dir.Log.GetUint64(joiningKey) // 0 if it was never set
	fresh := joining != 0 || !n.member()
	if fresh && joining == 0 && n.dir.Log.SetUint64(joiningKey, 1) != nil {
		return // the disk failed, and the node ends
	}
	var failed error
	wait := time.Duration(0)
	for {
		select {
		case <-time.After(wait):
		case <-n.stop:
			return
		}
		wait = enterEvery
		if n.diverged.Load() != nil {
			return
		}
		done, why := n.entered(fresh)
		if done {
			n.joining.Store(nil)
			if fresh {
				_ = n.dir.Log.SetUint64(joiningKey, 0) // an error ends the node
			}
			return
		}
		if failed != nil {
			why += ": " + failed.Error()
		}
		if old := n.joining.Swap(&why); old == nil || *old != why {
			n.log.Info("not ready", "why", why)
		}
		if failed = n.tryEnter(); failed == nil && n.member() {
			wait = settle
		}
	}
}

// entered reports whether there is nothing left to do, or what there is. What a
// fresh node knows of the membership is no proof: the log that it fetches begins
// with memberships of the past, in which a node of its name may have had a vote.
// The leader has to have consented: once to the member, once more to the vote.
func (n *Node) entered(fresh bool) (bool, string) {
	if !n.member() {
		return false, "not yet a member of a cluster"
	}
	me, ok := n.lookup(n.config.Name)
	switch {
	case !ok && fresh:
		return false, "not yet a member of the cluster"
	case !ok:
		return true, "" // removed: NotReady says so
	case string(me.Address) != n.config.Advertise:
		return false, fmt.Sprintf("the others know this node under %s, not %s", me.Address, n.config.Advertise)
	case !n.config.Learner && (me.Suffrage != raft.Voter || fresh && n.consents < 2):
		return false, "catching up, before it votes"
	case fresh && n.consents < 1:
		return false, "catching up"
	}
	return true, ""
}

func (n *Node) tryEnter() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*changeTimeout)
	defer cancel()
	go func() {
		select {
		case <-n.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	if n.member() {
		return n.join(ctx, n.contacts())
	}
	if n.config.Expect == 1 {
		return n.bootstrap([]raft.Server{n.self()})
	}
	found, err := n.find(ctx)
	if err != nil {
		return err
	}
	for _, i := range found {
		if i.GetBootstrapped() {
			return n.join(ctx, n.config.Peers)
		}
	}
	return n.form(found)
}

func (n *Node) self() raft.Server {
	return raft.Server{ID: raft.ServerID(n.config.Name), Address: raft.ServerAddress(n.config.Advertise)}
}

// find asks all peers who they are; those that do not answer are left out.
func (n *Node) find(ctx context.Context) (map[string]*undertonev1.InfoResponse, error) {
	var mu sync.Mutex
	found := map[string]*undertonev1.InfoResponse{}
	var refused error
	var wg sync.WaitGroup
	for _, p := range n.config.Peers {
		wg.Go(func() {
			i, err := n.ask(ctx, p, 0)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case status.Code(err) == codes.PermissionDenied: // of another cluster
				refused = fmt.Errorf("peer %s: %s", p, status.Convert(err).Message())
			case err == nil && i.GetName() != n.config.Name:
				found[i.GetName()] = i
			case err == nil && i.GetAddress() != n.config.Advertise:
				refused = fmt.Errorf("peer %s (%s) has this node's name, %q: names are unique", p, i.GetAddress(), n.config.Name)
			}
		})
	}
	wg.Wait()
	return found, refused
}

func (n *Node) ask(ctx context.Context, address string, hashAt uint64) (*undertonev1.InfoResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := n.peers.at(address)
	if err != nil {
		return nil, err
	}
	return c.Info(ctx, &undertonev1.InfoRequest{HashAt: hashAt})
}

// form makes a new cluster of the nodes found and this one, when they are as
// many as expected. All of them could, with the same outcome; only the one whose
// name is the lowest does, and raft tells the others.
func (n *Node) form(found map[string]*undertonev1.InfoResponse) error {
	if n.config.Expect == 0 {
		return errors.New("no peer is a member of a cluster")
	}
	servers := []raft.Server{n.self()}
	for name, i := range found {
		servers = append(servers, raft.Server{ID: raft.ServerID(name), Address: raft.ServerAddress(i.GetAddress())})
	}
	switch {
	case len(servers) < n.config.Expect:
		return fmt.Errorf("%d of the %d nodes expected are there", len(servers), n.config.Expect)
	case len(servers) > n.config.Expect:
		return fmt.Errorf("%d nodes are there, of %d expected", len(servers), n.config.Expect)
	}
	slices.SortFunc(servers, func(a, b raft.Server) int { return strings.Compare(string(a.ID), string(b.ID)) })
	if servers[0].ID != raft.ServerID(n.config.Name) {
		return nil
	}
	return n.bootstrap(servers)
}

func (n *Node) bootstrap(servers []raft.Server) error {
	err := n.raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error()
	if err == nil {
		n.consents = 2 // its own
		n.log.Info("formed a cluster", "members", fmt.Sprint(servers))
	}
	return err
}

// contacts are the addresses at which somebody may know the leader.
func (n *Node) contacts() []string {
	out := slices.Clone(n.config.Peers)
	for _, s := range n.servers() {
		if s.ID != raft.ServerID(n.config.Name) && !slices.Contains(out, string(s.Address)) {
			out = append(out, string(s.Address))
		}
	}
	return out
}

// join asks the members at these addresses, until one says yes.
func (n *Node) join(ctx context.Context, addresses []string) (err error) {
	err = errors.New("no peer to join")
	req := &undertonev1.JoinRequest{Name: n.config.Name, Address: n.config.Advertise, Voter: !n.config.Learner}
	for _, a := range addresses {
		if a == n.config.Advertise {
			continue
		}
		var c undertonev1grpc.NodeServiceClient
		if c, err = n.peers.at(a); err != nil {
			return err
		}
		if _, err = c.Join(ctx, req); err == nil {
			n.consents++
			return nil
		}
		err = fromStatus(err)
	}
	return err
}

// admitMember is what the leader does when a node asks to join: it becomes a
// learner, and a voter when it asks again and has caught up, so that no commit
// ever waits for a node that has the whole log to fetch.
func (n *Node) admitMember(ctx context.Context, name, addr string, voter bool) error {
	info, err := n.ask(ctx, addr, 0)
	if err != nil {
		return fmt.Errorf("%w: node %s cannot be reached under %s: %s", ErrMembership, name, addr, status.Convert(err).Message())
	}
	if info.GetName() != name {
		return fmt.Errorf("%w: %s is node %q, not %q", ErrMembership, addr, info.GetName(), name)
	}
	old, known := n.lookup(name)
	id, address := raft.ServerID(name), raft.ServerAddress(addr)
	switch {
	case known && old.Suffrage == raft.Voter && !info.GetBootstrapped():
		// Its old self may have acknowledged what the new one does not have.
		return fmt.Errorf("%w: node %s is a member already, and lost its data directory: remove it before it joins again", ErrMembership, name)
	case !known || old.Address != address:
		return n.change(ctx, n.raft.AddNonvoter(id, address, 0, changeTimeout))
	case old.Suffrage == raft.Voter || !voter:
		return nil
	}
	if last := n.replica.last(); info.GetApplied()+caughtUp < last.index {
		return fmt.Errorf("%w: node %s is catching up: it has applied %d of %d", ErrMembership, name, info.GetApplied(), last.index)
	}
	return n.change(ctx, n.raft.AddVoter(id, address, 0, changeTimeout))
}

func (n *Node) removeMember(ctx context.Context, name string) error {
	s, ok := n.lookup(name)
	if !ok {
		return fmt.Errorf("%w: %q", ErrUnknownNode, name)
	}
	if s.Suffrage == raft.Voter && n.voters() == 1 {
		return fmt.Errorf("%w: node %s is the only one with a vote", ErrMembership, name)
	}
	return n.change(ctx, n.raft.RemoveServer(s.ID, 0, changeTimeout))
}

func (n *Node) voters() (v int) {
	for _, s := range n.servers() {
		if s.Suffrage == raft.Voter {
			v++
		}
	}
	return v
}

func (n *Node) handOn(ctx context.Context, name string) error {
	if name == "" {
		return n.change(ctx, n.raft.LeadershipTransfer())
	}
	s, ok := n.lookup(name)
	switch {
	case !ok:
		return fmt.Errorf("%w: %q", ErrUnknownNode, name)
	case s.Suffrage != raft.Voter:
		return fmt.Errorf("%w: node %s has no vote", ErrMembership, name)
	case name == n.config.Name:
		return nil
	}
	return n.change(ctx, n.raft.LeadershipTransferToServer(s.ID, s.Address))
}

// change waits for a change of the membership or of the leader.
func (n *Node) change(ctx context.Context, f raft.Future) error {
	switch err := n.await(ctx, f); {
	case err == nil || errors.Is(err, ErrStopped):
		return err
	case notAppended(err):
		return fmt.Errorf("%w: %w", ErrNoLeader, err)
	default:
		return fmt.Errorf("%w: %w", ErrIndeterminate, err)
	}
}

// Member is a node as the cluster knows it, and as it answered.
type Member struct {
	Name, Address string
	Voter, Leader bool
	Reachable     bool
	Applied, Term uint64
	Hash          rounds.Digest
	Diverged      bool
	Version       string
	APIAddress    string
	NotReady      []string
}

// Members asks every node.
func (n *Node) Members(ctx context.Context) ([]Member, error) {
	select {
	case <-n.stop:
		return nil, ErrStopped
	default:
	}
	servers := n.servers()
	_, leader := n.raft.LeaderWithID()
	out := make([]Member, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		m := &out[i]
		*m = Member{
			Name: string(s.ID), Address: string(s.Address),
			Voter: s.Suffrage == raft.Voter, Leader: s.ID == leader,
		}
		wg.Go(func() {
			var info *undertonev1.InfoResponse
			var err error
			if s.ID == raft.ServerID(n.config.Name) {
				info, err = service{n: n}.Info(ctx, &undertonev1.InfoRequest{})
			} else {
				info, err = n.ask(ctx, m.Address, 0)
			}
			if err != nil || info.GetName() != m.Name {
				return
			}
			m.Reachable = true
			m.Applied, m.Term = info.GetApplied(), info.GetTerm()
			m.Hash, _ = digestOf(info.GetHash())
			m.Diverged, m.Version = info.GetDiverged(), info.GetVersion()
			m.APIAddress, m.NotReady = info.GetApiAddress(), info.GetNotReady()
		})
	}
	wg.Wait()
	return out, ctx.Err()
}

// RemoveNode takes a node out of the cluster, through the leader.
func (n *Node) RemoveNode(ctx context.Context, name string) error {
	return n.lead(ctx, func() error { return n.removeMember(ctx, name) },
		func(ctx context.Context, c undertonev1grpc.NodeServiceClient) error {
			_, err := c.Leave(ctx, &undertonev1.LeaveRequest{Name: name})
			return err
		})
}

// PromoteNode gives a learner that has caught up a vote, through the leader.
func (n *Node) PromoteNode(ctx context.Context, name string) error {
	s, ok := n.lookup(name)
	if !ok {
		return fmt.Errorf("%w: %q", ErrUnknownNode, name)
	}
	addr := string(s.Address)
	return n.lead(ctx, func() error { return n.admitMember(ctx, name, addr, true) },
		func(ctx context.Context, c undertonev1grpc.NodeServiceClient) error {
			_, err := c.Join(ctx, &undertonev1.JoinRequest{Name: name, Address: addr, Voter: true})
			return err
		})
}

// TransferLeadership hands leadership to a node, or to any if to is empty.
func (n *Node) TransferLeadership(ctx context.Context, to string) error {
	return n.lead(ctx, func() error { return n.handOn(ctx, to) },
		func(ctx context.Context, c undertonev1grpc.NodeServiceClient) error {
			_, err := c.Lead(ctx, &undertonev1.LeadRequest{Name: to})
			return err
		})
}
