// Package grpctls is identity for grpc: credentials for both ends of a
// connection, and who is at the other one.
package grpctls

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

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

// client makes a TLS configuration for each connection, so that a new authority
// counts for the next one.
type client struct {
	credentials.TransportCredentials
	bearer *identity.Bearer
}

func (c *client) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := credentials.NewTLS(c.bearer.ClientTLS()).ClientHandshake(ctx, authority, conn)
	return secured, info, c.bearer.Explain(err)
}

func (c *client) Clone() credentials.TransportCredentials {
	return &client{c.TransportCredentials.Clone(), c.bearer}
}
