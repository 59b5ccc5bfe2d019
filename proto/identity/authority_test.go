package identity_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/proto/identity"
)

// issuer is an authority, or an intermediate one. Package authority below server
// is the product's; this one can also do what that refuses to.
type issuer struct {
	certificate *x509.Certificate
	key         crypto.Signer
	parent      *issuer
}

func newIssuer(t *testing.T, name string, parent *issuer, key crypto.Signer) *issuer {
	t.Helper()
	i := &issuer{key: key, parent: parent}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	above, signer := template, key
	if parent != nil {
		above, signer = parent.certificate, parent.key
	}
	i.certificate = sign(t, template, above, key.Public(), signer)
	return i
}

func root(t *testing.T, name string) *issuer { return newIssuer(t, name, nil, p256(t)) }

func p256(t *testing.T) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func rsa2048(t *testing.T) crypto.Signer {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sign(t *testing.T, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// pems is what the three files hold.
type pems struct{ certificate, key, authority []byte }

// issue makes a certificate for localhost and 127.0.0.1, which the changes may
// make a bad one. Its other side's authority is the issuer's root.
func (i *issuer) issue(t *testing.T, id identity.Identity, key crypto.Signer, changes ...func(*x509.Certificate)) pems {
	t.Helper()
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "somebody"},
		URIs:        []*url.URL{id.URI()},
		NotBefore:   time.Now().Add(-time.Hour),
		NotAfter:    time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	for _, change := range changes {
		change(template)
	}
	chain := pemOf("CERTIFICATE", sign(t, template, i.certificate, key.Public(), i.key).Raw)
	above := i
	for ; above.parent != nil; above = above.parent {
		chain = append(chain, pemOf("CERTIFICATE", above.certificate.Raw)...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pems{chain, pemOf("PRIVATE KEY", der), pemOf("CERTIFICATE", above.certificate.Raw)}
}

func pemOf(kind string, raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw})
}

// write puts the PEMs into files of a new directory.
func (p pems) write(t *testing.T) identity.Files {
	t.Helper()
	f := identity.In(t.TempDir())
	p.writeTo(t, f)
	return f
}

func (p pems) writeTo(t *testing.T, f identity.Files) {
	t.Helper()
	for path, text := range map[string][]byte{f.Certificate: p.certificate, f.Key: p.key, f.Authority: p.authority} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func (p pems) trusting(others ...*issuer) pems {
	p.authority = nil
	for _, o := range others {
		p.authority = append(p.authority, pemOf("CERTIFICATE", o.certificate.Raw)...)
	}
	return p
}

func (p pems) load(t *testing.T) *identity.Bearer {
	t.Helper()
	b, err := identity.Load(p.write(t))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// bearer is New's: it takes what Load refuses, an expired certificate for one.
func (p pems) bearer(t *testing.T) *identity.Bearer {
	t.Helper()
	pair, err := tlsPair(p)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(bytes.Clone(p.authority)) {
		t.Fatal("no authority")
	}
	b, err := identity.New(pair, pool)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
