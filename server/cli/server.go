package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/undertone-fl/undertone/commandline"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server"
	"github.com/undertone-fl/undertone/server/notary"
)

// node is the flags of undertone server.
type node struct {
	config   server.Config
	identity string

	logLevel, logFormat string

	file  string
	dev   bool
	check bool
}

// Log formats and levels.
var (
	logFormats = []string{"text", "json"}
	logLevels  = []string{"debug", "info", "warn", "error"}
)

func serverCommand() *cobra.Command {
	var n node
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run a node of a cluster, or one of everything with --dev",
		Long: `Server runs one node. Every flag below, but for the first three, can also be a line
of the --config file, with underscores for dashes, or in the environment,
UNDERTONE_SERVER_ and its name: a flag counts more than the environment, and that
more than the file. SIGTERM hands leadership on and ends it.

A cluster of three is three nodes with --bootstrap-expect 3 and each other's
addresses as --peers. A node without --bootstrap-expect joins the cluster that its
peers belong to.`,
		Example: `  undertone server --dev
  undertone server --config /etc/undertone/node.yaml
  undertone server --identity certs/node/n1 --data-dir n1 --advertise n1:7301 --api-host n1:7300 \
      --bootstrap-expect 3 --peers n2:7301,n3:7301

  # node.yaml
  identity: /etc/undertone/n1
  data_dir: /var/lib/undertone
  advertise: n1.example.org:7301
  api_host: n1.example.org:7300
  bootstrap_expect: 3
  peers: [n2.example.org:7301, n3.example.org:7301]`,
		Args:              named(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return n.run(cmd) },
	}

	running := commandline.Part("How to run")
	running.StringVar(&n.file, "config", "", "YAML or JSON `file` of settings")
	running.BoolVar(&n.dev, "dev", false, "one node with everything made for it, in --data-dir (default: "+devDir+")")
	running.BoolVar(&n.check, "check", false, "show the settings and where they are from, and run nothing")

	who := commandline.Part("Identity")
	who.StringVar(&n.identity, "identity", "", "`directory` of tls.crt, tls.key and ca.crt, a node's")
	who.StringVar(&n.config.Identity.Certificate, "cert", "", "certificate `file`, instead of --identity's")
	who.StringVar(&n.config.Identity.Key, "key", "", "key `file`, instead of --identity's")
	who.StringVar(&n.config.Identity.Authority, "ca", "", "`file` of the authority of clients, operators and nodes, instead of --identity's")
	who.StringSliceVar(&n.config.LedgerKeys, "ledger-keys", nil, "`files` of secret keys of the ledger, the same on every node (default: ledger.key beside the certificate)")
	who.StringVar(&n.config.Name, "name", "", "`name` of the node (default: the certificate's)")
	who.StringVar(&n.config.Cluster, "cluster", defaultCluster, "`name` of the cluster; nodes of another are refused")
	who.StringVar(&n.config.Dir, "data-dir", "", "`directory` of the log, snapshots and models")

	where := commandline.Part("Addresses")
	where.StringVar(&n.config.API, "api", ":7300", "listen `address` for clients, operators and auditors")
	where.StringVar(&n.config.Node, "node", ":7301", "listen `address` for other nodes")
	where.StringVar(&n.config.HTTP, "http", "127.0.0.1:7302", "listen `address` of /livez, /readyz and /metrics, without TLS; off is none")
	where.StringVar(&n.config.Pages, "pages", "127.0.0.1:7303", "listen `address` of the web pages for operators and auditors, over TLS; off is none")
	where.StringVar(&n.config.Advertise, "advertise", "", "`address` HOST:PORT where other nodes reach --node")
	where.StringVar(&n.config.APIHost, "api-host", "", "`address` HOST:PORT where clients reach --api")

	where.StringVar(&n.config.PagesHost, "pages-host", "", "`address` HOST:PORT where browsers reach --pages")

	cluster := commandline.Part("Cluster")
	cluster.IntVar(&n.config.Expect, "bootstrap-expect", 0, "form a new cluster of so many nodes, a `number`; 0 joins one")
	cluster.StringSliceVar(&n.config.Peers, "peers", nil, "`addresses` of nodes to form a cluster with, or to join")
	cluster.BoolVar(&n.config.Learner, "learner", false, "join without a vote (undertone node promote gives one)")
	cluster.DurationVar(&n.config.Heartbeat, "heartbeat", 150*time.Millisecond, "`time` without a sign of life of the leader after which another is elected")

	limits := commandline.Part("Limits")
	limits.Float64Var(&n.config.ClientRate, "client-rate", 100, "most requests a second of one client, a `number`")
	limits.IntVar(&n.config.ClientBurst, "client-burst", 200, "most requests of one client at once, a `number`")
	limits.Int64Var(&n.config.Inflight, "inflight-bytes", 256<<20, "most `bytes` of contributions that wait to be committed")

	watching := commandline.Part("Watching it")
	watching.StringVar(&n.logLevel, "log-level", "info", "least `level` that is logged: "+list(logLevels))
	watching.StringVar(&n.logFormat, "log-format", "text", "`format` of the log, on stderr: "+list(logFormats))
	watching.StringVar(&n.config.Traces, "traces", "", "OTLP gRPC `endpoint` for OpenTelemetry traces (default: nowhere)")

	commandline.AddParts(cmd, running, who, where, cluster, limits, watching)
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		switch f.Name {
		case "config":
			complete(cmd, f.Name, files("yaml", "yml", "json"))
		case "identity", "data-dir":
			complete(cmd, f.Name, directories)
		case "cert", "key", "ca", "ledger-keys":
			complete(cmd, f.Name, files())
		case "log-level":
			complete(cmd, f.Name, cobra.FixedCompletions(logLevels, cobra.ShellCompDirectiveNoFileComp))
		case "log-format":
			complete(cmd, f.Name, cobra.FixedCompletions(logFormats, cobra.ShellCompDirectiveNoFileComp))
		default:
			complete(cmd, f.Name, cobra.NoFileCompletions)
		}
	})
	return cmd
}

func (n *node) run(cmd *cobra.Command) error {
	settings, err := readSettings(cmd.Flags(), n.file)
	if err != nil {
		return err
	}
	if err := mustBeOneOf("log-level", n.logLevel, logLevels); err != nil {
		return settings.blame("log-level", err)
	}
	if err := mustBeOneOf("log-format", n.logFormat, logFormats); err != nil {
		return settings.blame("log-format", err)
	}
	// To server.Config a zero is its default; to a user it is a mistake.
	for _, limit := range []struct {
		flag string
		zero bool
	}{
		{"heartbeat", n.config.Heartbeat == 0}, {"client-rate", n.config.ClientRate == 0},
		{"client-burst", n.config.ClientBurst == 0}, {"inflight-bytes", n.config.Inflight == 0},
	} {
		if limit.zero {
			return usagef("%s: 0 is too little", settings.place(limit.flag))
		}
	}
	var dev *development
	if n.dev {
		if dev, err = n.develop(settings); err != nil {
			return err
		}
	} else {
		n.config.Identity = overriding(n.config.Identity, n.identity)
		dir := n.identity
		if dir == "" {
			dir = filepath.Dir(n.config.Identity.Certificate)
		}
		if key := filepath.Join(dir, notary.SecretFile); len(n.config.LedgerKeys) == 0 && exists(key) {
			n.config.LedgerKeys = []string{key}
		}
		switch {
		case n.config.Identity == (identity.Files{}):
			return flagf("identity", "is missing: a directory of tls.crt, tls.key and ca.crt (undertone ca issue node NAME makes one; undertone server --dev needs none)")
		case n.config.Dir == "":
			return flagf("data-dir", "is missing")
		}
	}
	if n.check {
		return n.show(cmd, settings)
	}
	n.config.Version, _, _ = strings.Cut(strings.TrimPrefix(cmd.Root().Version, "undertone "), ",")
	if n.config.Logger, err = n.logger(cmd); err != nil {
		return err
	}
	s, err := server.New(n.config)
	if err != nil {
		return n.explain(settings, err)
	}
	if dev != nil {
		if err := dev.print(cmd.OutOrStdout(), s); err != nil {
			return err
		}
	}
	return s.Run(cmd.Context())
}

func (n *node) logger(cmd *cobra.Command) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(n.logLevel)); err != nil {
		return nil, flagf("log-level", "%w", err)
	}
	options := &slog.HandlerOptions{Level: level}
	if n.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), options)), nil
	}
	return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), options)), nil
}

// show checks what can be checked without a data directory and a port, and
// prints the settings.
func (n *node) show(cmd *cobra.Command, s *settings) error {
	b, err := identity.Load(n.config.Identity)
	if err != nil {
		return err
	}
	if id := b.Identity(); id.Role != identity.Node {
		return &identity.FileError{Path: n.config.Identity.Certificate, Err: fmt.Errorf("the certificate is that of %v, and not a node's", id)}
	}
	keys, err := notary.LoadKeys(n.config.LedgerKeys)
	if err != nil {
		return usagef("%s: %w", s.place("ledger-keys"), err)
	}
	t := table{header: []string{"SETTING", "VALUE", "FROM"}}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if settable(f) {
			t.add(key(f), text(f), s.source(f.Name))
		}
	})
	if err := t.print(cmd.OutOrStdout()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "\n%v, until %s; ledger %s\n", b.Identity(), until(b.Certificate().NotAfter), keys.First().Origin)
	return err
}

// explain names the flag, the variable or the line of the file that a node cannot
// start with. What is no mistake in the configuration is about the data directory.
func (n *node) explain(s *settings, err error) error {
	if mistake := (*server.ConfigError)(nil); errors.As(err, &mistake) {
		return usagef("%s: %s", s.place(strings.ReplaceAll(mistake.Field, "_", "-")), mistake.Problem)
	}
	if errors.Is(err, syscall.ENOSPC) { // whichever of its files it was
		err = &fs.PathError{Path: n.config.Dir, Err: syscall.ENOSPC}
	}
	return usagef("%s: %w", s.place("data-dir"), pathProblem(err))
}
