package identity

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"
)

// RoleError says that the other side is who it says, but has not the role that
// this connection takes.
type RoleError struct {
	Peer Identity
	Want []Role
}

func (e *RoleError) Error() string {
	want := make([]string, len(e.Want))
	for i, r := range e.Want {
		want[i] = string(r)
	}
	return fmt.Sprintf("identity: the certificate is that of %v, and this connection takes %s only", e.Peer, strings.Join(want, ", "))
}

// ServerTLS takes connections of the given roles only. Set NextProtos to what
// it speaks. It presents, and verifies with, what the files hold at the time of
// each handshake. Fails in the handshake with a *tls.CertificateVerificationError,
// ErrNoIdentity, or a *RoleError.
func (b *Bearer) ServerTLS(roles ...Role) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &b.latest().certificate, nil
		},
		// VerifyConnection does what RequireAndVerifyClientCert would, with the
		// authorities of the day.
		ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: func(state tls.ConnectionState) error {
			if err := verify(state.PeerCertificates, b.latest().authorities, x509.ExtKeyUsageClientAuth, time.Time{}); err != nil {
				return err
			}
			return takes(state.PeerCertificates[0], roles)
		},
	}
}

// WebTLS takes connections of everybody, for HTTP. Who shows a certificate shows one
// that the authorities of the day issued, or is refused in the handshake; which role it
// has is for the handler to judge (FromConnection). Browsers are told the authorities,
// and so ask a person only where there is a certificate to choose.
func (b *Bearer) WebTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			now := b.latest()
			return &tls.Config{
				MinVersion:             tls.VersionTLS13,
				SessionTicketsDisabled: true,
				Certificates:           []tls.Certificate{now.certificate},
				ClientAuth:             tls.VerifyClientCertIfGiven,
				ClientCAs:              now.authorities,
				NextProtos:             []string{"h2", "http/1.1"},
			}, nil
		},
	}
}

// ClientTLS connects to nodes only, whose certificate must also be for the host
// name that was dialled: set ServerName, as tls.Dial and grpc do.
//
// The certificate that it presents is the one that the files hold at the time
// of each handshake. An authority that they lose admits nobody from then on; one
// that they gain counts for the configurations made after it (crypto/tls fixes
// the roots of a client's configuration, and tells VerifyConnection no host that
// is an IP address), so make one for each connection, as grpctls does.
func (b *Bearer) ClientTLS() *tls.Config {
	roots := b.latest().authorities
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &b.latest().certificate, nil
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			if now := b.latest().authorities; now != roots {
				if err := verify(state.PeerCertificates, now, x509.ExtKeyUsageServerAuth, time.Time{}); err != nil {
					return err
				}
			}
			return takes(state.PeerCertificates[0], []Role{Node})
		},
	}
}

// Admits returns whose chain it is, leaf first, that the other side showed in a handshake,
// if that handshake would still succeed at a time: the certificate has not expired, and
// its authority is one of those of now. A connection lasts longer than what it was let in
// for. Fails with a *tls.CertificateVerificationError or ErrNoIdentity.
func (b *Bearer) Admits(chain []*x509.Certificate, at time.Time) (Identity, error) {
	if len(chain) == 0 {
		return Identity{}, ErrNoIdentity
	}
	if err := verify(chain, b.latest().authorities, x509.ExtKeyUsageClientAuth, at); err != nil {
		return Identity{}, err
	}
	return FromCertificate(chain[0])
}

// verify checks that a chain, leaf first, ends at an authority, at a time or now.
func verify(chain []*x509.Certificate, authorities *x509.CertPool, usage x509.ExtKeyUsage, at time.Time) error {
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         authorities,
		Intermediates: intermediates,
		KeyUsages:     []x509.ExtKeyUsage{usage},
		CurrentTime:   at,
	})
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
	}
	return nil
}

func takes(c *x509.Certificate, roles []Role) error {
	peer, err := FromCertificate(c)
	if err != nil {
		return err
	}
	if !slices.Contains(roles, peer.Role) {
		return &RoleError{peer, roles}
	}
	return nil
}

// Explain puts a connection that the other side refused into words that say what
// to do about it; other errors it returns as they are. TLS tells the refused no
// more than a number, and grpc hands on no more than its text.
func (b *Bearer) Explain(err error) error {
	if err == nil || !strings.Contains(err.Error(), "remote error: tls: ") {
		return err
	}
	c := b.current.Load()
	if leaf := c.certificate.Leaf; time.Now().After(leaf.NotAfter) {
		return fmt.Errorf("the other side refuses the certificate of %v, which expired on %s: %w", c.identity, leaf.NotAfter.Format(day), err)
	}
	return fmt.Errorf("the other side refuses the certificate of %v: it may be for another role, or of an authority that is not known there (%s): %w", c.identity, c.certificate.Leaf.Issuer, err)
}
