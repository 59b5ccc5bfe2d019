package cli

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/undertone-fl/undertone/commandline"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server/authority"
	"github.com/undertone-fl/undertone/server/notary"
)

const defaultAuthority = "undertone-ca"

func caCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Make a certificate authority, and issue certificates",
		Long: `Ca is a certificate authority for development and for clusters that have no
other: a key in a directory. Who has another authority needs none of this: a
certificate names its bearer in the URI undertone://ROLE/NAME, or by its subject,
organizational unit "undertone ROLE" and common name NAME; the roles are client,
node, operator and auditor.`,
		Example: `  undertone ca init
  undertone ca issue node n1 --host n1.example.org,10.0.0.1
  undertone ca issue operator admin
  undertone ca issue client --count 5000 --prefix user-
  undertone ca show undertone-ca/node/n1`,
	}
	cmd.AddCommand(caInitCommand(), caIssueCommand(), caShowCommand())
	return cmd
}

func addAuthorityFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "dir", defaultAuthority, "`directory` of the authority")
	complete(cmd, "dir", directories)
}

func caInitCommand() *cobra.Command {
	var dir, cluster string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make an authority",
		Long: `Init makes an authority that lasts ten years, in a directory that may not hold
anything yet: ca.crt, which everybody is given, and ca.key, which is nobody's but
the authority's. Beside it is the key pair of the cluster's ledger: ledger.key, which
undertone ca issue gives to nodes, and ledger.pub, which it gives to everybody.`,
		Args:              named(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			public, pair, err := newLedgerKey(cluster)
			if err != nil {
				return flagf("cluster", "%w", err)
			}
			a, err := authority.Create(dir, pair...)
			if errors.Is(err, authority.ErrExists) {
				return flagf("dir", "%s: there is something already, and nothing is overwritten", dir)
			}
			if err != nil {
				return flagf("dir", "%w", pathProblem(err))
			}
			if asJSON {
				c := describe(a.Certificate(), dir)
				c.LedgerKey = public
				return printJSON(cmd.OutOrStdout(), c)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), `authority in %s, until %s; keep %s to yourself
ledger %s: %s is for nodes alone, %s for all who verify it
`, dir, until(a.Certificate().NotAfter), filepath.Join(dir, authority.KeyFile),
				cluster, filepath.Join(dir, notary.SecretFile), filepath.Join(dir, notary.PublicFile))
			return err
		},
	}
	addAuthorityFlag(cmd, &dir)
	cmd.Flags().StringVar(&cluster, "cluster", defaultCluster, "`name` of the cluster, which its ledger bears")
	complete(cmd, "cluster", cobra.NoFileCompletions)
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func addJSONFlag(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print JSON")
}

// issue is the flags of undertone ca issue.
type issue struct {
	dir, out string
	cluster  string
	hosts    []string
	count    int
	prefix   string
	lifetime time.Duration
	renew    bool
	json     bool
}

// atATime bounds the certificates of one command.
const atATime = 1_000_000

func caIssueCommand() *cobra.Command {
	var f issue
	cmd := &cobra.Command{
		Use:   "issue client|node|operator|auditor NAME...",
		Short: "Issue certificates",
		Long: `Issue makes a key and a certificate for each NAME, or for --count names, and puts
them into a directory each, ROLE/NAME below --out: tls.crt, tls.key and ca.crt,
as --identity wants them, and the ledger's key: the public one as ledger.pub and, for
nodes, the secret one as ledger.key. Nothing is overwritten; --renew issues a
certificate for the key that is there, which a running program takes up by itself.
An authority of a release before ledgers makes the ledger's key pair with the first
certificate that it issues; --renew gives it to those that are there.`,
		Example: `  undertone ca issue operator admin
  undertone ca issue node n1 --host n1.example.org,10.0.0.1
  undertone ca issue client --count 5000 --prefix user-
  undertone ca issue node n1 --renew`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("ROLE is missing: %s", cmd.UseLine())
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []string{
				cobra.CompletionWithDesc("client", "takes part in rounds, as itself"),
				cobra.CompletionWithDesc("node", "is a server"),
				cobra.CompletionWithDesc("operator", "opens jobs, runs the cluster"),
				cobra.CompletionWithDesc("auditor", "reads"),
			}, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0], args[1:]) },
	}
	flags := cmd.Flags()
	addAuthorityFlag(cmd, &f.dir)
	flags.StringVar(&f.out, "out", "", "`directory` for the certificates (default: the authority's)")
	flags.StringVar(&f.cluster, "cluster", defaultCluster, "`name` of the cluster, for the key of its ledger if the authority has none yet")
	flags.StringSliceVar(&f.hosts, "host", nil, "`names` and addresses by which a node is reached (default: its NAME, localhost, 127.0.0.1 and ::1)")
	flags.IntVar(&f.count, "count", 0, "`number` of certificates, for PREFIX1, PREFIX2, ...")
	flags.StringVar(&f.prefix, "prefix", "", "`text` before the numbers of --count")
	flags.DurationVar(&f.lifetime, "lifetime", authority.LeafLifetime, "`time` for which the certificates are valid")
	flags.BoolVar(&f.renew, "renew", false, "issue new certificates for the keys that are there")
	addJSONFlag(cmd, &f.json)
	complete(cmd, "out", directories)
	for _, flag := range []string{"cluster", "host", "count", "prefix", "lifetime"} {
		complete(cmd, flag, cobra.NoFileCompletions)
	}
	return cmd
}

func (f *issue) run(cmd *cobra.Command, role string, names []string) error {
	ids, err := f.identities(cmd, role, names)
	if err != nil {
		return err
	}
	a, err := authority.Open(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return flagf("dir", "%s holds no authority (undertone ca init makes one)", f.dir)
	}
	if err != nil {
		return err
	}
	out := f.out
	if out == "" {
		out = f.dir
	}
	if !f.renew { // all or none of them, as far as that can be known before
		for _, id := range ids {
			if place := authority.Place(out, id); exists(identity.In(place).Key) {
				return usagef("%s: there is a key already, which is never overwritten (--renew issues a certificate for it)", place)
			}
		}
	}
	beside, err := ledgerFiles(cmd.ErrOrStderr(), f.dir, f.cluster, identity.Role(role))
	if err != nil {
		return err
	}

	described := make([]certificate, len(ids))
	group, ctx := errgroup.WithContext(cmd.Context())
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, id := range ids {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			place := authority.Place(out, id)
			c, err := f.one(a, id, place, beside)
			if err != nil {
				return err
			}
			described[i] = describe(c, place)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := cmd.Context().Err(); err != nil {
		return errors.New("interrupted")
	}

	w := cmd.OutOrStdout()
	if f.json {
		return printJSON(w, described)
	}
	if n := len(described); n > 20 {
		first, last := described[0], described[n-1]
		fmt.Fprintf(w, "%d certificates, %s to %s, in %s, until %s\n", n, first.Identity, last.Identity,
			filepath.Join(out, role), until(first.NotAfter))
		return nil
	}
	t := table{header: []string{"IDENTITY", "DIRECTORY", "VALID UNTIL"}}
	for _, c := range described {
		t.add(c.Identity, c.Path, until(c.NotAfter))
	}
	return t.print(w)
}

func (f *issue) one(a *authority.Authority, id identity.Identity, place string, beside []authority.File) (*x509.Certificate, error) {
	request := authority.Request{Identity: id, Hosts: f.hosts, Lifetime: f.lifetime}
	if f.renew {
		i, err := a.Renew(place, request)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, flagf("renew", "%s holds no key and certificate", place)
		}
		if err != nil {
			return nil, err
		}
		return i.Certificate, addMissing(place, beside)
	}
	if id.Role == identity.Node && len(request.Hosts) == 0 {
		request.Hosts = []string{id.Name, "localhost", "127.0.0.1", "::1"}
	}
	i, err := a.Issue(request)
	if err != nil {
		return nil, err
	}
	_, err = i.Write(place, beside...)
	if errors.Is(err, authority.ErrExists) {
		return nil, usagef("%s: there is something already, and nothing is overwritten", place)
	}
	return i.Certificate, pathProblem(err)
}

// identities checks the flags, and returns whose certificates are wanted.
func (f *issue) identities(cmd *cobra.Command, role string, names []string) ([]identity.Identity, error) {
	var roles []string
	for _, r := range identity.Roles() {
		roles = append(roles, string(r))
	}
	counted := cmd.Flags().Changed("count")
	switch {
	case !slices.Contains(roles, role):
		hint := "one of client, node, operator, auditor"
		if near := commandline.Nearest(role, roles); near != "" {
			hint = "did you mean " + near + "?"
		}
		return nil, usagef("%q is no role (%s)", role, hint)
	case counted && len(names) > 0:
		return nil, flagf("count", "makes names by itself; %s is one too many", names[0])
	case counted && (f.count < 1 || f.count > atATime):
		return nil, flagf("count", "%d is not from 1 to %d", f.count, atATime)
	case !counted && f.prefix != "":
		return nil, flagf("prefix", "is about --count, which is not given")
	case !counted && len(names) == 0:
		return nil, usagef("NAME is missing: %s", cmd.UseLine())
	case len(f.hosts) > 0 && role != string(identity.Node):
		return nil, flagf("host", "only a node is reached by hosts, and not %s", role)
	case f.lifetime <= 0:
		return nil, flagf("lifetime", "%v is not positive", f.lifetime)
	}
	if counted {
		for i := range f.count {
			names = append(names, fmt.Sprintf("%s%d", f.prefix, i+1))
		}
	}
	ids := make([]identity.Identity, len(names))
	seen := make(map[string]bool, len(names))
	for i, name := range names {
		ids[i] = identity.Identity{Role: identity.Role(role), Name: name}
		if err := ids[i].Check(); err != nil {
			return nil, usagef("NAME: %w", err)
		}
		if seen[name] {
			return nil, usagef("NAME: %q stands twice", name)
		}
		seen[name] = true
	}
	for _, h := range f.hosts {
		if err := authority.CheckHost(h); err != nil {
			return nil, flagf("host", "%w", err)
		}
	}
	return ids, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// certificate is one to look at, and its form in JSON.
type certificate struct {
	Identity    string    `json:"identity,omitempty"`
	Authority   bool      `json:"authority,omitempty"`
	Path        string    `json:"path"`
	Subject     string    `json:"subject"`
	Issuer      string    `json:"issuer"`
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	Hosts       []string  `json:"hosts,omitempty"`
	Fingerprint string    `json:"sha256"`
	LedgerKey   string    `json:"ledger_key,omitempty"` // public, of a new authority's cluster
}

func describe(c *x509.Certificate, path string) certificate {
	sum := sha256.Sum256(c.Raw)
	d := certificate{
		Path: path, Authority: c.IsCA, Subject: c.Subject.String(), Issuer: c.Issuer.String(),
		NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		Hosts: append([]string(nil), c.DNSNames...), Fingerprint: hex.EncodeToString(sum[:]),
	}
	for _, ip := range c.IPAddresses {
		d.Hosts = append(d.Hosts, ip.String())
	}
	if id, err := identity.FromCertificate(c); err == nil {
		d.Identity = id.String()
	}
	return d
}

func caShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show PATH...",
		Short: "Show whose certificates are where, and until when",
		Long: `Show reads certificates: of a PEM file, of a directory that holds tls.crt, or of
an authority's directory.`,
		Example: `  undertone ca show undertone-ca
  undertone ca show undertone-ca/client/* --json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("PATH is missing: %s", cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var list []certificate
			for _, path := range args {
				found, err := readCertificates(path)
				if err != nil {
					return err
				}
				list = append(list, found...)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			return showCertificates(cmd, list)
		},
	}
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func readCertificates(path string) ([]certificate, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		dir := path
		if path = identity.In(dir).Certificate; !exists(path) {
			path = filepath.Join(dir, authority.CertificateFile)
		}
		if !exists(path) {
			return nil, usagef("%s: there is neither tls.crt nor ca.crt", dir)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, &commandline.UsageError{Err: pathProblem(err)}
	}
	var list []certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, usagef("%s: %w", path, err)
		}
		list = append(list, describe(c, path))
	}
	if len(list) == 0 {
		return nil, usagef("%s: the file holds no certificate in PEM", path)
	}
	return list, nil
}

func showCertificates(cmd *cobra.Command, list []certificate) error {
	w := cmd.OutOrStdout()
	for i, c := range list {
		if i > 0 {
			fmt.Fprintln(w)
		}
		var f facts
		switch {
		case c.Identity != "":
			f.add("identity", "%s", c.Identity)
		case c.Authority:
			f.add("identity", "none: an authority")
		default:
			f.add("identity", "none: neither undertone://ROLE/NAME nor organizational unit \"undertone ROLE\"")
		}
		f.add("file", "%s", c.Path)
		f.add("subject", "%s", c.Subject)
		f.add("issuer", "%s", c.Issuer)
		f.add("valid", "%s until %s", c.NotBefore.Format("2006-01-02"), until(c.NotAfter))
		if len(c.Hosts) > 0 {
			f.add("hosts", "%s", strings.Join(c.Hosts, ", "))
		}
		f.add("sha256", "%s", c.Fingerprint)
		if err := f.print(w); err != nil {
			return err
		}
	}
	return nil
}
