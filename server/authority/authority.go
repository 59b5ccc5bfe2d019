// Package authority is a certificate authority for development and for clusters
// that have no other: one key in one directory, and certificates that name their
// bearers as package identity reads them.
//
// # Policy
//
// Keys are ECDSA P-256. A key is written once, readable by its owner alone, and
// never overwritten: Renew issues a certificate for the key that is there. There
// is no revocation; a lost key's certificate ends with its lifetime, or with the
// authority. Certificates begin a day in the past, for machines whose clocks are
// wrong.
package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"time"

	"github.com/undertone-fl/undertone/proto/identity"
)

// Lifetimes.
const (
	Lifetime     = 10 * year // of an authority
	LeafLifetime = year      // of a certificate, unless told otherwise
	year         = 8766 * time.Hour
	backdated    = 24 * time.Hour
)

// Errors.
var (
	// ErrExists says that a file is there already, which is never overwritten.
	ErrExists = errors.New("authority: exists already")
	// ErrNoHost says that a node's certificate names no host, so that nobody
	// could connect to it.
	ErrNoHost = errors.New("authority: a node's certificate needs a host")
)

// Authority issues certificates. Its methods may be called by any goroutine.
type Authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

// New makes an authority in memory.
func New() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	now := time.Now().Truncate(time.Second)
	var mark [4]byte // tells authorities apart, for people and for verification
	rand.Read(mark[:])
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{"undertone"}, CommonName: fmt.Sprintf("undertone authority %x", mark)},
		NotBefore:             now.Add(-backdated),
		NotAfter:              now.Add(Lifetime),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	c, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &Authority{c, key}, nil
}

// Certificate is the authority's own.
func (a *Authority) Certificate() *x509.Certificate { return a.certificate }

// PEM is the authority's certificate, for those who are to trust it.
func (a *Authority) PEM() []byte { return encode("CERTIFICATE", a.certificate.Raw) }

// Request is what a certificate is for.
type Request struct {
	identity.Identity
	// Hosts are the names and addresses by which a node is reached.
	Hosts []string
	// Lifetime, LeafLifetime if 0. It ends with the authority's at the latest.
	Lifetime time.Duration
}

// Issued is a certificate and its key.
type Issued struct {
	Identity    identity.Identity
	Certificate *x509.Certificate
	key         crypto.Signer
	authority   *Authority
}

// Issue makes a key and a certificate for it.
func (a *Authority) Issue(r Request) (*Issued, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	return a.issue(r, key)
}

func (a *Authority) issue(r Request, key crypto.Signer) (*Issued, error) {
	if err := r.Check(); err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	now := time.Now().Truncate(time.Second)
	lifetime := r.Lifetime
	if lifetime == 0 {
		lifetime = LeafLifetime
	}
	if lifetime < 0 {
		return nil, fmt.Errorf("authority: a lifetime of %v", lifetime)
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{Organization: []string{"undertone"}, CommonName: commonName(r.Name)},
		URIs:        []*url.URL{r.URI()},
		NotBefore:   now.Add(-backdated),
		NotAfter:    now.Add(lifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if end := a.certificate.NotAfter; template.NotAfter.After(end) {
		template.NotAfter = end
	}
	if r.Role == identity.Node {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		if err := addHosts(template, r.Hosts); err != nil {
			return nil, err
		}
	}
	c, err := sign(template, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	return &Issued{r.Identity, c, key, a}, nil
}

// Bearer holds the certificate in memory.
func (i *Issued) Bearer() (*identity.Bearer, error) {
	pool := x509.NewCertPool()
	pool.AddCert(i.authority.certificate)
	return identity.New(tls.Certificate{
		Certificate: [][]byte{i.Certificate.Raw},
		PrivateKey:  i.key,
		Leaf:        i.Certificate,
	}, pool)
}

// Bearer issues a certificate and holds it in memory: what tests want.
func (a *Authority) Bearer(role identity.Role, name string, hosts ...string) (*identity.Bearer, error) {
	i, err := a.Issue(Request{Identity: identity.Identity{Role: role, Name: name}, Hosts: hosts})
	if err != nil {
		return nil, err
	}
	return i.Bearer()
}

var hostName = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*$`)

func addHosts(template *x509.Certificate, hosts []string) error {
	if len(hosts) == 0 {
		return ErrNoHost
	}
	for _, h := range hosts {
		if err := CheckHost(h); err != nil {
			return fmt.Errorf("authority: %w", err)
		}
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	return nil
}

// CheckHost returns an error unless a certificate can be for the host.
func CheckHost(host string) error {
	if net.ParseIP(host) == nil && !hostName.MatchString(host) {
		return fmt.Errorf("%q is neither a host name nor an IP address", host)
	}
	return nil
}

// commonName is the name for people; X.520 allows it 64 characters. The URI has
// all of it.
func commonName(name string) string { return name[:min(len(name), 64)] }

func sign(template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	return x509.ParseCertificate(raw)
}

func encode(kind string, raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw})
}
