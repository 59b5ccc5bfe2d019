package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server/authority"
	"github.com/undertone-fl/undertone/server/notary"
)

// defaultCluster is the name of a cluster, and of its ledger, unless it is given one.
const defaultCluster = "undertone"

// newLedgerKey makes the key pair of a ledger, as files.
func newLedgerKey(origin string) (public string, pair []authority.File, err error) {
	secret, public, err := ledger.NewKey(origin)
	if err != nil {
		return "", nil, fmt.Errorf("%q is no name of a ledger: want characters other than spaces and +", origin)
	}
	return public, []authority.File{
		{Name: notary.SecretFile, Text: []byte(secret + "\n"), Mode: 0o600},
		{Name: notary.PublicFile, Text: []byte(public + "\n"), Mode: 0o644},
	}, nil
}

// ledgerFiles are the key files that an authority hands out with a certificate: to nodes
// the secret keys, and to everybody the public half of the last of them. An authority
// that has none, of a release before ledgers, makes a pair, and says so on w.
func ledgerFiles(w io.Writer, dir, cluster string, role identity.Role) (list []authority.File, err error) {
	secret := authority.File{Name: notary.SecretFile, Mode: 0o600}
	public := authority.File{Name: notary.PublicFile, Mode: 0o644}
	for _, f := range []*authority.File{&secret, &public} {
		f.Text, err = os.ReadFile(filepath.Join(dir, f.Name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, pathProblem(err)
		}
	}
	secretPath, publicPath := filepath.Join(dir, secret.Name), filepath.Join(dir, public.Name)
	switch {
	case secret.Text == nil && public.Text == nil:
		key, pair, err := newLedgerKey(cluster)
		if err != nil {
			return nil, flagf("cluster", "%w", err)
		}
		secret, public = pair[0], pair[1]
		for _, f := range pair {
			if err := writeAtomically(filepath.Join(dir, f.Name), f.Text, f.Mode); err != nil {
				return nil, err
			}
		}
		fmt.Fprintf(w, "%s had no key of a ledger: made %s, the same for every node (undertone ca issue node NAME --renew gives it to one that is there), public half %s\n", dir, secretPath, key)
	case secret.Text == nil:
		if role == identity.Node {
			fmt.Fprintf(w, "%s is not there: put the ledger's secret key beside each node's certificate, as %s\n", secretPath, secret.Name)
		}
		return []authority.File{public}, nil
	default:
		last, err := lastKey(secret.Text)
		if err != nil {
			return nil, usagef("%s: %w", secretPath, err)
		}
		if public.Text == nil {
			public.Text = []byte(last + "\n")
		} else if strings.TrimSpace(string(public.Text)) != last {
			return nil, usagef("%s is not the last key of %s: once that signs, replace it (undertone audit key publish %s prints it last)", publicPath, secretPath, secretPath)
		}
	}
	if role == identity.Node {
		list = append(list, secret)
	}
	return append(list, public), nil
}

// lastKey is the public half of the last key in the text of a file of secret ones.
func lastKey(text []byte) (public string, err error) {
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if _, public, err = ledger.ParseSecret(line); err != nil {
			return "", errors.New("it holds a line that is no secret key of a ledger")
		}
	}
	if public == "" {
		return "", errors.New("the file holds no key")
	}
	return public, nil
}

// addMissing adds files to a directory that has others.
func addMissing(dir string, list []authority.File) error {
	for _, f := range list {
		path := filepath.Join(dir, f.Name)
		if exists(path) {
			continue
		}
		if err := writeAtomically(path, f.Text, f.Mode); err != nil {
			return err
		}
	}
	return nil
}
