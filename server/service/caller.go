package service

import (
	"context"
	"net"
	"sync"

	"github.com/hashicorp/golang-lru/simplelru"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/proto/identity"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/server/internal/handshake"
	"github.com/undertone-fl/undertone/server/metrics"
	"github.com/undertone-fl/undertone/server/refusal"
)

// caller is who is at the other end of a connection, worked out once, in the
// handshake. It is the connection's AuthInfo.
type caller struct {
	credentials.TLSInfo
	identity.Identity
	client  rounds.ClientID
	limiter *rate.Limiter // shared by all connections of the same identity
}

// callerOf returns the caller of a request.
func callerOf(ctx context.Context) (*caller, error) {
	if p, ok := peer.FromContext(ctx); ok {
		if c, ok := p.AuthInfo.(*caller); ok {
			return c, nil
		}
	}
	return nil, refusal.New(undertonev1.Reason_REASON_FORBIDDEN, "no certificate")
}

const (
	// callerConnections is how many connections one identity may have.
	callerConnections = 8
	// rememberedCallers is how many identities' rates are remembered. One that is
	// forgotten may send a burst again, and has to reconnect for it.
	rememberedCallers = 1 << 15
)

// gate is a server's transport credentials: it admits callers, and bounds the
// connections of each and the handshakes of all.
type gate struct {
	credentials.TransportCredentials
	rate       rate.Limit
	burst      int
	metrics    *metrics.Metrics
	handshakes *handshake.Bound

	mu          sync.Mutex
	connections map[identity.Identity]int
	limiters    *simplelru.LRU // identity.Identity -> *rate.Limiter
}

func newGate(c Config) *gate {
	limiters, err := simplelru.NewLRU(rememberedCallers, nil)
	if err != nil {
		panic(err) // its size is positive
	}
	return &gate{
		TransportCredentials: c.Credentials,
		rate:                 rate.Limit(c.ClientRate),
		burst:                c.ClientBurst,
		metrics:              c.Metrics,
		// Fewer than there may be connections, which strangers would fill else.
		handshakes:  handshake.NewBound(min(maxHandshakes, c.Connections/2)),
		connections: make(map[identity.Identity]int),
		limiters:    limiters,
	}
}

// ServerHandshake implements credentials.TransportCredentials.
func (g *gate) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	done := g.handshakes.Begin(raw)
	secured, info, err := g.TransportCredentials.ServerHandshake(raw)
	done()
	if err != nil {
		return nil, nil, err
	}
	tls := info.(credentials.TLSInfo)
	who, err := identity.FromConnection(&tls.State)
	if err == nil && !g.enter(who) {
		g.metrics.Refused.WithLabelValues("connections").Inc()
		err = refusal.New(undertonev1.Reason_REASON_RATE_LIMITED, "%v has %d connections already", who, callerConnections)
	}
	if err != nil {
		secured.Close()
		return nil, nil, err
	}
	c := &caller{TLSInfo: tls, Identity: who, client: rounds.ClientOf(who.Name), limiter: g.limiter(who)}
	return &admitted{Conn: secured, leave: sync.OnceFunc(func() { g.leave(who) })}, c, nil
}

// Clone implements credentials.TransportCredentials. A server does not clone.
func (g *gate) Clone() credentials.TransportCredentials { return g }

func (g *gate) enter(who identity.Identity) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.connections[who] >= callerConnections {
		return false
	}
	g.connections[who]++
	g.metrics.Connections.Inc()
	return true
}

func (g *gate) leave(who identity.Identity) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.connections[who]--; g.connections[who] == 0 {
		delete(g.connections, who)
	}
	g.metrics.Connections.Dec()
}

func (g *gate) limiter(who identity.Identity) *rate.Limiter {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l, ok := g.limiters.Get(who); ok {
		return l.(*rate.Limiter)
	}
	l := rate.NewLimiter(g.rate, g.burst)
	g.limiters.Add(who, l)
	return l
}

// admitted is a connection that is counted until it is closed.
type admitted struct {
	net.Conn
	leave func()
}

func (c *admitted) Close() error {
	c.leave()
	return c.Conn.Close()
}
