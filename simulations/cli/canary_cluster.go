package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server/notary"
	"github.com/undertone-fl/undertone/simulations"
	"github.com/undertone-fl/undertone/simulations/canary"
)

// cluster is what the flags say of one, nil without --server.
func (f *canaryFlags) cluster(cmd *cobra.Command) (*canary.Cluster, error) {
	mistake := func(flag, format string, args ...any) (*canary.Cluster, error) {
		return nil, &simulations.FieldError{Flag: flag, Problem: fmt.Sprintf(format, args...)}
	}
	changed := cmd.Flags().Changed
	if !changed("server") {
		for _, flag := range []string{"clients", "operator", "job", "ledger-key", "patience"} {
			if changed(flag) {
				return mistake(flag, "is of a cluster, and --server names none")
			}
		}
		return nil, nil
	}
	c := &f.there
	for _, a := range c.Servers {
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" {
			return mistake("server", "%q is not HOST:PORT", a)
		}
	}
	switch {
	case len(c.Servers) == 0:
		return mistake("server", "is empty")
	case !changed("clients"):
		return mistake("clients", "is missing: a directory of clients' certificates (undertone ca issue client --count %d --prefix canary- --out canaries)", f.terms.NMin)
	case changed("operator") == changed("job"):
		return mistake("operator", "creates test jobs, and --job names some that there are: one of the two is needed")
	case c.Patience <= 0:
		return mistake("patience", "%v is not positive", c.Patience)
	}
	for _, flag := range append([]string{"spec", "trials"}, claim...) {
		if changed("job") && changed(flag) {
			return mistake(flag, "is fixed by the jobs that --job names")
		}
	}
	var err error
	if changed("operator") {
		if c.Operator, err = bearer("operator", f.operator, identity.Operator); err != nil {
			return nil, err
		}
	}
	if err := f.certificates(c); err != nil {
		return nil, err
	}
	c.LedgerKey, err = f.ledgerKey()
	return c, err
}

// certificates are those of the directories in --clients, in the order of their names.
func (f *canaryFlags) certificates(c *canary.Cluster) error {
	entries, err := os.ReadDir(f.clients)
	if err != nil {
		return &simulations.FieldError{Flag: "clients", Problem: pathProblem(err)}
	}
	for _, e := range entries {
		dir := filepath.Join(f.clients, e.Name())
		if _, err := os.Stat(identity.In(dir).Certificate); err != nil {
			continue
		}
		b, err := bearer("clients", dir, identity.Client)
		if err != nil {
			return err
		}
		c.Clients = append(c.Clients, b)
	}
	if len(c.Clients) == 0 {
		return &simulations.FieldError{Flag: "clients", Problem: f.clients + " holds no directories of tls.crt, tls.key and ca.crt"}
	}
	return nil
}

func bearer(flag, dir string, role identity.Role) (*identity.Bearer, error) {
	b, err := identity.Load(identity.In(dir))
	if err == nil && b.Identity().Role != role {
		err = fmt.Errorf("%s: the certificate is that of %v, and %s's is needed", dir, b.Identity(), role)
	}
	if err != nil {
		return nil, &simulations.FieldError{Flag: flag, Problem: pathProblem(err)}
	}
	return b, nil
}

// ledgerKey is that of --ledger-key, or beside a certificate; empty where there is none.
func (f *canaryFlags) ledgerKey() (string, error) {
	given := f.there.LedgerKey
	if _, err := ledger.ParseKey(given); err == nil {
		return strings.TrimSpace(given), nil
	}
	paths := []string{given}
	if given == "" {
		beside, _ := filepath.Glob(filepath.Join(f.clients, "*", notary.PublicFile))
		paths = append([]string{filepath.Join(f.operator, notary.PublicFile)}, beside...)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if given == "" && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			_, err = ledger.ParseKey(string(text))
		}
		if err != nil {
			return "", &simulations.FieldError{Flag: "ledger-key", Problem: fmt.Sprintf("%s: no public key of a ledger, such as undertone audit key publish prints", path)}
		}
		return strings.TrimSpace(string(text)), nil
	}
	return "", nil
}
