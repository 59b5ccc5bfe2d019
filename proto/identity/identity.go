// Package identity is who speaks on a connection: a role and a name, taken from
// an X.509 certificate, and the TLS configurations that demand them. It is part
// of the wire format, and clients and servers share it.
//
// A certificate names its bearer in one URI, undertone://ROLE/NAME, among its
// subject alternative names, or else by its subject: organizational unit
// "undertone ROLE", common name NAME. Everything is TLS 1.3 with certificates on
// both sides. One authority may issue all roles, so a role is checked on both
// ends of a connection: no client's certificate passes for a server's.
//
// # Promise
//
// A Bearer takes up a new certificate, key or authority from its files without a
// restart, and goes on with the old ones while the new ones are half written or
// wrong. There is no session resumption: every connection shows its certificate,
// so an authority that was taken away admits nobody from then on. Connections
// that are open stay open.
//
// # Policy
//
// There are no revocation lists: certificates are short-lived, or their authority
// is replaced. Package grpctls, below this one, is the same for grpc.
package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Role is what a bearer may do.
type Role string

// Roles.
const (
	Client   Role = "client"   // takes part in rounds, as itself
	Operator Role = "operator" // opens jobs, runs the cluster
	Auditor  Role = "auditor"  // reads
	Node     Role = "node"     // is a server
)

// Roles are all there are.
func Roles() []Role { return []Role{Client, Operator, Auditor, Node} }

// Identity is a bearer.
type Identity struct {
	Role Role
	Name string // 1 to 128 characters of printable ASCII, without spaces and slashes
}

// String is ROLE/NAME.
func (id Identity) String() string { return string(id.Role) + "/" + id.Name }

// URI is how a certificate names the bearer.
func (id Identity) URI() *url.URL {
	return &url.URL{Scheme: scheme, Host: string(id.Role), Path: "/" + id.Name}
}

// Check returns an error unless the role is one of Roles and the name is one
// that a bearer can have.
func (id Identity) Check() error {
	switch id.Role {
	case Client, Operator, Auditor, Node:
	default:
		return fmt.Errorf("%q is no role", id.Role)
	}
	switch {
	case id.Name == "":
		return errors.New("the name is empty")
	case len(id.Name) > maxName:
		return fmt.Errorf("the name %.20q... is longer than %d characters", id.Name, maxName)
	case strings.ContainsFunc(id.Name, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' }):
		return fmt.Errorf("the name %q has characters other than printable ASCII without spaces and slashes", id.Name)
	}
	return nil
}

const (
	scheme     = "undertone"
	unitPrefix = "undertone "
	maxName    = 128
)

// ErrNoIdentity says that a certificate does not name a bearer.
var ErrNoIdentity = errors.New("identity: the certificate names no bearer")

// FromCertificate reads the bearer of a verified certificate. Fails with
// ErrNoIdentity.
func FromCertificate(c *x509.Certificate) (Identity, error) {
	id, err := named(c)
	if err == nil {
		err = id.Check()
	}
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrNoIdentity, err)
	}
	return id, nil
}

// named is the bearer as the certificate has it: a URI if there is any of ours,
// else the subject. Two of either could be read as one or the other, so they
// name nobody.
func named(c *x509.Certificate) (Identity, error) {
	var uris []*url.URL
	for _, u := range c.URIs {
		if u.Scheme == scheme {
			uris = append(uris, u)
		}
	}
	switch len(uris) {
	case 1:
		return fromURI(uris[0])
	case 0:
		return fromSubject(c)
	}
	return Identity{}, fmt.Errorf("it has %d %s:// URIs", len(uris), scheme)
}

func fromURI(u *url.URL) (Identity, error) {
	name, absolute := strings.CutPrefix(u.Path, "/")
	if !absolute || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return Identity{}, fmt.Errorf("the URI %q is not %s://ROLE/NAME", u, scheme)
	}
	return Identity{Role(u.Host), name}, nil
}

func fromSubject(c *x509.Certificate) (Identity, error) {
	var roles []Role
	for _, unit := range c.Subject.OrganizationalUnit {
		if role, ours := strings.CutPrefix(unit, unitPrefix); ours {
			roles = append(roles, Role(role))
		}
	}
	switch len(roles) {
	case 1:
		return Identity{roles[0], c.Subject.CommonName}, nil
	case 0:
		return Identity{}, fmt.Errorf("%q has neither a URI %s://ROLE/NAME nor an organizational unit %q", c.Subject, scheme, unitPrefix+"ROLE")
	}
	return Identity{}, fmt.Errorf("it has %d organizational units %q", len(roles), unitPrefix+"ROLE")
}

// FromConnection reads who is at the other end of a connection that a Bearer's
// configuration made. Fails with ErrNoIdentity.
func FromConnection(state *tls.ConnectionState) (Identity, error) {
	if state == nil || !state.HandshakeComplete || len(state.PeerCertificates) == 0 {
		return Identity{}, fmt.Errorf("%w: there is none", ErrNoIdentity)
	}
	return FromCertificate(state.PeerCertificates[0])
}
