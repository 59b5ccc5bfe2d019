package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Files are the PEM files of a certificate (leaf first), its key, and the
// authorities that the other side's certificate must come from.
type Files struct {
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
	Authority   string `json:"authority"`
}

// In are the files of a directory, by the names that Kubernetes and cert-manager
// give them: tls.crt, tls.key, ca.crt.
func In(dir string) Files {
	return Files{filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "ca.crt")}
}

// FileError is what is wrong with one of the Files.
type FileError struct {
	Path string
	Err  error
}

func (e *FileError) Error() string { return e.Path + ": " + e.Err.Error() }
func (e *FileError) Unwrap() error { return e.Err }

// What Load refuses beside files that cannot be read or parsed, inside a
// *FileError.
var (
	ErrExpired     = errors.New("the certificate has expired")
	ErrNotYetValid = errors.New("the certificate is not yet valid")
	ErrKeyMismatch = errors.New("the key is not the certificate's")
)

// Bearer holds an identity's certificate, and takes up a new one from its files
// without a restart. Its methods may be called by any goroutine.
type Bearer struct {
	current atomic.Pointer[credentials]

	files Files // empty: in memory, never reloaded
	log   *slog.Logger

	mu      sync.Mutex // of what follows
	checked time.Time  // when the files were last read
	failed  string     // what was said of them then
}

// credentials are what a handshake needs. They never change; a reload makes
// others.
type credentials struct {
	identity    Identity
	certificate tls.Certificate
	authorities *x509.CertPool
	raw         [3][]byte // the files' bytes
}

// Load reads the files. Fails with a *FileError, or with ErrNoIdentity. What is
// wrong later is logged to slog.Default.
func Load(f Files) (*Bearer, error) { return LoadWithLogger(f, slog.Default()) }

// LoadWithLogger is Load with a logger of one's own.
func LoadWithLogger(f Files, log *slog.Logger) (*Bearer, error) {
	c, err := read(f, time.Now())
	if err != nil {
		return nil, err
	}
	b := &Bearer{files: f, log: log, checked: time.Now()}
	b.current.Store(c)
	warnOfOpenKey(f.Key, log)
	return b, nil
}

// New returns the bearer of a certificate that is in no file: its key may be in
// a keystore.
func New(certificate tls.Certificate, authorities *x509.CertPool) (*Bearer, error) {
	if len(certificate.Certificate) == 0 {
		return nil, fmt.Errorf("%w: there is no certificate", ErrNoIdentity)
	}
	if authorities == nil { // crypto/x509 would take the system's
		return nil, errors.New("identity: no authorities for the other side's certificate")
	}
	if certificate.Leaf == nil {
		leaf, err := x509.ParseCertificate(certificate.Certificate[0])
		if err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
		certificate.Leaf = leaf
	}
	id, err := FromCertificate(certificate.Leaf)
	if err != nil {
		return nil, err
	}
	b := new(Bearer)
	b.current.Store(&credentials{identity: id, certificate: certificate, authorities: authorities})
	return b, nil
}

// Identity is the bearer's own. It stays what it was when the files were first
// read.
func (b *Bearer) Identity() Identity { return b.current.Load().identity }

// Certificate is the one in use now.
func (b *Bearer) Certificate() *x509.Certificate { return b.latest().certificate.Leaf }

// Reload reads the files now. Handshakes do the same, at most once a second.
// When it fails, what was in use stays in use.
func (b *Bearer) Reload() error {
	if b.files == (Files{}) {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reload(time.Now())
}

// recheck is how old what handshakes use may be.
const recheck = time.Second

// latest is what the files held a second ago or later. A handshake that finds
// another one reading does not wait for it.
func (b *Bearer) latest() *credentials {
	if b.files != (Files{}) && b.mu.TryLock() {
		defer b.mu.Unlock()
		if now := time.Now(); now.Sub(b.checked) >= recheck {
			_ = b.reload(now) // which has logged it
		}
	}
	return b.current.Load()
}

// reload reads the files and compares their bytes: times of modification miss
// what a symbolic link or a copy that keeps them brings. b.mu is held.
func (b *Bearer) reload(now time.Time) error {
	b.checked = now
	old := b.current.Load()
	raw, err := readFiles(b.files)
	if err == nil && sameBytes(raw, old.raw) {
		b.failed = ""
		return nil
	}
	var c *credentials
	if err == nil {
		c, err = parse(b.files, raw, now)
	}
	if err == nil && c.identity != old.identity {
		err = &FileError{b.files.Certificate, fmt.Errorf("the certificate is now that of %v; it was that of %v, which takes a restart", c.identity, old.identity)}
	}
	if err != nil {
		if err.Error() != b.failed {
			b.failed = err.Error()
			b.log.Warn("the certificate in use stays in use, for the new one is wrong", "err", err, "until", old.certificate.Leaf.NotAfter)
		}
		return err
	}
	b.failed = ""
	b.current.Store(c)
	b.log.Info("new certificate in use", "identity", c.identity.String(), "until", c.certificate.Leaf.NotAfter)
	warnOfOpenKey(b.files.Key, b.log)
	return nil
}

func read(f Files, now time.Time) (*credentials, error) {
	raw, err := readFiles(f)
	if err != nil {
		return nil, err
	}
	return parse(f, raw, now)
}

func readFiles(f Files) (raw [3][]byte, err error) {
	for i, file := range []struct{ what, path string }{
		{"certificate", f.Certificate}, {"key", f.Key}, {"authority", f.Authority},
	} {
		if file.path == "" {
			return raw, &FileError{file.what, errors.New("no file is named")}
		}
		if raw[i], err = os.ReadFile(file.path); err != nil {
			if path := (*fs.PathError)(nil); errors.As(err, &path) {
				err = path.Err
			}
			return raw, &FileError{file.path, err}
		}
	}
	return raw, nil
}

func sameBytes(a, b [3][]byte) bool {
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

// day is how errors write a time.
const day = "2006-01-02 15:04 MST"

func parse(f Files, raw [3][]byte, now time.Time) (*credentials, error) {
	chain, err := certificates(raw[0])
	if err != nil {
		return nil, &FileError{f.Certificate, err}
	}
	leaf := chain[0]
	switch {
	case now.After(leaf.NotAfter):
		return nil, &FileError{f.Certificate, fmt.Errorf("%w on %s", ErrExpired, leaf.NotAfter.Format(day))}
	case now.Before(leaf.NotBefore):
		return nil, &FileError{f.Certificate, fmt.Errorf("%w before %s; this machine's clock says %s", ErrNotYetValid, leaf.NotBefore.Format(day), now.UTC().Format(day))}
	}
	id, err := FromCertificate(leaf)
	if err != nil {
		return nil, &FileError{f.Certificate, err}
	}

	pair, err := keyPair(raw[0], raw[1])
	if err != nil {
		return nil, &FileError{f.Key, err}
	}
	authorities, err := certificates(raw[2])
	if err != nil {
		return nil, &FileError{f.Authority, err}
	}
	pool := x509.NewCertPool()
	for _, a := range authorities {
		pool.AddCert(a)
	}
	return &credentials{id, pair, pool, raw}, nil
}

// certificates reads PEM: one certificate at least, and nothing else that
// matters.
func certificates(text []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, errors.New("the file holds no certificate in PEM")
	}
	return list, nil
}

// keyPair puts a certificate that parses and its key together.
func keyPair(certificate, key []byte) (tls.Certificate, error) {
	if block, _ := pem.Decode(key); block != nil && (block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "") {
		return tls.Certificate{}, errors.New("the key is encrypted (openssl pkey takes the passphrase off)")
	}
	pair, err := tls.X509KeyPair(certificate, key)
	switch {
	case err == nil:
		return pair, nil
	case strings.Contains(err.Error(), "does not match"): // crypto/tls has no value for it
		return pair, ErrKeyMismatch
	}
	return pair, errors.New(strings.TrimPrefix(err.Error(), "tls: "))
}

// warnOfOpenKey says that every user of the machine can read a key.
func warnOfOpenKey(path string, log *slog.Logger) {
	info, err := os.Stat(path)
	if err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o007 != 0 {
		log.Warn("every user of this machine can read the key: chmod 600", "file", path, "mode", info.Mode().Perm().String())
	}
}
