package identity_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/proto/identity"
)

// TestLoadRefusals: every mistake names its file, and says what it is.
func TestLoadRefusals(t *testing.T) {
	ca := root(t, "ours")
	good := ca.issue(t, alice, p256(t))
	another := ca.issue(t, alice, p256(t))
	expired := ca.issue(t, alice, p256(t), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	early := ca.issue(t, alice, p256(t), func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })
	nobody := ca.issue(t, alice, p256(t), func(c *x509.Certificate) { c.URIs = nil })
	for _, test := range []struct {
		name   string
		pems   pems
		file   func(identity.Files) string
		want   error  // nil: any
		saying string // in the error
	}{
		{"expired", expired, certificateOf, identity.ErrExpired, "has expired on 20"},
		{"not yet valid", early, certificateOf, identity.ErrNotYetValid, "this machine's clock says 20"},
		{"names nobody", nobody, certificateOf, identity.ErrNoIdentity, "neither a URI"},
		{"another's key", pems{good.certificate, another.key, good.authority}, keyOf, identity.ErrKeyMismatch, ""},
		{"a key of another kind", pems{good.certificate, ca.issue(t, alice, rsa2048(t)).key, good.authority}, keyOf, identity.ErrKeyMismatch, ""},
		{"certificate for key", pems{good.certificate, good.certificate, good.authority}, keyOf, nil, "found a certificate rather than a key"},
		{"key for certificate", pems{good.key, good.key, good.authority}, certificateOf, nil, "holds no certificate"},
		{"empty certificate", pems{nil, good.key, good.authority}, certificateOf, nil, "holds no certificate"},
		{"empty key", pems{good.certificate, nil, good.authority}, keyOf, nil, "failed to find any PEM data"},
		{"garbled key", pems{good.certificate, pemOf("PRIVATE KEY", []byte("x")), good.authority}, keyOf, nil, "failed to parse private key"},
		{"encrypted key", pems{good.certificate, pemOf("ENCRYPTED PRIVATE KEY", []byte("x")), good.authority}, keyOf, nil, "the key is encrypted"},
		{"empty authority", pems{good.certificate, good.key, nil}, authorityOf, nil, "holds no certificate"},
		{"garbled certificate", pems{pemOf("CERTIFICATE", []byte("x")), good.key, good.authority}, certificateOf, nil, "malformed"},
		{"half an authority", pems{good.certificate, good.key, good.authority[:len(good.authority)/2]}, authorityOf, nil, "holds no certificate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := test.pems.write(t)
			_, err := identity.Load(f)
			refused(t, err, test.file(f), test.want, test.saying)
		})
	}
	for _, file := range []func(identity.Files) string{certificateOf, keyOf, authorityOf} {
		f := good.write(t)
		if err := os.Remove(file(f)); err != nil {
			t.Fatal(err)
		}
		_, err := identity.Load(f)
		refused(t, err, file(f), fs.ErrNotExist, "")
	}
	f := good.write(t)
	f.Key = ""
	_, err := identity.Load(f)
	refused(t, err, "key", nil, "no file is named")
}

func certificateOf(f identity.Files) string { return f.Certificate }
func keyOf(f identity.Files) string         { return f.Key }
func authorityOf(f identity.Files) string   { return f.Authority }

func refused(t *testing.T, err error, path string, want error, saying string) {
	t.Helper()
	var file *identity.FileError
	if !errors.As(err, &file) || file.Path != path || want != nil && !errors.Is(err, want) ||
		!strings.Contains(err.Error(), saying) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v; want %s, %v, %q", err, path, want, saying)
	}
}

// TestNewRefusals: without authorities of its own a bearer would trust the
// system's.
func TestNewRefusals(t *testing.T) {
	pair, err := tlsPair(root(t, "ours").issue(t, alice, p256(t)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := identity.New(pair, nil); err == nil {
		t.Error("no authorities: no error")
	}
	if _, err := identity.New(tls.Certificate{}, x509.NewCertPool()); !errors.Is(err, identity.ErrNoIdentity) {
		t.Errorf("no certificate: %v", err)
	}
}

// recorder is a log to look at.
type recorder struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *recorder) logger() *slog.Logger { return slog.New(slog.NewTextHandler(r, nil)) }

func (r *recorder) count(s string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Count(r.buf.String(), s)
}

// TestReload: new files count from the next handshake on, in configurations made
// before; wrong ones do not, are said once, and do no harm.
func TestReload(t *testing.T) {
	ca := root(t, "ours")
	first := ca.issue(t, n1, p256(t))
	f := first.write(t)
	var log recorder
	b, err := identity.LoadWithLogger(f, log.logger())
	if err != nil {
		t.Fatal(err)
	}
	server, client := b.ServerTLS(identity.Node), dialled(b.ClientTLS(), "localhost")
	serial := func() string { return b.Certificate().SerialNumber.String() }
	connects := func() {
		t.Helper()
		if _, serverErr, clientErr := connect(t, server, client); serverErr != nil || clientErr != nil {
			t.Errorf("server: %v; client: %v", serverErr, clientErr)
		}
	}
	connects()
	was := serial()

	second := ca.issue(t, n1, p256(t))
	for _, wrong := range []struct {
		name string
		pems
	}{
		{"half written", pems{second.certificate[:100], second.key, second.authority}},
		{"certificate before key", pems{second.certificate, first.key, second.authority}},
		{"empty", pems{nil, nil, nil}},
		{"another identity", ca.issue(t, n2, p256(t))},
		{"expired", ca.issue(t, n1, p256(t), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })},
	} {
		wrong.writeTo(t, f)
		before := log.count("level=WARN")
		for range 2 {
			if err := b.Reload(); err == nil {
				t.Errorf("%s: no error", wrong.name)
			}
		}
		if n := log.count("level=WARN") - before; n != 1 {
			t.Errorf("%s: said %d times, want once", wrong.name, n)
		}
		if serial() != was {
			t.Errorf("%s: another certificate is in use", wrong.name)
		}
		connects()
	}
	if err := os.Remove(f.Key); err != nil {
		t.Fatal(err)
	}
	if err := b.Reload(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing key: %v", err)
	}
	connects()

	second.writeTo(t, f)
	if err := b.Reload(); err != nil {
		t.Fatal(err)
	}
	if serial() == was {
		t.Error("the old certificate is still in use")
	}
	if log.count("new certificate in use") != 1 {
		t.Error("a new certificate was not said")
	}
	connects()
}

// TestHandshakesReload: nobody need call Reload.
func TestHandshakesReload(t *testing.T) {
	if testing.Short() {
		t.Skip("handshakes look at the files once a second")
	}
	ca := root(t, "ours")
	f := ca.issue(t, n1, p256(t)).write(t)
	b, err := identity.Load(f)
	if err != nil {
		t.Fatal(err)
	}
	server := b.ServerTLS(identity.Client)
	client := dialled(ca.issue(t, alice, p256(t)).bearer(t).ClientTLS(), "localhost")
	second := ca.issue(t, n1, p256(t))
	second.writeTo(t, f)
	pair, err := tlsPair(second)
	if err != nil {
		t.Fatal(err)
	}
	var presented []byte
	client.VerifyPeerCertificate = func(raw [][]byte, _ [][]*x509.Certificate) error { presented = raw[0]; return nil }
	for deadline := time.Now().Add(time.Minute); !bytes.Equal(presented, pair.Certificate[0]); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a minute later the old certificate is still presented")
		}
		if _, serverErr, clientErr := connect(t, server, client); serverErr != nil || clientErr != nil {
			t.Fatal(serverErr, clientErr)
		}
	}
}

// TestAuthorityRotation: the old and the new authority together, then the new one
// alone; at no moment is a bearer of either day refused that should not be.
func TestAuthorityRotation(t *testing.T) {
	old, next := root(t, "old"), root(t, "next")
	server, client := old.issue(t, n1, p256(t)), old.issue(t, alice, p256(t))
	serverFiles, clientFiles := server.write(t), client.write(t)
	s, err := identity.Load(serverFiles)
	if err != nil {
		t.Fatal(err)
	}
	c, err := identity.Load(clientFiles)
	if err != nil {
		t.Fatal(err)
	}
	config := s.ServerTLS(identity.Client)
	ok := func(step string, want bool, made *identity.Bearer) {
		t.Helper()
		_, serverErr, clientErr := connect(t, config, dialled(made.ClientTLS(), "localhost"))
		if (serverErr == nil && clientErr == nil) != want {
			t.Errorf("%s: server: %v; client: %v", step, serverErr, clientErr)
		}
	}
	become := func(b *identity.Bearer, f identity.Files, p pems) {
		t.Helper()
		p.writeTo(t, f)
		if err := b.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	newClient := next.issue(t, alice, p256(t)).trusting(old, next).load(t)
	ok("before", true, c)
	ok("before", false, newClient)

	become(s, serverFiles, server.trusting(old, next))
	become(c, clientFiles, client.trusting(old, next))
	ok("both are known", true, c)
	ok("both are known", true, newClient)

	stale := dialled(c.ClientTLS(), "localhost") // of a connection pool, say
	become(s, serverFiles, next.issue(t, n1, p256(t)).trusting(old, next))
	ok("the server has the next", true, c)

	become(s, serverFiles, next.issue(t, n1, p256(t)).trusting(next))
	ok("the old is gone", false, c)
	ok("the old is gone", true, newClient)

	// A configuration made before honours what its bearer trusts no more.
	become(c, clientFiles, next.issue(t, alice, p256(t)).trusting(old))
	_, _, clientErr := connect(t, config, stale)
	says(t, "client", clientErr, "unknown authority")
}

// TestConcurrentHandshakes: handshakes and reloads at a time.
func TestConcurrentHandshakes(t *testing.T) {
	ca := root(t, "ours")
	f := ca.issue(t, n1, p256(t)).write(t)
	b, err := identity.Load(f)
	if err != nil {
		t.Fatal(err)
	}
	server, client := b.ServerTLS(identity.Node), dialled(b.ClientTLS(), "localhost")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				if _, serverErr, clientErr := connect(t, server, client); serverErr != nil || clientErr != nil {
					t.Errorf("server: %v; client: %v", serverErr, clientErr)
				}
			}
		})
	}
	for range 20 {
		ca.issue(t, n1, p256(t)).writeTo(t, f)
		if err := b.Reload(); err != nil && !errors.Is(err, identity.ErrKeyMismatch) {
			t.Error(err)
		}
	}
	wg.Wait()
}

// TestOpenKey: a key that everybody can read works, and is said.
func TestOpenKey(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	f := root(t, "ours").issue(t, n1, p256(t)).write(t)
	for mode, want := range map[os.FileMode]int{0o600: 0, 0o640: 0, 0o644: 1} {
		if err := os.Chmod(f.Key, mode); err != nil {
			t.Fatal(err)
		}
		var log recorder
		if _, err := identity.LoadWithLogger(f, log.logger()); err != nil {
			t.Fatal(err)
		}
		if n := log.count("every user of this machine can read the key"); n != want {
			t.Errorf("%v: said %d times, want %d", mode, n, want)
		}
	}
}
