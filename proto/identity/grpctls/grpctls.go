// Package grpctls is identity for grpc: credentials for both ends of a
// connection, and who is at the other one.
package grpctls

import (
	"context"
	"errors"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/proto/identity"
)

// Server takes connections of the given roles only.
func Server(b *identity.Bearer, roles ...identity.Role) credentials.TransportCredentials {
	return credentials.NewTLS(b.ServerTLS(roles...))
}

// Client connects to nodes only. Every connection uses the bearer's files as
// they are then.
func Client(b *identity.Bearer) credentials.TransportCredentials {
	return &client{credentials.NewTLS(b.ClientTLS()), b}
}

// Peer is who calls. Fails with identity.ErrNoIdentity.
func Peer(ctx context.Context) (identity.Identity, error) {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			return identity.FromConnection(&info.State)
		}
	}
	return identity.Identity{}, identity.ErrNoIdentity
}

// A status of a connection that failed has its cause in quotes, under layers of
// names.
var (
	cause  = regexp.MustCompile(`desc = "(.*)"`)
	layers = regexp.MustCompile(`transport: |Error while dialing: |authentication handshake failed: |dial tcp \S+: |dial tcp: lookup \S+( on \S+)?: |connect: |error reading server preface: |tls: failed to verify certificate: x509: |identity: `)
)

// Problem is why there is no connection, in a few words: what grpc's status of
// such a call says, without the layers that it passed through.
func Problem(err error) string {
	text := status.Convert(err).Message()
	if m := cause.FindStringSubmatch(text); m != nil {
		text = strings.ReplaceAll(m[1], `\"`, `"`)
	}
	return layers.ReplaceAllString(text, "")
}

// client makes a TLS configuration for each connection, so that a new authority
// counts for the next one.
type client struct {
	credentials.TransportCredentials
	bearer *identity.Bearer
}

func (c *client) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := credentials.NewTLS(c.bearer.ClientTLS()).ClientHandshake(ctx, authority, conn)
	if err != nil {
		return nil, nil, c.bearer.Explain(err)
	}
	return &connection{Conn: secured, bearer: c.bearer, readFailed: make(chan struct{})}, info, nil
}

func (c *client) Clone() credentials.TransportCredentials {
	return &client{c.TransportCredentials.Clone(), c.bearer}
}

// connection says why a server hung up. In TLS 1.3 a client is through with its
// handshake before the server has seen its certificate; the refusal is the first
// thing that it reads. By then it may have failed to write, of which the error
// would say nothing but that the pipe is broken.
type connection struct {
	net.Conn
	bearer *identity.Bearer

	once       sync.Once
	readFailed chan struct{} // closed when a read failed
	readErr    error
}

func (c *connection) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		err = c.bearer.Explain(err)
		c.once.Do(func() {
			c.readErr = err
			close(c.readFailed)
		})
	}
	return n, err
}

// patience is how long a write that failed waits for the reason. grpc reads
// all the time, and a broken connection's reads end at once.
const patience = time.Second

func (c *connection) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		select {
		case <-c.readFailed:
			if !errors.Is(c.readErr, io.EOF) {
				err = c.readErr
			}
		case <-time.After(patience):
		}
	}
	return n, err
}
