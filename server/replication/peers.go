package replication

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server/replication/encoding"
)

const (
	// clusterKey names the caller's cluster, in the metadata of every call.
	clusterKey = "undertone-cluster"
	// forwardedKey marks a call that a member passed on: the next one answers
	// it or refuses it.
	forwardedKey = "undertone-forwarded"
)

// peers are the connections to other nodes' services, by address.
type peers struct {
	cluster string
	bearer  *identity.Bearer
	dial    func(context.Context, string) (net.Conn, error)

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn // nil once closed
}

func newPeers(cluster string, b *identity.Bearer, dial func(context.Context, string) (net.Conn, error)) *peers {
	return &peers{cluster: cluster, bearer: b, dial: dial, conns: map[string]*grpc.ClientConn{}}
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// at returns a client of the service at an address.
func (p *peers) at(address string) (undertonev1grpc.NodeServiceClient, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		return nil, ErrStopped
	}
	c, ok := p.conns[address]
	if !ok {
		var err error
		c, err = grpc.NewClient("passthrough:///"+address,
			grpc.WithTransportCredentials(grpctls.Client(p.bearer)),
			grpc.WithContextDialer(p.dial),
			grpc.WithUnaryInterceptor(p.name),
			grpc.WithStatsHandler(departure{}),
			grpc.WithDisableServiceConfig(),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
				MinConnectTimeout: ioTimeout,
			}),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: ioTimeout}),
		)
		if err != nil {
			return nil, err
		}
		p.conns[address] = c
	}
	return undertonev1grpc.NewNodeServiceClient(c), nil
}

// name says in every call which cluster it is for.
func (p *peers) name(ctx context.Context, method string, req, reply any, c *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoke(metadata.AppendToOutgoingContext(ctx, clusterKey, p.cluster), method, req, reply, c, opts...)
}

// propose hands a command, or a barrier, to the leader.
func (p *peers) propose(ctx context.Context, address string, data []byte) (applied, error) {
	c, err := p.at(address)
	if err != nil {
		return applied{}, err
	}
	var departed atomic.Bool
	resp, err := c.Propose(context.WithValue(ctx, departedKey{}, &departed), &undertonev1.ProposeRequest{Command: data})
	if err != nil {
		switch code := status.Code(err); {
		case code == codes.FailedPrecondition, !departed.Load() && ctx.Err() == nil:
			return applied{}, fmt.Errorf("%w: %v", ErrNoLeader, err)
		case code == codes.InvalidArgument:
			return applied{}, err
		case !departed.Load():
			return applied{}, fmt.Errorf("%w: %w", ErrNoLeader, ctx.Err())
		default:
			return applied{}, fmt.Errorf("%w: %w", ErrIndeterminate, errors.Join(err, ctx.Err()))
		}
	}
	out := applied{index: resp.GetIndex()}
	if r := resp.GetRefusal(); r != nil {
		out.refusal = encoding.FromRefusal(r)
	}
	return out, nil
}

// departure tells a call that ctx asks for it whether it ever left this node.
// What never left was not appended; of anything else nobody knows.
type departure struct{}

type departedKey struct{}

func (departure) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (departure) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutHeader); ok {
		if d, ok := ctx.Value(departedKey{}).(*atomic.Bool); ok {
			d.Store(true)
		}
	}
}
func (departure) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (departure) HandleConn(context.Context, stats.ConnStats)                       {}
