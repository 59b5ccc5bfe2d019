package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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

// ledgerFiles are the key files that an authority hands out with a certificate, as far
// as it has them: to nodes the secret key, and to everybody the public one.
func ledgerFiles(dir string, role identity.Role) (list []authority.File, err error) {
	for _, f := range []authority.File{{Name: notary.SecretFile, Mode: 0o600}, {Name: notary.PublicFile, Mode: 0o644}} {
		if f.Name == notary.SecretFile && role != identity.Node {
			continue
		}
		f.Text, err = os.ReadFile(filepath.Join(dir, f.Name))
		switch {
		case err == nil:
			list = append(list, f)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, pathProblem(err)
		}
	}
	return list, nil
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
