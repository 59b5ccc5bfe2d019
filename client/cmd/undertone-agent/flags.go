package main

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client"
	"github.com/undertone-fl/undertone/commandline"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/proto/identity"
)

// flags of a command; which of them it has, it says by what it adds.
type flags struct {
	dir  string
	json bool

	servers                     []string
	identity                    string
	certificate, key, authority string
	ledgerKey                   string
	jobs                        []string
	trust                       []string
	capEpsilon, capDelta        float64
	patience                    time.Duration
	logLevel                    string

	data, format, items string
	users               string
	workers             int
	train               float64
	seed                uint64
}

// addTo adds the flags of a command to it, in the parts that its help shows.
func (f *flags) addTo(cmd *cobra.Command, parts ...func() *pflag.FlagSet) {
	var sets []*pflag.FlagSet
	for _, part := range parts {
		sets = append(sets, part())
	}
	commandline.AddParts(cmd, sets...)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.Flags().VisitAll(func(flag *pflag.Flag) {
		offer := cobra.NoFileCompletions
		switch flag.Name {
		case "dir", "identity":
			offer = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
		case "data", "users", "items", "cert", "key", "ca", "ledger-key", "checkpoint":
			offer = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
				return nil, cobra.ShellCompDirectiveDefault
			}
		case "format":
			offer = cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp)
		case "trust":
			offer = cobra.FixedCompletions(trustModes, cobra.ShellCompDirectiveNoFileComp)
		case "log-level":
			offer = cobra.FixedCompletions(logLevels, cobra.ShellCompDirectiveNoFileComp)
		}
		if err := cmd.RegisterFlagCompletionFunc(flag.Name, offer); err != nil {
			panic(err) // it has two
		}
	})
}

// Enumerations.
var (
	formats    = []string{string(client.Features), string(client.Ratings)}
	trustModes = []string{string(rounds.TrustDistributed), string(rounds.TrustCentral), string(rounds.TrustLocal)}
	logLevels  = []string{"debug", "info", "warn", "error", "off"}
)

// own are the flags that every command has.
func (f *flags) own() *pflag.FlagSet {
	fl := commandline.Part("Client")
	fl.StringVar(&f.dir, "dir", "", "`directory` of the client; with --users FILE that of all their directories")
	fl.Float64Var(&f.capEpsilon, "cap-epsilon", client.DefaultCap.Epsilon, "most `epsilon` that a client discloses, over all jobs and for ever")
	fl.Float64Var(&f.capDelta, "cap-delta", client.DefaultCap.Delta, "`delta` of --cap-epsilon")
	fl.BoolVar(&f.json, "json", false, "print JSON")
	return fl
}

// samplesOf says where a client's samples are.
func (f *flags) samplesOf() *pflag.FlagSet {
	fl := f.rows()
	fl.StringVar(&f.data, "data", "", "CSV `file` with a header, plain or gzipped, of the client's samples; read anew for every round")
	return fl
}

// rows says how samples are written.
func (f *flags) rows() *pflag.FlagSet {
	fl := commandline.Part("Samples")
	fl.StringVar(&f.format, "format", string(client.Features), "what a row is, a `word`: "+strings.Join(formats, ", "))
	fl.StringVar(&f.items, "items", "", "`file` of the job's items, one a line, for ratings")
	return fl
}

// many is what many clients in one process take.
func (f *flags) many() *pflag.FlagSet {
	fl := commandline.Part("Many clients in one process")
	fl.StringVar(&f.users, "users", "", "CSV `file` of all clients' samples, with their certificates in --identity/NAME; or a directory with one of each: its certificate, and samples.csv")
	fl.IntVar(&f.workers, "workers", 0, "clients at a time, a `number` (default: twice the processors)")
	fl.Float64Var(&f.train, "train", 0, "training samples of each client of a --users FILE, a `number`, or below 1 their fraction; the others are held out (default: all)")
	fl.Uint64Var(&f.seed, "seed", 1, "`seed` of the choice of --train")
	return fl
}

// network is what a command that calls servers has.
func (f *flags) network() *pflag.FlagSet {
	fl := commandline.Part("Server")
	fl.StringSliceVar(&f.servers, "server", nil, "`addresses` HOST:PORT of servers, as many as are known")
	fl.StringVar(&f.identity, "identity", "", "`directory` of tls.crt, tls.key and ca.crt; with --users FILE that of all their directories, named as they are")
	fl.StringVar(&f.certificate, "cert", "", "certificate `file`, instead of --identity's")
	fl.StringVar(&f.key, "key", "", "key `file`, instead of --identity's")
	fl.StringVar(&f.authority, "ca", "", "`file` of the servers' authority, instead of --identity's")
	fl.StringVar(&f.ledgerKey, "ledger-key", "", "public key of the servers' ledger, as `text or a file` (default: ledger.pub beside the certificate; or else the first key that they show is trusted, and kept). One of another ledger than a client follows has it follow that one from now on")
	fl.DurationVar(&f.patience, "patience", time.Minute, "`time` to go on trying while no server answers")
	fl.StringVar(&f.logLevel, "log-level", "warn", "least `level` that is logged, on stderr: "+strings.Join(logLevels, ", "))
	return fl
}

// consent is which jobs a client takes part in.
func (f *flags) consent() *pflag.FlagSet {
	fl := commandline.Part("Taking part")
	fl.StringSliceVar(&f.jobs, "job", nil, "only in these `jobs` (default: all that are open)")
	fl.StringSliceVar(&f.trust, "trust", nil, "only in these trust `modes`: "+strings.Join(trustModes, ", ")+"; with central, servers see what is sent without noise (default: distributed, local)")
	return fl
}

// config is what all devices of the command have in common.
func (f *flags) config(stderr io.Writer) (client.Config, error) {
	c := client.Config{Dir: f.dir, Servers: f.servers, Jobs: f.jobs, Patience: f.patience, Cap: client.Cap{Epsilon: f.capEpsilon, Delta: f.capDelta}}
	if !(f.capEpsilon > 0) {
		return c, commandline.Flagf("cap-epsilon", "%v is not above 0", f.capEpsilon)
	}
	if !(f.capDelta > 0 && f.capDelta < 1) {
		return c, commandline.Flagf("cap-delta", "%v is not between 0 and 1", f.capDelta)
	}
	for _, mode := range f.trust {
		if !slices.Contains(trustModes, mode) {
			return c, commandline.Flagf("trust", "%q is none of %s", mode, strings.Join(trustModes, ", "))
		}
		c.Trust = append(c.Trust, rounds.Trust(mode))
	}
	if f.logLevel != "" && f.logLevel != "off" {
		var level slog.Level
		if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
			return c, commandline.Flagf("log-level", "%q is none of %s", f.logLevel, strings.Join(logLevels, ", "))
		}
		c.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	}
	return c, nil
}

// connected is the Config of a single device, but for its identity and samples.
func (f *flags) connected(stderr io.Writer) (client.Config, error) {
	c, err := f.config(stderr)
	if err != nil {
		return c, err
	}
	switch {
	case f.dir == "":
		return c, commandline.Flagf("dir", "is missing: the client's directory")
	case len(f.servers) == 0:
		return c, commandline.Flagf("server", "is missing: HOST:PORT of a server")
	}
	return c, nil
}

// device is the Config of a single device.
func (f *flags) device(stderr io.Writer) (client.Config, error) {
	c, err := f.connected(stderr)
	if err != nil {
		return c, err
	}
	if f.data == "" {
		return c, commandline.Flagf("data", "is missing: a CSV file of the client's samples")
	}
	if c.Identity, err = f.files(); err != nil {
		return c, err
	}
	if c.LedgerKey, err = f.publicKey(f.identity); err != nil {
		return c, err
	}
	c.Samples, err = f.samples()
	return c, err
}

// files are those of --identity, but for those that are named alone.
func (f *flags) files() (identity.Files, error) {
	var files identity.Files
	if f.identity != "" {
		files = identity.In(f.identity)
	}
	files.Certificate = cmp.Or(f.certificate, files.Certificate)
	files.Key = cmp.Or(f.key, files.Key)
	files.Authority = cmp.Or(f.authority, files.Authority)
	if files.Certificate == "" || files.Key == "" || files.Authority == "" {
		return files, commandline.Flagf("identity", "is missing: a directory of tls.crt, tls.key and ca.crt")
	}
	return files, nil
}

// publicKey is the ledger's, of --ledger-key or a certificate's directory; empty where
// there is none.
func (f *flags) publicKey(dir string) (string, error) {
	if _, err := ledger.ParseKey(f.ledgerKey); err == nil {
		return f.ledgerKey, nil
	}
	path := f.ledgerKey
	if path == "" {
		if path = filepath.Join(dir, "ledger.pub"); dir == "" {
			return "", nil
		}
	}
	text, err := os.ReadFile(path)
	switch {
	case f.ledgerKey == "" && errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", fileMistake("ledger-key", err)
	}
	if _, err := ledger.ParseKey(string(text)); err != nil {
		return "", commandline.Flagf("ledger-key", "%s: no public key of a ledger, such as undertone audit key publish prints", path)
	}
	return string(text), nil
}

// samples are those of --data. That they can be read is tried at once: later it
// stays on the device.
func (f *flags) samples() (client.Samples, error) {
	items, err := f.catalogue()
	if err != nil {
		return nil, err
	}
	if f.format == string(client.Ratings) && items == nil {
		return nil, commandline.Flagf("items", "is missing: the job's items, one a line")
	}
	t, err := client.OpenTable(f.data, client.Format(f.format), items)
	if err != nil {
		return nil, fileMistake("data", err)
	}
	if users := t.Users(); len(users) > 1 {
		return nil, commandline.Flagf("data", "%s has the samples of %d clients; --users takes many", f.data, len(users))
	}
	return client.CSV(f.data, client.Format(f.format), items), nil
}

func (f *flags) catalogue() ([]string, error) {
	if f.items == "" {
		return nil, nil
	}
	items, err := client.ReadItems(f.items)
	if err != nil {
		return nil, fileMistake("items", err)
	}
	return items, nil
}
