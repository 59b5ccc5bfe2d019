package authority

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/undertone-fl/undertone/proto/identity"
)

// Files of an authority's directory. The key signs; only the authority needs it.
const (
	CertificateFile = "ca.crt"
	KeyFile         = "ca.key"
)

// File is one that is kept beside certificates, such as the key of a cluster's ledger.
type File struct {
	Name string
	Text []byte
	Mode fs.FileMode
}

// Create makes an authority in a directory, with other files beside it. The directory
// may not hold anything yet: else ErrExists.
func Create(dir string, beside ...File) (*Authority, error) {
	a, err := New()
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	return a, writeDirectory(dir, append([]File{
		{KeyFile, encode("PRIVATE KEY", key), 0o600},
		{CertificateFile, a.PEM(), 0o644},
	}, beside...))
}

// Open reads the authority of a directory. An error wraps fs.ErrNotExist if
// there is none.
func Open(dir string) (*Authority, error) {
	cert, key := filepath.Join(dir, CertificateFile), filepath.Join(dir, KeyFile)
	pair, err := readPair(cert, key)
	if err != nil {
		return nil, err
	}
	if !pair.Leaf.IsCA {
		return nil, &identity.FileError{Path: cert, Err: errors.New("the certificate is not an authority's")}
	}
	return &Authority{pair.Leaf, pair.PrivateKey.(crypto.Signer)}, nil
}

// Place is the directory under base that a bearer's files are kept in.
func Place(base string, id identity.Identity) string {
	name := url.PathEscape(id.Name)
	if strings.Trim(name, ".") == "" {
		name = strings.ReplaceAll(name, ".", "%2E")
	}
	return filepath.Join(base, string(id.Role), name)
}

// Write puts the certificate, its key and the authority's certificate into a
// directory, under the names of identity.In, with other files beside them, all or none.
// A directory that holds files already is ErrExists.
func (i *Issued) Write(dir string, beside ...File) (identity.Files, error) {
	key, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		return identity.Files{}, fmt.Errorf("authority: %w", err)
	}
	f := identity.In(dir)
	return f, writeDirectory(dir, append([]File{
		{filepath.Base(f.Key), encode("PRIVATE KEY", key), 0o600},
		{filepath.Base(f.Certificate), encode("CERTIFICATE", i.Certificate.Raw), 0o644},
		{filepath.Base(f.Authority), i.authority.PEM(), 0o644},
	}, beside...))
}

// Renew issues a certificate for the key in a directory that Write filled, and
// puts it in the place of the old one. Hosts are those of the old one if the
// request has none.
func (a *Authority) Renew(dir string, r Request) (*Issued, error) {
	f := identity.In(dir)
	pair, err := readPair(f.Certificate, f.Key)
	if err != nil {
		return nil, err
	}
	switch old, err := identity.FromCertificate(pair.Leaf); {
	case err != nil:
		return nil, &identity.FileError{Path: f.Certificate, Err: err}
	case old != r.Identity:
		return nil, &identity.FileError{Path: f.Certificate, Err: fmt.Errorf("the certificate is that of %v", old)}
	}
	if len(r.Hosts) == 0 {
		r.Hosts = hosts(pair.Leaf)
	}
	i, err := a.issue(r, pair.PrivateKey.(crypto.Signer))
	if err != nil {
		return nil, err
	}
	// The authority first: a certificate that nobody could verify is of no use.
	if err := replace(f.Authority, a.PEM()); err != nil {
		return nil, err
	}
	return i, replace(f.Certificate, encode("CERTIFICATE", i.Certificate.Raw))
}

func hosts(c *x509.Certificate) []string {
	list := c.DNSNames
	for _, ip := range c.IPAddresses {
		list = append(list, ip.String())
	}
	return list
}

func readPair(cert, key string) (tls.Certificate, error) {
	var text [2][]byte
	for i, path := range []string{cert, key} {
		var err error
		if text[i], err = os.ReadFile(path); err != nil {
			if p := (*fs.PathError)(nil); errors.As(err, &p) {
				err = p.Err
			}
			return tls.Certificate{}, &identity.FileError{Path: path, Err: err}
		}
	}
	pair, err := tls.X509KeyPair(text[0], text[1])
	if err != nil {
		return pair, &identity.FileError{Path: cert, Err: fmt.Errorf("with its key: %s", strings.TrimPrefix(err.Error(), "tls: "))}
	}
	return pair, nil
}

// writeDirectory makes a directory with all of the files or none, in the place of
// an empty one at most. Only its owner may look into it.
func writeDirectory(dir string, files []File) error {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	draft, err := os.MkdirTemp(parent, ".new-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(draft)
	for _, f := range files {
		// Not synced, for thousands take as long as their syncs: what a power
		// failure takes is issued again.
		if err := os.WriteFile(filepath.Join(draft, f.Name), f.Text, f.Mode); err != nil {
			return err
		}
	}
	err = os.Rename(draft, dir)
	if entries, _ := os.ReadDir(dir); err != nil && len(entries) > 0 {
		return fmt.Errorf("%s: %w", dir, ErrExists)
	}
	return err
}

// replace writes a file in the place of another, all of it or nothing.
func replace(path string, text []byte) error {
	draft := filepath.Join(filepath.Dir(path), ".new-"+filepath.Base(path))
	defer os.Remove(draft)
	f, err := os.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(draft, path)
}
