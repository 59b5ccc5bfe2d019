package identity_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/undertone-fl/undertone/proto/identity"
)

func uris(t *testing.T, list ...string) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{Subject: pkix.Name{CommonName: "subject", OrganizationalUnit: []string{"undertone operator"}}}
	for _, s := range list {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		c.URIs = append(c.URIs, u)
	}
	return c
}

func subject(cn string, units ...string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: cn, OrganizationalUnit: units}}
}

func TestFromCertificate(t *testing.T) {
	long := strings.Repeat("x", 129)
	for _, test := range []struct {
		name string
		c    *x509.Certificate
		want string // an identity, or what the error says after a space
	}{
		{"URI", uris(t, "undertone://client/alice"), "client/alice"},
		{"URI beside others", uris(t, "spiffe://example.org/x", "undertone://node/n1"), "node/n1"},
		{"escaped", uris(t, "undertone://client/50%25"), "client/50%"},
		{"email", uris(t, "undertone://client/alice@example.org"), "client/alice@example.org"},
		{"128 characters", uris(t, "undertone://client/"+long[1:]), "client/" + long[1:]},
		{"subject", subject("alice", "undertone client"), "client/alice"},
		{"subject beside others", subject("alice", "sales", "undertone auditor"), "auditor/alice"},
		{"foreign URI only", uris(t, "spiffe://example.org/x"), "operator/subject"},

		{"nothing", subject("alice"), " neither a URI"},
		{"other unit", subject("alice", "client"), " neither a URI"},
		{"two units", subject("alice", "undertone client", "undertone operator"), " 2 organizational units"},
		{"two URIs", uris(t, "undertone://client/alice", "undertone://operator/alice"), " 2 undertone:// URIs"},
		{"the same URI twice", uris(t, "undertone://client/alice", "undertone://client/alice"), " 2 undertone:// URIs"},
		// A URI of ours that is wrong does not fall back to the subject.
		{"unknown role", uris(t, "undertone://root/alice"), ` "root" is no role`},
		{"upper case", uris(t, "undertone://Client/alice"), ` "Client" is no role`},
		{"port", uris(t, "undertone://client:1/alice"), ` "client:1" is no role`},
		{"user", uris(t, "undertone://x@client/alice"), " is not undertone://ROLE/NAME"},
		{"query", uris(t, "undertone://client/alice?x=1"), " is not undertone://ROLE/NAME"},
		{"fragment", uris(t, "undertone://client/alice#x"), " is not undertone://ROLE/NAME"},
		{"opaque", uris(t, "undertone:client/alice"), " is not undertone://ROLE/NAME"},
		{"no name", uris(t, "undertone://client/"), " the name is empty"},
		{"no slash", uris(t, "undertone://client"), " is not undertone://ROLE/NAME"},
		{"slash", uris(t, "undertone://client/alice/bob"), " printable ASCII"},
		{"escaped slash", uris(t, "undertone://client/alice%2Fbob"), " printable ASCII"},
		{"space", uris(t, "undertone://client/alice%20bob"), " printable ASCII"},
		{"newline", subject("alice\nbob", "undertone client"), " printable ASCII"},
		{"NUL", uris(t, "undertone://client/alice%00"), " printable ASCII"},
		{"not ASCII", subject("älice", "undertone client"), " printable ASCII"},
		{"long", uris(t, "undertone://client/"+long), " longer than 128"},
		{"empty common name", subject("", "undertone client"), " the name is empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			id, err := identity.FromCertificate(test.c)
			if problem, refused := strings.CutPrefix(test.want, " "); refused {
				if !errors.Is(err, identity.ErrNoIdentity) || !strings.Contains(err.Error(), problem) {
					t.Errorf("got %v, %v; want an error that says %q", id, err, problem)
				}
				return
			}
			if err != nil || id.String() != test.want {
				t.Errorf("got %v, %v; want %s", id, err, test.want)
			}
		})
	}
}

// TestURIRoundTrip: what an authority writes is what is read.
func TestURIRoundTrip(t *testing.T) {
	for _, role := range identity.Roles() {
		for c := '!'; c <= '~'; c++ {
			if c == '/' {
				continue
			}
			want := identity.Identity{Role: role, Name: string(c) + "x" + string(c)}
			got, err := identity.FromCertificate(uris(t, want.URI().String()))
			if err != nil || got != want {
				t.Errorf("%s: got %v, %v", want.URI(), got, err)
			}
		}
	}
}

func FuzzFromCertificate(f *testing.F) {
	for _, s := range []string{"undertone://client/alice", "undertone:client/a", "undertone://x@node/%2F", "http://a"} {
		f.Add(s, "alice", "undertone client")
	}
	f.Fuzz(func(t *testing.T, uri, name, unit string) {
		c := subject(name, unit)
		if u, err := url.Parse(uri); err == nil {
			c.URIs = []*url.URL{u}
		}
		id, err := identity.FromCertificate(c)
		if err != nil {
			if !errors.Is(err, identity.ErrNoIdentity) || id != (identity.Identity{}) {
				t.Fatalf("%v, %v", id, err)
			}
			return
		}
		if again, err := identity.FromCertificate(uris(t, id.URI().String())); err != nil || again != id {
			t.Fatalf("%v is read back as %v, %v", id, again, err)
		}
	})
}
