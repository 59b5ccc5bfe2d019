// Package identity is who speaks on a connection: a role and a name, taken from
// an X.509 certificate, and the TLS configurations that demand them. It is part
// of the wire format, and clients and servers share it.
//
// A certificate names its bearer in one URI, undertone://ROLE/NAME, among its
// subject alternative names, or else by its subject: organizational unit
// "undertone ROLE", common name NAME. Everything is TLS 1.3 with certificates on
// both sides. One authority may issue all roles, so a role is checked on both
// ends of a connection: no client's certificate passes for a server's.
package identity

import (
	"crypto/tls"
	"crypto/x509"
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

// Identity is a bearer.
type Identity struct {
	Role Role
	Name string // 1 to 128 characters of printable ASCII, without spaces and slashes
}

// FromCertificate reads the bearer of a verified certificate. Fails with
// ErrNoIdentity.
func FromCertificate(c *x509.Certificate) (Identity, error) { panic("identity: to be built") }

// Files are the PEM files of a certificate (leaf first), its key, and the
// authorities that the other side's certificate must come from.
type Files struct {
	Certificate, Key, Authority string
}

// Bearer holds an identity's certificate, and takes up a new one from its files
// without a restart.
type Bearer struct{}

// Load reads the files. Fails with an error that names the file.
func Load(f Files) (*Bearer, error) { panic("identity: to be built") }

// Identity is the bearer's own.
func (b *Bearer) Identity() Identity { panic("identity: to be built") }

// ServerTLS takes connections of the given roles only. Set NextProtos to what
// it speaks.
func (b *Bearer) ServerTLS(roles ...Role) *tls.Config { panic("identity: to be built") }

// ClientTLS connects to nodes only, whose certificate must also be for the host
// name that was dialled.
func (b *Bearer) ClientTLS() *tls.Config { panic("identity: to be built") }
