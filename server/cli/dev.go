package cli

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server"
	"github.com/undertone-fl/undertone/server/authority"
	"github.com/undertone-fl/undertone/server/notary"
)

// devDir is where undertone server --dev keeps everything.
const devDir = "undertone-dev"

// development is a directory with an authority, an identity of each role, and
// the data of one node. All of it is kept between runs.
type development struct{ dir string }

// Who there is in a development directory.
var (
	devNode     = identity.Identity{Role: identity.Node, Name: "dev"}
	devOperator = identity.Identity{Role: identity.Operator, Name: "admin"}
	devAuditor  = identity.Identity{Role: identity.Auditor, Name: "auditor"}
	devClient   = identity.Identity{Role: identity.Client, Name: "alice"}
)

// develop makes what is not there yet, and the configuration of its one node.
func (n *node) develop(s *settings) (*development, error) {
	for _, flag := range []string{"config", "identity", "cert", "key", "ca", "ledger-keys", "name", "bootstrap-expect", "peers", "learner", "advertise"} {
		if s.given(flag) {
			return nil, usagef("%s: --dev makes that by itself", s.place(flag))
		}
	}
	d := &development{devDir}
	if n.config.Dir != "" {
		d.dir = n.config.Dir
	}
	if err := d.make(); err != nil {
		return nil, err
	}
	// No other machine is to reach it, unless it is told to listen to them.
	if !s.given("api") {
		n.config.API = "127.0.0.1:7300"
	}
	if !s.given("node") {
		n.config.Node = "127.0.0.1:7301"
	}
	if !s.given("pages") {
		n.config.Pages = "127.0.0.1:7303"
	}
	// There are no other nodes; so the address that it was founded with may stay,
	// wherever it listens.
	n.config.Advertise = "127.0.0.1:7301"
	n.config.Dir = filepath.Join(d.dir, "data")
	n.config.Identity = identity.In(d.place(devNode))
	n.config.LedgerKeys = []string{filepath.Join(d.place(devNode), notary.SecretFile)}
	n.config.Expect = 1
	return d, nil
}

func (d *development) authority() string                 { return filepath.Join(d.dir, "ca") }
func (d *development) ledgerKey() string                 { return filepath.Join(d.authority(), notary.SecretFile) }
func (d *development) place(id identity.Identity) string { return authority.Place(d.dir, id) }

// make makes the authority and the certificates, or renews those that end
// within a month.
func (d *development) make() error {
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return flagf("data-dir", "%w", pathProblem(err))
	}
	for path, text := range map[string][]byte{
		d.samples():                        samples,
		filepath.Join(d.dir, ".gitignore"): []byte("*\n"), // keys are not for a repository
	} {
		if exists(path) {
			continue
		}
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return flagf("data-dir", "%w", pathProblem(err))
		}
	}
	a, err := authority.Open(d.authority())
	if errors.Is(err, fs.ErrNotExist) {
		a, err = authority.Create(d.authority())
	}
	if err != nil {
		return pathProblem(err)
	}
	if !exists(d.ledgerKey()) {
		_, pair, err := newLedgerKey(defaultCluster)
		if err == nil {
			err = addMissing(d.authority(), pair)
		}
		if err != nil {
			return err
		}
	}
	for _, id := range []identity.Identity{devNode, devOperator, devAuditor, devClient} {
		if err := d.issue(a, id); err != nil {
			return pathProblem(err)
		}
	}
	return nil
}

func (d *development) issue(a *authority.Authority, id identity.Identity) error {
	const month = 30 * 24 * time.Hour
	request := authority.Request{Identity: id}
	if id.Role == identity.Node {
		request.Hosts = []string{"localhost", "127.0.0.1", "::1"}
		if name, err := os.Hostname(); err == nil && authority.CheckHost(name) == nil {
			request.Hosts = append(request.Hosts, name)
		}
	}
	place := d.place(id)
	beside, err := ledgerFiles(os.Stderr, d.authority(), defaultCluster, id.Role)
	if err != nil {
		return err
	}
	if !exists(identity.In(place).Key) {
		i, err := a.Issue(request)
		if err == nil {
			_, err = i.Write(place, beside...)
		}
		return err
	}
	if err := addMissing(place, beside); err != nil {
		return err
	}
	b, err := identity.Load(identity.In(place))
	if errors.Is(err, identity.ErrExpired) || err == nil && time.Until(b.Certificate().NotAfter) < month {
		_, err = a.Renew(place, request)
	}
	return err
}

// print says where everything is, and what to type next. The file env sets up a
// shell for that.
func (d *development) print(w io.Writer, s *server.Server) error {
	api, _, http := s.Addresses()
	operator, err := filepath.Abs(d.place(devOperator))
	if err != nil {
		return err
	}
	env := fmt.Sprintf("export %s=%s\nexport %s=%s\n", envServer, api, envIdentity, quote(operator))
	if err := os.WriteFile(d.env(), []byte(env), 0o644); err != nil {
		return err
	}

	fmt.Fprintf(w, "One node for development, on this machine alone. Everything is in %s, and kept.\n\n", d.dir)
	var f facts
	f.add("  clients, operators", "%s", api)
	if http != "" {
		f.add("  metrics", "http://%s/metrics", http)
	}
	if pages := s.PagesAddress(); pages != "" {
		f.add("  pages", "https://%s (undertone audit link)", pages)
	}
	f.add("  authority", "%s", d.authority())
	f.add("  operator", "%s", d.place(devOperator))
	f.add("  auditor", "%s", d.place(devAuditor))
	f.add("  a client", "%s", d.place(devClient))
	if err := f.print(w); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, `
In another shell:

  . %s
  undertone job create demo --dim 8 --rank 2 --epsilon 4 --n-min 1 --deadline 1m
  undertone job open demo
  undertone-agent run --until-finished --dir %s --identity %s --data %s
  undertone job status demo
  undertone audit report

`, d.env(), filepath.Join(d.dir, "alice"), d.place(devClient), d.samples())
	return err
}

func (d *development) env() string     { return filepath.Join(d.dir, "env") }
func (d *development) samples() string { return filepath.Join(d.dir, "samples.csv") }

// samples are a client's: eight features and a response that depends on them.
//
//go:embed samples.csv
var samples []byte

// quote makes one word of a POSIX shell out of s.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
