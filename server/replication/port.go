package replication

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/credentials"

	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server/internal/handshake"
)

const (
	// raftProtocol and the cluster's name are what TLS negotiates for raft's own
	// connections, so that nodes of two clusters never share a log.
	raftProtocol = "undertone-raft/"
	grpcProtocol = "h2"

	// A node finishes its handshake at once. Whoever connects and says nothing
	// may take so long, and less if there are many: one of maxHandshakes.
	handshakeTimeout = 2 * time.Second
	maxHandshakes    = 256
)

// port is the one port that nodes reach one another on: TLS with node
// certificates on both sides, then raft's protocol or grpc, as negotiated.
type port struct {
	listener  net.Listener
	advertise address
	bearer    *identity.Bearer
	protocol  string // raft's
	dial      func(ctx context.Context, address string) (net.Conn, error)
	failed    func(remote net.Addr, err error)

	handshakes *handshake.Bound
	raft, grpc *queue

	mu    sync.Mutex
	conns map[*trackedConn]struct{} // nil once closed
}

func newPort(l net.Listener, advertise, cluster string, b *identity.Bearer,
	dial func(context.Context, string) (net.Conn, error), failed func(net.Addr, error)) *port {
	p := &port{
		listener: l, advertise: address(advertise), bearer: b, protocol: raftProtocol + cluster,
		dial: dial, failed: failed, handshakes: handshake.NewBound(maxHandshakes), conns: map[*trackedConn]struct{}{},
	}
	p.raft, p.grpc = newQueue(p.advertise), newQueue(p.advertise)
	go p.accept()
	return p
}

// accept never waits for anybody but the next one: a port that those can fill who
// have no certificate would keep a node out of its cluster.
func (p *port) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				p.close()
				return
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors, say
			continue
		}
		done := p.handshakes.Begin(conn)
		go func() {
			defer done()
			if err := p.admit(conn, done); err != nil {
				p.failed(conn.RemoteAddr(), err)
				conn.Close()
			}
		}()
	}
}

// admit finishes the handshake, which it says with done, and hands the connection
// to whom it is for.
func (p *port) admit(conn net.Conn, done func()) error {
	c := p.bearer.ServerTLS(identity.Node)
	c.NextProtos = []string{p.protocol, grpcProtocol}
	t := tls.Server(conn, c)
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		return err
	}
	done()
	q := p.grpc
	switch t.ConnectionState().NegotiatedProtocol {
	case p.protocol:
		q = p.raft
	case grpcProtocol:
	default:
		return errors.New("it speaks no protocol of ours")
	}
	tracked, err := p.track(t)
	if err == nil && !q.put(tracked) {
		err = net.ErrClosed
	}
	return err
}

// strangers says who was refused at the port, a line a second at the most: how
// often is up to whoever can reach it.
type strangers struct {
	log     *slog.Logger
	refused atomic.Int64 // since the line before
	line    rate.Sometimes
}

func newStrangers(log *slog.Logger) *strangers {
	return &strangers{log: log, line: rate.Sometimes{Interval: time.Second}}
}

func (s *strangers) refuse(remote net.Addr, err error) {
	s.refused.Add(1)
	s.line.Do(func() {
		s.log.Warn("node port refused connections", "count", s.refused.Swap(0), "last", remote.String(), "error", err)
	})
}

// track has a connection closed with the port. raft's transport lets those go on
// that are in use when it is closed, and a leader that hangs would be followed
// for as long.
func (p *port) track(t *tls.Conn) (*trackedConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		t.NetConn().Close()
		return nil, net.ErrClosed
	}
	c := &trackedConn{Conn: t, port: p}
	p.conns[c] = struct{}{}
	return c, nil
}

// close closes the port and every connection of raft's, and of grpc's that came
// in.
func (p *port) close() {
	p.listener.Close()
	p.raft.Close()
	p.grpc.Close()
	p.mu.Lock()
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	for c := range conns {
		c.NetConn().Close() // TLS would say goodbye first, to nodes that may not listen
	}
}

// connect makes a connection to a node for raft, and checks its name: an
// address that is another node's by now must not count as this one's vote.
func (p *port) connect(ctx context.Context, name, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	conn, err := p.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	c := p.bearer.ClientTLS()
	c.ServerName = host
	c.NextProtos = []string{p.protocol}
	t := tls.Client(conn, c)
	if err := t.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, p.bearer.Explain(err)
	}
	state := t.ConnectionState()
	id, err := identity.FromConnection(&state)
	if err == nil && id.Name != name {
		err = fmt.Errorf("%s is node %q, not %q", addr, id.Name, name)
	}
	if err != nil {
		t.Close()
		return nil, err
	}
	return p.track(t)
}

// trackedConn is a connection that the port closes with itself.
type trackedConn struct {
	*tls.Conn
	port *port
}

func (c *trackedConn) Close() error {
	c.port.mu.Lock()
	delete(c.port.conns, c)
	c.port.mu.Unlock()
	return c.Conn.Close()
}

// address is a host:port as a net.Addr.
type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }

// queue is a net.Listener of connections that are accepted already.
type queue struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newQueue(a net.Addr) *queue {
	return &queue{addr: a, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (q *queue) put(c net.Conn) bool {
	select {
	case q.conns <- c:
		return true
	case <-q.done:
		return false
	}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error   { q.once.Do(func() { close(q.done) }); return nil }
func (q *queue) Addr() net.Addr { return q.addr }

// streams is the port as raft's network transport sees it.
type streams struct {
	*queue
	port *port
}

func (s streams) Dial(target raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	name, addr, err := split(target)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.port.connect(ctx, name, addr)
}

// admitted is what grpc's server takes for a handshake: the port has done it.
type admitted struct {
	credentials.TransportCredentials
}

func (admitted) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	t, ok := c.(*trackedConn)
	if !ok {
		return nil, nil, errors.New("not a connection of the node port")
	}
	return c, credentials.TLSInfo{
		State:          t.ConnectionState(),
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

func (admitted) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}
func (a admitted) Clone() credentials.TransportCredentials { return a }
