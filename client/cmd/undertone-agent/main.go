// Undertone-agent is a device, or many, for machines without Go: it keeps the
// samples of a CSV file at home, takes part in the rounds of undertone's jobs, and
// predicts. It is package client on a command line, and links no server.
package main

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/undertone-fl/undertone/client"
	"github.com/undertone-fl/undertone/commandline"
	"github.com/undertone-fl/undertone/proto/identity"
)

func main() {
	os.Exit(commandline.Run(newRoot(), os.Args[1:], os.Stderr))
}

// environment is what the names of the variables that stand in for flags begin
// with: UNDERTONE_CAP_EPSILON for --cap-epsilon.
const environment = "UNDERTONE_"

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use: "undertone-agent",
		Long: `Undertone-agent is a client of undertone, or many: it takes part in rounds with the
samples of a CSV file, and predicts.

Samples, the personal model and the noise stay on this machine. A client's
directory (--dir) keeps the record of what was disclosed; do not copy it, and do
not put it back from a backup.

Every flag can be given in the environment: UNDERTONE_CAP_EPSILON for
--cap-epsilon.`,
		Example: `  undertone-agent sync --dir alice --data samples.csv --server n1:7300,n2:7300 --identity certs/client/alice
  undertone-agent predict --dir alice --job meals --x 1,0,0.5
  undertone-agent status --dir alice`,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return fromEnvironment(cmd.Flags()) },
	}
	root.AddCommand(runCommand(), syncCommand(), predictCommand(), evaluateCommand(), statusCommand(), checkpointCommand(), compareCommand())
	for _, cmd := range root.Commands() {
		run := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error { return inputStatus(run(cmd, args)) }
	}
	root.AddCommand(commandline.Own(root)...)
	return root
}

// isMistake reports whether the command line, or a file that it names, is to blame.
func isMistake(err error) bool {
	var (
		usage *commandline.UsageError
		row   *client.RowError
		file  *identity.FileError
	)
	return errors.As(err, &usage) || errors.As(err, &row) || errors.As(err, &file)
}

// inputStatus gives what is the user's mistake its exit status.
func inputStatus(err error) error {
	if isMistake(err) {
		return &commandline.UsageError{Err: err}
	}
	return err
}

// asMistake names the flag behind a mistake in a client's Config.
func asMistake(err error) error {
	flags := map[string]string{"servers": "server", "samples": "data", "cap": "cap-epsilon", "ledger key": "ledger-key"}
	var field *client.ConfigError
	if errors.As(err, &field) {
		name := field.Field
		if flag := flags[name]; flag != "" {
			name = flag
		}
		return commandline.Flagf(name, "%s", field.Problem)
	}
	return err
}

// fileMistake is what is wrong with a file that a flag names.
func fileMistake(flag string, err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return commandline.Flagf(flag, "%s: %v", path.Path, path.Err)
	}
	return asMistake(err)
}

// fromEnvironment sets the flags that the command line leaves out.
func fromEnvironment(flags *pflag.FlagSet) (err error) {
	flags.VisitAll(func(f *pflag.Flag) {
		name := environment + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, set := os.LookupEnv(name)
		if err != nil || f.Changed || !set {
			return
		}
		if flags.Set(f.Name, value) != nil {
			err = commandline.Usagef("%s: %q is not %s", name, value, commandline.Kind(f.Value.Type()))
		}
	})
	return err
}
