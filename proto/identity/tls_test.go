package identity_test

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/proto/identity"
)

var (
	alice = identity.Identity{Role: identity.Client, Name: "alice"}
	admin = identity.Identity{Role: identity.Operator, Name: "admin"}
	n1    = identity.Identity{Role: identity.Node, Name: "n1"}
	n2    = identity.Identity{Role: identity.Node, Name: "n2"}
)

func tlsPair(p pems) (tls.Certificate, error) { return tls.X509KeyPair(p.certificate, p.key) }

// connect does a handshake over TCP and one byte each way, and returns what each
// side saw. A client learns of its refusal when it first reads.
func connect(t *testing.T, server, client *tls.Config) (peerOfServer identity.Identity, serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := l.Accept()
		if err != nil {
			serverErr = err
			return
		}
		conn := tls.Server(raw, server)
		defer conn.Close()
		if serverErr = conn.Handshake(); serverErr != nil {
			return
		}
		state := conn.ConnectionState()
		if peerOfServer, serverErr = identity.FromConnection(&state); serverErr == nil {
			_, serverErr = conn.Write([]byte{1})
		}
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(raw, client)
	if clientErr = conn.Handshake(); clientErr == nil {
		_, clientErr = io.ReadFull(conn, make([]byte, 1))
	}
	conn.Close()
	<-done
	return peerOfServer, serverErr, clientErr
}

func dialled(c *tls.Config, host string) *tls.Config {
	c = c.Clone()
	c.ServerName = host
	return c
}

// TestRealAuthorities: intermediate authorities, RSA keys and identities in the
// subject are as good as our own.
func TestRealAuthorities(t *testing.T) {
	rsaRoot := newIssuer(t, "RSA root", nil, rsa2048(t))
	middle := newIssuer(t, "intermediate", rsaRoot, rsa2048(t))
	low := newIssuer(t, "lower intermediate", middle, p256(t))
	bySubject := func(c *x509.Certificate) {
		c.URIs = nil
		c.Subject = pkix.Name{CommonName: "alice", OrganizationalUnit: []string{"phones", "undertone client"}}
	}
	plain := root(t, "plain")
	for _, test := range []struct {
		name           string
		server, client pems
	}{
		{"one authority", plain.issue(t, n1, p256(t)), plain.issue(t, alice, p256(t))},
		{"intermediates", low.issue(t, n1, p256(t)), middle.issue(t, alice, p256(t))},
		{"RSA", middle.issue(t, n1, rsa2048(t)), rsaRoot.issue(t, alice, rsa2048(t))},
		{"subject", plain.issue(t, n1, p256(t)), plain.issue(t, alice, p256(t), bySubject)},
		{"an authority for each side", plain.issue(t, n1, p256(t)).trusting(rsaRoot), low.issue(t, alice, p256(t)).trusting(plain)},
	} {
		t.Run(test.name, func(t *testing.T) {
			server, client := test.server.load(t), test.client.load(t)
			for _, host := range []string{"localhost", "127.0.0.1"} {
				peer, serverErr, clientErr := connect(t, server.ServerTLS(identity.Client), dialled(client.ClientTLS(), host))
				if serverErr != nil || clientErr != nil {
					t.Fatalf("%s: server: %v; client: %v", host, serverErr, clientErr)
				}
				if peer != alice {
					t.Errorf("the server sees %v", peer)
				}
			}
		})
	}
}

// TestHandshakeRefusals: who is refused, and what each side is told. A wrong
// server is refused by the client, a wrong client by the server.
func TestHandshakeRefusals(t *testing.T) {
	ca, other := root(t, "ours"), root(t, "another")
	expired := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	early := func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }
	only := func(u x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{u} }
	}
	nobody := func(c *x509.Certificate) { c.URIs = nil }
	server, client := ca.issue(t, n1, p256(t)), ca.issue(t, alice, p256(t))

	for _, test := range []struct {
		name           string
		server, client pems
		host           string // that the client dials; localhost if empty
		serverSays     string
		clientSays     string
	}{
		{name: "a client's role", client: ca.issue(t, admin, p256(t)),
			serverSays: "the certificate is that of operator/admin, and this connection takes client, node only", clientSays: "remote error: tls: bad certificate"},
		{name: "a client of an unknown authority", client: other.issue(t, alice, p256(t)).trusting(ca),
			serverSays: "certificate signed by unknown authority", clientSays: "remote error: tls: bad certificate"},
		{name: "an expired client", client: ca.issue(t, alice, p256(t), expired),
			serverSays: "certificate has expired or is not yet valid", clientSays: "remote error: tls: bad certificate"},
		{name: "a client that is early", client: ca.issue(t, alice, p256(t), early),
			serverSays: "certificate has expired or is not yet valid", clientSays: "remote error: tls: bad certificate"},
		{name: "a server's certificate as a client's", client: ca.issue(t, alice, p256(t), only(x509.ExtKeyUsageServerAuth)),
			serverSays: "incompatible key usage", clientSays: "remote error: tls: bad certificate"},

		{name: "a server that is a client", server: ca.issue(t, alice, p256(t)),
			serverSays: "remote error: tls: bad certificate", clientSays: "the certificate is that of client/alice, and this connection takes node only"},
		{name: "a server without a server's certificate", server: ca.issue(t, n1, p256(t), only(x509.ExtKeyUsageClientAuth)),
			serverSays: "remote error: tls: bad certificate", clientSays: "incompatible key usage"},
		{name: "a server of an unknown authority", server: other.issue(t, n1, p256(t)).trusting(ca),
			serverSays: "remote error: tls: bad certificate", clientSays: "certificate signed by unknown authority"},
		{name: "an expired server", server: ca.issue(t, n1, p256(t), expired),
			serverSays: "remote error: tls: bad certificate", clientSays: "certificate has expired or is not yet valid"},
		{name: "another host", host: "n2.example.org",
			serverSays: "remote error: tls: bad certificate", clientSays: "certificate is valid for localhost, not n2.example.org"},
		{name: "another address", host: "127.0.0.2",
			serverSays: "remote error: tls: bad certificate", clientSays: "certificate is valid for 127.0.0.1, not 127.0.0.2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.server.key == nil {
				test.server = server
			}
			if test.client.key == nil {
				test.client = client
			}
			_, serverErr, clientErr := connect(t,
				test.server.bearer(t).ServerTLS(identity.Client, identity.Node),
				dialled(test.client.bearer(t).ClientTLS(), cmp.Or(test.host, "localhost")))
			says(t, "server", serverErr, test.serverSays)
			says(t, "client", clientErr, test.clientSays)
		})
	}

	t.Run("a certificate that names nobody", func(t *testing.T) {
		pair, err := tlsPair(ca.issue(t, n1, p256(t), nobody))
		if err != nil {
			t.Fatal(err)
		}
		_, serverErr, _ := connect(t, server.bearer(t).ServerTLS(identity.Client),
			&tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true})
		if !errors.Is(serverErr, identity.ErrNoIdentity) {
			t.Errorf("server: %v", serverErr)
		}
	})
	t.Run("no certificate", func(t *testing.T) {
		_, serverErr, _ := connect(t, server.bearer(t).ServerTLS(identity.Client), &tls.Config{InsecureSkipVerify: true})
		says(t, "server", serverErr, "client didn't provide a certificate")
	})
	t.Run("no host", func(t *testing.T) {
		_, _, clientErr := connect(t, server.bearer(t).ServerTLS(identity.Client), client.bearer(t).ClientTLS())
		says(t, "client", clientErr, "either ServerName or InsecureSkipVerify must be specified")
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		old := dialled(client.bearer(t).ClientTLS(), "localhost")
		old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		_, serverErr, clientErr := connect(t, server.bearer(t).ServerTLS(identity.Client), old)
		says(t, "server", serverErr, "unsupported versions")
		says(t, "client", clientErr, "protocol version not supported")
	})
}

// TestRoleErrorIsTyped: a service can count what it refuses.
func TestRoleErrorIsTyped(t *testing.T) {
	ca := root(t, "ours")
	_, err, _ := connect(t, ca.issue(t, n1, p256(t)).bearer(t).ServerTLS(identity.Node),
		dialled(ca.issue(t, alice, p256(t)).bearer(t).ClientTLS(), "localhost"))
	var role *identity.RoleError
	if !errors.As(err, &role) || role.Peer != alice {
		t.Errorf("got %v", err)
	}
}

// TestExplain: who is refused is told what it may be about.
func TestExplain(t *testing.T) {
	ca := root(t, "ours")
	server := ca.issue(t, n1, p256(t)).bearer(t)
	for want, changed := range map[string]func(*x509.Certificate){
		"the certificate of client/alice: it may be for another role, or of an authority that is not known there (CN=ours)": func(*x509.Certificate) {},
		"the certificate of client/alice, which expired on ":                                                                func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) },
	} {
		b := ca.issue(t, alice, p256(t), changed).bearer(t)
		_, _, err := connect(t, server.ServerTLS(identity.Node), dialled(b.ClientTLS(), "localhost"))
		says(t, "client", b.Explain(err), want)
	}
	if err := server.Explain(io.EOF); err != io.EOF {
		t.Errorf("another error became %v", err)
	}
	if err := server.Explain(nil); err != nil {
		t.Error(err)
	}
}

// TestNoResumption: a client that would resume a session shows its certificate
// again, so that an authority that went away admits it no more.
func TestNoResumption(t *testing.T) {
	ca, next := root(t, "ours"), root(t, "the next")
	server := ca.issue(t, n1, p256(t))
	files := server.write(t)
	b, err := identity.Load(files)
	if err != nil {
		t.Fatal(err)
	}
	config := b.ServerTLS(identity.Client)
	client := dialled(ca.issue(t, alice, p256(t)).bearer(t).ClientTLS(), "localhost")
	client.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	for range 2 {
		if _, serverErr, clientErr := connect(t, config, client); serverErr != nil || clientErr != nil {
			t.Fatal(serverErr, clientErr)
		}
	}
	server.trusting(next).writeTo(t, files)
	if err := b.Reload(); err != nil {
		t.Fatal(err)
	}
	_, serverErr, _ := connect(t, config, client)
	says(t, "server", serverErr, "unknown authority")
}

func says(t *testing.T, who string, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: %v; want %q", who, err, want)
	}
}

// TestWeb: everybody gets through to a web server, which knows those who show a
// certificate of its authority; of another authority, none gets through.
func TestWeb(t *testing.T) {
	ca, other := root(t, "ours"), root(t, "another")
	server := ca.issue(t, n1, p256(t)).load(t)
	for _, id := range []identity.Identity{alice, admin, n2} {
		client := ca.issue(t, id, p256(t)).load(t)
		if peer, serverErr, clientErr := connect(t, server.WebTLS(), dialled(client.ClientTLS(), "localhost")); peer != id || serverErr != nil || clientErr != nil {
			t.Errorf("%v: the server sees %v, %v; the client %v", id, peer, serverErr, clientErr)
		}
	}
	nobody := &tls.Config{ServerName: "localhost", RootCAs: x509.NewCertPool()}
	nobody.RootCAs.AddCert(ca.certificate)
	if _, serverErr, _ := connect(t, server.WebTLS(), nobody); !errors.Is(serverErr, identity.ErrNoIdentity) {
		t.Errorf("without a certificate: %v", serverErr)
	}
	stranger := other.issue(t, admin, p256(t)).trusting(ca).load(t)
	forged := stranger.ClientTLS()
	forged.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { // whatever it is asked for
		pair, err := tlsPair(other.issue(t, admin, p256(t)))
		return &pair, err
	}
	if _, serverErr, clientErr := connect(t, server.WebTLS(), dialled(forged, "localhost")); serverErr == nil || errors.Is(serverErr, identity.ErrNoIdentity) || clientErr == nil {
		t.Errorf("of another authority: %v, %v", serverErr, clientErr)
	}
}

// TestWebReloads: what counts is what the files hold at a handshake.
func TestWebReloads(t *testing.T) {
	ca, next := root(t, "ours"), root(t, "next")
	held := ca.issue(t, n1, p256(t))
	files := held.write(t)
	server, err := identity.Load(files)
	if err != nil {
		t.Fatal(err)
	}
	config := server.WebTLS()
	client := next.issue(t, admin, p256(t)).trusting(ca, next).load(t)
	if _, serverErr, _ := connect(t, config, dialled(client.ClientTLS(), "localhost")); serverErr == nil {
		t.Error("an authority of tomorrow counts today")
	}
	next.issue(t, n1, p256(t)).writeTo(t, files)
	if err := server.Reload(); err != nil {
		t.Fatal(err)
	}
	if peer, serverErr, clientErr := connect(t, config, dialled(client.ClientTLS(), "localhost")); peer != admin || serverErr != nil || clientErr != nil {
		t.Errorf("after it was changed: %v, %v, %v", peer, serverErr, clientErr)
	}
}
