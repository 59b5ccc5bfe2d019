package main

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client"
	"github.com/undertone-fl/undertone/proto/identity"
)

// flags of a command; which of them it has, it says by what it adds.
type flags struct {
	dir  string
	json bool

	servers                     []string
	certificates                string
	certificate, key, authority string
	jobs                        []string
	trust                       []string
	capEpsilon, capDelta        float64
	patience                    time.Duration
	log                         string

	data, format, items string
	users               string
	workers             int
	train               float64
	seed                uint64
}

// addFolder adds what every command has.
func (f *flags) addFolder(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.dir, "dir", "", "the device's folder, or with --users FILE the folder of all their folders")
	fl.BoolVar(&f.json, "json", false, "print JSON")
	fl.Float64Var(&f.capEpsilon, "cap-epsilon", client.DefaultCap.Epsilon, "the most that a device discloses, over all jobs and for ever")
	fl.Float64Var(&f.capDelta, "cap-delta", client.DefaultCap.Delta, "delta of --cap-epsilon")
	mark(cmd.MarkFlagDirname("dir"))
}

// addSamples adds where the samples are.
func (f *flags) addSamples(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.data, "data", "", "CSV file of the user's samples, read anew for every round")
	fl.StringVar(&f.format, "format", "features", "of the file: features (the last column is the response) or ratings (user,item,rating)")
	fl.StringVar(&f.items, "items", "", "file of the job's items, one a line, for ratings")
	mark(cmd.MarkFlagFilename("data", "csv", "gz"))
	mark(cmd.MarkFlagFilename("items"))
	mark(cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"features", "ratings"}, cobra.ShellCompDirectiveNoFileComp)))
}

// addUsers adds what many users in one process take.
func (f *flags) addUsers(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.users, "users", "", "many users: a CSV file of all their samples, with their certificates in --certificates/NAME; or a folder with a folder of each: its certificate, and samples.csv")
	fl.IntVar(&f.workers, "workers", 0, "users at a time (default: twice the processors)")
	fl.Float64Var(&f.train, "train", 0, "with --users FILE, how many of a user's rows to learn from, or below 1 what fraction; the others are held out, and measured (default: all)")
	fl.Uint64Var(&f.seed, "seed", 1, "of the choice of --train")
	mark(cmd.MarkFlagFilename("users", "csv", "gz"))
}

// addNetwork adds what a command that speaks to servers has.
func (f *flags) addNetwork(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringSliceVar(&f.servers, "server", nil, "host:port of the cluster's nodes, as many as are known")
	fl.StringVar(&f.certificates, "certificates", "", "folder of tls.crt, tls.key and ca.crt")
	fl.StringVar(&f.certificate, "certificate", "", "certificate file, in place of --certificates")
	fl.StringVar(&f.key, "key", "", "key file")
	fl.StringVar(&f.authority, "authority", "", "file of the authorities of the servers' certificates")
	fl.StringSliceVar(&f.jobs, "job", nil, "jobs to take part in (default: all that are open)")
	fl.StringSliceVar(&f.trust, "trust", nil, "trust modes to take part in: distributed, central, local (default: all)")
	fl.DurationVar(&f.patience, "patience", time.Minute, "how long to go on trying while no server answers")
	fl.StringVar(&f.log, "log", "warn", "what to log on stderr: debug, info, warn, error, off")
	mark(cmd.MarkFlagDirname("certificates"))
	for _, name := range []string{"certificate", "key", "authority"} {
		mark(cmd.MarkFlagFilename(name, "pem", "crt", "key"))
	}
	mark(cmd.RegisterFlagCompletionFunc("trust", cobra.FixedCompletions(trustModes, cobra.ShellCompDirectiveNoFileComp)))
	mark(cmd.RegisterFlagCompletionFunc("log", cobra.FixedCompletions([]string{"debug", "info", "warn", "error", "off"}, cobra.ShellCompDirectiveNoFileComp)))
}

// mark is for what fails only if a flag is misspelt here.
func mark(err error) {
	if err != nil {
		panic(err)
	}
}

var trustModes = []string{string(rounds.TrustDistributed), string(rounds.TrustCentral), string(rounds.TrustLocal)}

// config is what all devices of the command have in common.
func (f *flags) config(stderr io.Writer) (client.Config, error) {
	c := client.Config{Dir: f.dir, Servers: f.servers, Jobs: f.jobs, Patience: f.patience, Cap: client.Cap{Epsilon: f.capEpsilon, Delta: f.capDelta}}
	if !(f.capEpsilon > 0) {
		return c, flagMistake("cap-epsilon", "%v is not above 0", f.capEpsilon)
	}
	if !(f.capDelta > 0 && f.capDelta < 1) {
		return c, flagMistake("cap-delta", "%v is not between 0 and 1", f.capDelta)
	}
	for _, mode := range f.trust {
		if !slices.Contains(trustModes, mode) {
			return c, flagMistake("trust", "%q is none of %s", mode, strings.Join(trustModes, ", "))
		}
	}
	if len(f.trust) > 0 {
		c.Accept = func(s *rounds.Spec) error {
			if !slices.Contains(f.trust, string(s.Trust)) {
				return fmt.Errorf("its trust mode is %s", s.Trust)
			}
			return nil
		}
	}
	if f.log != "" && f.log != "off" {
		var level slog.Level
		if err := level.UnmarshalText([]byte(f.log)); err != nil {
			return c, flagMistake("log", "%q is none of debug, info, warn, error, off", f.log)
		}
		c.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	}
	return c, nil
}

// device is the Config of a single device.
func (f *flags) device(stderr io.Writer) (client.Config, error) {
	c, err := f.config(stderr)
	if err != nil {
		return c, err
	}
	switch {
	case f.dir == "":
		return c, flagMistake("dir", "is missing: the device's folder")
	case len(f.servers) == 0:
		return c, flagMistake("server", "is missing: host:port of a node")
	case f.data == "":
		return c, flagMistake("data", "is missing: a CSV file of the user's samples")
	}
	if c.Identity, err = f.files(); err != nil {
		return c, err
	}
	c.Samples, err = f.samples()
	return c, err
}

func (f *flags) files() (identity.Files, error) {
	switch {
	case f.certificates != "" && (f.certificate != "" || f.key != "" || f.authority != ""):
		return identity.Files{}, flagMistake("certificates", "stands for --certificate, --key and --authority")
	case f.certificates != "":
		return identity.In(f.certificates), nil
	case f.certificate == "" || f.key == "" || f.authority == "":
		return identity.Files{}, flagMistake("certificates", "is missing: the folder of tls.crt, tls.key and ca.crt")
	}
	return identity.Files{Certificate: f.certificate, Key: f.key, Authority: f.authority}, nil
}

// samples are those of --data. That they can be read is tried at once: later it
// stays on the device.
func (f *flags) samples() (client.Samples, error) {
	items, err := f.catalogue()
	if err != nil {
		return nil, err
	}
	if f.format == string(client.Ratings) && items == nil {
		return nil, flagMistake("items", "is missing: the job's items, one a line")
	}
	t, err := client.OpenTable(f.data, client.Format(f.format), items)
	if err != nil {
		return nil, fileMistake("data", err)
	}
	if users := t.Users(); len(users) > 1 {
		return nil, flagMistake("data", "%s has the samples of %d users; --users takes many", f.data, len(users))
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
