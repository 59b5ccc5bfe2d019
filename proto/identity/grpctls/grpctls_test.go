package grpctls_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	"github.com/undertone-fl/undertone/server/authority"
)

// whoami answers every call with its caller's name.
type whoami struct {
	grpc_health_v1.UnimplementedHealthServer
}

func (whoami) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	who, err := grpctls.Peer(ctx)
	if err != nil {
		return nil, err
	}
	return nil, status.Error(codes.AlreadyExists, who.String())
}

func serve(t *testing.T, b *identity.Bearer, roles ...identity.Role) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(grpctls.Server(b, roles...)))
	grpc_health_v1.RegisterHealthServer(s, whoami{})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

func call(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	return err
}

func dial(t *testing.T, b *identity.Bearer, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(grpctls.Client(b)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func write(t *testing.T, a *authority.Authority, id identity.Identity) identity.Files {
	t.Helper()
	i, err := a.Issue(authority.Request{Identity: id, Hosts: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := i.Write(authority.Place(t.TempDir(), id))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

var (
	alice = identity.Identity{Role: identity.Client, Name: "alice"}
	admin = identity.Identity{Role: identity.Operator, Name: "admin"}
	n1    = identity.Identity{Role: identity.Node, Name: "n1"}
)

func TestPeer(t *testing.T) {
	a, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	load := func(id identity.Identity) *identity.Bearer {
		b, err := identity.Load(write(t, a, id))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	address := serve(t, load(n1), identity.Client)
	if err := call(t, dial(t, load(alice), address)); status.Convert(err).Message() != "client/alice" {
		t.Errorf("the server sees %v", err)
	}
	for range 20 { // whether a client reads of its refusal before it fails to write is chance
		err := call(t, dial(t, load(admin), address))
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "the other side refuses the certificate of operator/admin") {
			t.Errorf("another role: %v", err)
		}
	}
	_, port, _ := net.SplitHostPort(address)
	if err := call(t, dial(t, load(alice), "localhost:"+port)); err == nil || !strings.Contains(err.Error(), "certificate is not valid for any names, but wanted to match localhost") {
		t.Errorf("another host: %v", err)
	}
	if _, err := grpctls.Peer(t.Context()); !errors.Is(err, identity.ErrNoIdentity) {
		t.Errorf("no connection: %v", err)
	}
}

// TestNewAuthority: a connection that was made before the authority was, or its
// pool of them, takes the new one up.
func TestNewAuthority(t *testing.T) {
	old, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	next, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	f := write(t, old, alice)
	b, err := identity.Load(f)
	if err != nil {
		t.Fatal(err)
	}
	nf := write(t, next, n1)
	both := append(old.PEM(), next.PEM()...)
	if err := os.WriteFile(nf.Authority, both, 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := identity.Load(nf)
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, b, serve(t, n, identity.Client))
	if err := call(t, conn); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Fatalf("before: %v", err)
	}
	if err := os.WriteFile(f.Authority, both, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.Reload(); err != nil {
		t.Fatal(err)
	}
	conn.ResetConnectBackoff()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if err = call(t, conn); status.Code(err) == codes.AlreadyExists {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a minute later: %v", err)
		}
	}
}
