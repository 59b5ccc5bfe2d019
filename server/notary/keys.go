package notary

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/undertone-fl/undertone/dp/ledger"
)

// Names of a ledger's key files, beside the certificate of whoever needs them: a node
// the secret key, everybody else the public one.
const (
	SecretFile = "ledger.key"
	PublicFile = "ledger.pub"
)

// Key is a secret key of a ledger.
type Key struct {
	Public string // its public half, as text
	signer note.Signer
}

// Origin is the name of the ledger that it is a key of.
func (k Key) Origin() string { return k.signer.Name() }

// KeyError is a key file that cannot be used, in one line that shows nothing of the key.
type KeyError struct {
	Path string
	Err  error
}

func (e *KeyError) Error() string { return e.Path + ": " + e.Err.Error() }
func (e *KeyError) Unwrap() error { return e.Err }

// ReadKeys reads a file of secret keys, one a line; empty lines and those that begin with
// # are passed over. Nobody but the file's owner may read it. Fails with a *KeyError.
func ReadKeys(path string) ([]Key, error) {
	keys, err := readKeys(path)
	if err == nil && len(keys) == 0 {
		err = errors.New("the file holds no key")
	}
	if err != nil {
		if p := (*fs.PathError)(nil); errors.As(err, &p) {
			err = p.Err
		}
		return nil, &KeyError{path, err}
	}
	return keys, nil
}

func readKeys(path string) (keys []Key, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("others than its owner may read it: chmod 600 (its mode is %v)", info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		signer, public, err := ledger.ParseSecret(line)
		if err != nil {
			return nil, fmt.Errorf("line %d is no secret key of a ledger", number)
		}
		keys = append(keys, Key{public, signer})
	}
	return keys, lines.Err()
}
