package replication

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server/replication/encoding"
)

// service is the NodeService: what nodes ask of one another.
type service struct {
	undertonev1grpc.UnimplementedNodeServiceServer
	n *Node
}

// serve starts the service on the node port.
func (n *Node) serve() {
	n.server = grpc.NewServer(
		grpc.Creds(admitted{}),
		grpc.MaxRecvMsgSize(2*maxEntry),
		grpc.MaxConcurrentStreams(4096),
		grpc.UnaryInterceptor(n.sameCluster),
	)
	undertonev1grpc.RegisterNodeServiceServer(n.server, service{n: n})
	n.background(func() { n.server.Serve(n.port.grpc) })
}

func (n *Node) sameCluster(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if c := metadata.ValueFromIncomingContext(ctx, clusterKey); len(c) != 1 || c[0] != n.config.Cluster {
		return nil, status.Errorf(codes.PermissionDenied, "node %s is of cluster %q, not %q", n.config.Name, n.config.Cluster, c)
	}
	return next(ctx, req)
}

// Propose applies a command, if this node leads. Without a command it is a
// barrier: the index is at or after everything committed before the call.
func (s service) Propose(ctx context.Context, req *undertonev1.ProposeRequest) (*undertonev1.ProposeResponse, error) {
	data := req.GetCommand()
	if len(data) > 0 {
		// What the log holds, every node must be able to read.
		if _, err := encoding.UnmarshalCommand(data); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
	}
	if err := s.n.usable(); err != nil || s.n.raft.State() != raft.Leader {
		return nil, toStatus(ErrNoLeader)
	}
	out, err := s.n.apply(ctx, data)
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &undertonev1.ProposeResponse{Index: out.index}
	if out.refusal != nil {
		resp.Refusal = encoding.Refusal(out.refusal)
	}
	return resp, nil
}

// Info says how the node is, and what its running hash was at an index; at its
// last one, if that is not yet there.
func (s service) Info(_ context.Context, req *undertonev1.InfoRequest) (*undertonev1.InfoResponse, error) {
	n := s.n
	ask := req.GetHashAt()
	last, then, known := n.replica.at(ask)
	if ask == 0 || ask > last.index {
		ask, then, known = last.index, last.hash, true
	}
	leader, _ := n.raft.LeaderWithID()
	resp := &undertonev1.InfoResponse{
		Name: n.config.Name, Cluster: n.config.Cluster, Address: n.config.Advertise,
		Applied: last.index, Term: n.raft.CurrentTerm(), HashIndex: ask,
		Diverged: n.diverged.Load() != nil, Version: n.config.Version, ApiAddress: n.config.APIAddress,
		NotReady: n.reasons(), Bootstrapped: n.member(), LeaderAddress: string(leader),
		CommandVersion: n.reads.Load(),
	}
	if known {
		resp.Hash = then[:]
	}
	return resp, nil
}

// Join makes the caller a member, a learner first.
func (s service) Join(ctx context.Context, req *undertonev1.JoinRequest) (*undertonev1.JoinResponse, error) {
	err := s.n.lead(ctx,
		func() error { return s.n.admitMember(ctx, req.GetName(), req.GetAddress(), req.GetVoter()) },
		func(ctx context.Context, c undertonev1grpc.NodeServiceClient) error {
			_, err := c.Join(ctx, req)
			return err
		})
	return &undertonev1.JoinResponse{}, toStatus(err)
}

// Leave removes a member.
func (s service) Leave(ctx context.Context, req *undertonev1.LeaveRequest) (*undertonev1.LeaveResponse, error) {
	return &undertonev1.LeaveResponse{}, toStatus(s.n.RemoveNode(ctx, req.GetName()))
}

// Lead hands leadership on.
func (s service) Lead(ctx context.Context, req *undertonev1.LeadRequest) (*undertonev1.LeadResponse, error) {
	return &undertonev1.LeadResponse{}, toStatus(s.n.TransferLeadership(ctx, req.GetName()))
}

// lead does something if this node leads, or else asks the leader for it, once.
func (n *Node) lead(ctx context.Context, here func() error, there func(context.Context, undertonev1grpc.NodeServiceClient) error) error {
	if err := n.usable(); err != nil {
		return err
	}
	if n.raft.State() == raft.Leader {
		return here()
	}
	leader, id := n.raft.LeaderWithID()
	if leader == "" || id == raft.ServerID(n.config.Name) || metadata.ValueFromIncomingContext(ctx, forwardedKey) != nil {
		return ErrNoLeader
	}
	c, err := n.peers.at(string(leader))
	if err != nil {
		return err
	}
	var departed atomic.Bool
	ctx = context.WithValue(metadata.AppendToOutgoingContext(ctx, forwardedKey, "1"), departedKey{}, &departed)
	err = there(ctx, c)
	switch {
	case status.Code(err) != codes.Unavailable:
		return fromStatus(err)
	case departed.Load():
		return fmt.Errorf("%w: %v", ErrIndeterminate, err)
	default: // the leader is gone, and nobody has noticed yet
		return fmt.Errorf("%w: %v", ErrNoLeader, err)
	}
}

// statuses are the errors that travel between nodes.
var statuses = []struct {
	code codes.Code
	err  error
}{
	{codes.FailedPrecondition, ErrNoLeader},
	{codes.Aborted, ErrIndeterminate},
	{codes.NotFound, ErrUnknownNode},
	{codes.InvalidArgument, ErrMembership},
	{codes.DataLoss, ErrDiverged},
}

func toStatus(err error) error {
	if err == nil {
		return nil
	}
	for _, s := range statuses {
		if errors.Is(err, s.err) {
			return status.Error(s.code, strings.TrimPrefix(err.Error(), s.err.Error()+": "))
		}
	}
	return status.Error(codes.Unavailable, err.Error())
}

func fromStatus(err error) error {
	if err == nil {
		return nil
	}
	got := status.Convert(err)
	for _, s := range statuses {
		if s.code == got.Code() {
			if got.Message() == s.err.Error() {
				return s.err
			}
			return fmt.Errorf("%w: %s", s.err, got.Message())
		}
	}
	return fmt.Errorf("%s", got.Message())
}

// digestOf reads a hash in an answer.
func digestOf(b []byte) (d rounds.Digest, ok bool) {
	return d, copy(d[:], b) == len(d) && len(b) == len(d)
}
