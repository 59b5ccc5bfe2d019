package authority_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server/authority"
)

func client(name string) authority.Request {
	return authority.Request{Identity: identity.Identity{Role: identity.Client, Name: name}}
}

func node(name string, hosts ...string) authority.Request {
	return authority.Request{Identity: identity.Identity{Role: identity.Node, Name: name}, Hosts: hosts}
}

// TestIssuedAreAccepted: what is written is what both sides of a connection
// accept, with keys that nobody else can read.
func TestIssuedAreAccepted(t *testing.T) {
	dir := t.TempDir()
	made, err := authority.Create(filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := authority.Open(filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	if !a.Certificate().Equal(made.Certificate()) {
		t.Error("the authority that was opened is another one")
	}
	bearers := map[identity.Role]*identity.Bearer{}
	for _, r := range []authority.Request{client("alice"), node("n1", "localhost", "127.0.0.1")} {
		issued, err := a.Issue(r)
		if err != nil {
			t.Fatal(err)
		}
		f, err := issued.Write(authority.Place(dir, r.Identity))
		if err != nil {
			t.Fatal(err)
		}
		if f != identity.In(filepath.Join(dir, string(r.Role), r.Name)) {
			t.Errorf("files are %v", f)
		}
		private(t, f.Key)
		b, err := identity.Load(f)
		if err != nil {
			t.Fatal(err)
		}
		if b.Identity() != r.Identity {
			t.Errorf("identity %v, want %v", b.Identity(), r.Identity)
		}
		bearers[r.Role] = b
	}
	private(t, filepath.Join(dir, "ca", authority.KeyFile))
	handshake(t, bearers[identity.Node], bearers[identity.Client])
}

// TestInMemory: tests and single-process clusters need no files.
func TestInMemory(t *testing.T) {
	a, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	n, err := a.Bearer(identity.Node, "n1", "localhost")
	if err != nil {
		t.Fatal(err)
	}
	o, err := a.Bearer(identity.Operator, "admin")
	if err != nil {
		t.Fatal(err)
	}
	handshake(t, n, o)
}

func TestNothingIsOverwritten(t *testing.T) {
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca")
	a, err := authority.Create(ca)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := authority.Create(ca); !errors.Is(err, authority.ErrExists) {
		t.Errorf("second authority: %v, want ErrExists", err)
	}
	first, _ := a.Issue(client("alice"))
	second, _ := a.Issue(client("alice"))
	place := filepath.Join(dir, "alice")
	f, err := first.Write(place)
	if err != nil {
		t.Fatal(err)
	}
	before := content(t, f.Key)
	if _, err := second.Write(place); !errors.Is(err, authority.ErrExists) {
		t.Errorf("second certificate: %v, want ErrExists", err)
	}
	if content(t, f.Key) != before {
		t.Error("the key is another one")
	}
	left, err := filepath.Glob(filepath.Join(dir, ".new-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("drafts were left: %v (%v)", left, err)
	}
}

// TestRenew: a running server takes the new certificate up, for its key is the
// same.
func TestRenew(t *testing.T) {
	dir := t.TempDir()
	a, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	place := filepath.Join(dir, "n1")
	request := node("n1", "localhost", "10.0.0.1")
	request.Lifetime = time.Hour
	issued, err := a.Issue(request)
	if err != nil {
		t.Fatal(err)
	}
	f, err := issued.Write(place)
	if err != nil {
		t.Fatal(err)
	}
	b, err := identity.Load(f)
	if err != nil {
		t.Fatal(err)
	}
	key := content(t, f.Key)

	if _, err := a.Renew(place, node("n2")); err == nil || !strings.Contains(err.Error(), "node/n1") {
		t.Errorf("renewing as another: %v", err)
	}
	renewed, err := a.Renew(place, node("n1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Reload(); err != nil {
		t.Fatal(err)
	}
	if got, want := b.Certificate().NotAfter, renewed.Certificate.NotAfter; !got.Equal(want) || got.Sub(issued.Certificate.NotAfter) < 100*24*time.Hour {
		t.Errorf("valid until %v, want %v", got, want)
	}
	if content(t, f.Key) != key {
		t.Error("the key is another one")
	}
	if err := renewed.Certificate.VerifyHostname("10.0.0.1"); err != nil {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	a, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		request authority.Request
		want    string
	}{
		{client(""), "the name is empty"},
		{client("a b"), "printable ASCII"},
		{client("../x"), "slashes"},
		{client(strings.Repeat("x", 129)), "longer than 128"},
		{authority.Request{Identity: identity.Identity{Role: "root", Name: "x"}}, `"root" is no role`},
		{node("n1"), authority.ErrNoHost.Error()},
		{node("n1", "host:7300"), `"host:7300" is neither`},
		{authority.Request{Identity: client("a").Identity, Lifetime: -1}, "lifetime"},
	} {
		if _, err := a.Issue(test.request); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: %v, want %q", test.request, err, test.want)
		}
	}
	if _, err := authority.Open(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
}

// TestEndsWithTheAuthority: a certificate never outlives who issued it.
func TestEndsWithTheAuthority(t *testing.T) {
	a, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	r := client("alice")
	r.Lifetime = 2 * authority.Lifetime
	i, err := a.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	if !i.Certificate.NotAfter.Equal(a.Certificate().NotAfter) {
		t.Errorf("valid until %v, the authority until %v", i.Certificate.NotAfter, a.Certificate().NotAfter)
	}
}

// TestPlaces: every name has a directory of its own, inside the base.
func TestPlaces(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range []string{"a", ".", "..", "...", "%2E", "a%b", `a\b`, "a:b", "~", ".new-1"} {
		place := authority.Place("base", identity.Identity{Role: identity.Client, Name: name})
		if filepath.Dir(place) != filepath.Join("base", "client") || seen[place] {
			t.Errorf("%q is in %q", name, place)
		}
		seen[place] = true
	}
}

func handshake(t *testing.T, server, client *identity.Bearer) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", server.ServerTLS(client.Identity().Role))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		if err = conn.(*tls.Conn).Handshake(); err == nil {
			state := conn.(*tls.Conn).ConnectionState()
			var who identity.Identity
			if who, err = identity.FromConnection(&state); err == nil && who != client.Identity() {
				err = fmt.Errorf("the client is %v", who)
			}
		}
		done <- err
	}()
	config := client.ClientTLS()
	config.ServerName = "localhost"
	conn, err := tls.Dial("tcp", l.Addr().String(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func private(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v", path, info.Mode())
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// BenchmarkIssue is one client's key, certificate and files.
func BenchmarkIssue(b *testing.B) {
	a, err := authority.New()
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	for i := 0; b.Loop(); i++ {
		issued, err := a.Issue(client(fmt.Sprint(i)))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := issued.Write(authority.Place(dir, issued.Identity)); err != nil {
			b.Fatal(err)
		}
	}
}
