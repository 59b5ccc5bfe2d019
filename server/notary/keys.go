package notary

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

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
	Origin string // the ledger's name
	Public string // its public half, as text
	signer note.Signer
}

// ErrNoFile says that no key file was named.
var ErrNoFile = errors.New("missing: the file of the ledger's secret key, the same on every node (undertone ca issue node NAME --renew gives it along, undertone audit key generate makes one)")

// KeyError is a key file that cannot be used, or has not the key that is wanted, in one
// line that shows nothing of secret keys.
type KeyError struct {
	Path string
	Err  error
}

func (e *KeyError) Error() string { return e.Path + ": " + e.Err.Error() }
func (e *KeyError) Unwrap() error { return e.Err }

// Keys are the secret keys in a number of files, all of one ledger. A file may be
// exchanged, or added to, at any time: it is read again when a key is asked for that is
// none of those known.
type Keys struct {
	files []string

	mu    sync.Mutex
	list  []Key
	asked time.Time // when the files were read
	wrong error     // with them, then
}

// readPause is how often checkpoints that cannot be signed have the files read again.
const readPause = time.Second

// LoadKeys reads files of secret keys, in each one key a line; empty lines and those that
// begin with # are passed over. Nobody but its owner may read such a file. Fails with a
// *KeyError or, without files, ErrNoFile.
func LoadKeys(files []string) (*Keys, error) {
	if len(files) == 0 {
		return nil, ErrNoFile
	}
	k := &Keys{files: files}
	return k, k.load()
}

// load reads the files. If one of them is wrong, what was known stays known.
func (k *Keys) load() error {
	k.asked = time.Now()
	k.wrong = k.read()
	return k.wrong
}

func (k *Keys) read() error {
	var list []Key
	for _, path := range k.files {
		keys, err := readKeys(path)
		if err == nil && len(keys) == 0 {
			err = errors.New("the file holds no key")
		}
		list = append(list, keys...)
		for _, key := range keys {
			if err == nil && key.Origin != list[0].Origin {
				err = fmt.Errorf("it has a key of the ledger %s, and others are of %s", key.Origin, list[0].Origin)
			}
		}
		if p := (*fs.PathError)(nil); errors.As(err, &p) {
			err = p.Err
		}
		if err != nil {
			return &KeyError{path, err}
		}
	}
	k.list = list
	return nil
}

// First is the first key: what a ledger begins with, where there is none.
func (k *Keys) First() Key {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.list[0]
}

// find returns a key by its public half. If it is not known, the files are read again,
// unless they were within pause. Fails with ErrNoKey, and the *KeyError that says why.
func (k *Keys) find(public string, pause time.Duration) (Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for again := true; ; again = false {
		for _, key := range k.list {
			if key.Public == public {
				return key, nil
			}
		}
		if !again || time.Since(k.asked) < pause {
			return Key{}, fmt.Errorf("%w: %w", ErrNoKey, k.lacks(public))
		}
		_ = k.load() // which remembers what is wrong
	}
}

// lacks says why a key is not known.
func (k *Keys) lacks(public string) error {
	if k.wrong != nil {
		return k.wrong
	}
	where, wanted := strings.Join(k.files, ", "), public
	if i := strings.LastIndex(public, "+"); i > 0 {
		wanted = public[:i] // its name and hash tell keys apart
	}
	if key, err := ledger.ParseKey(public); err == nil && key.Name() != k.list[0].Origin {
		return &KeyError{where, fmt.Errorf("it has keys of the ledger %s only, and not %s", k.list[0].Origin, wanted)}
	}
	return &KeyError{where, fmt.Errorf("it has not the key %s", wanted)}
}

func readKeys(path string) (keys []Key, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, errors.New("it is a directory, and not a file of keys")
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, fmt.Errorf("others than its owner may read the key: chmod 600 (its mode is %v)", mode)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		signer, public, err := ledger.ParseSecret(line)
		if err != nil {
			return nil, fmt.Errorf("line %d is no secret key of a ledger", number)
		}
		keys = append(keys, Key{signer.Name(), public, signer})
	}
	return keys, nil
}
