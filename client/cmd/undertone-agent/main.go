// Undertone-agent is a device, or many, for machines without Go: it keeps the
// samples of a CSV file at home, takes part in the rounds of undertone's jobs, and
// predicts. It is package client on a command line, and links no server.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/undertone-fl/undertone/client"
	"github.com/undertone-fl/undertone/proto/identity"
)

func main() {
	os.Exit(run(newRoot(), os.Args[1:], os.Stderr))
}

// Exit statuses.
const (
	statusFailed = 1
	statusUsage  = 2 // a mistake in the command line, or in a file that it names
)

// environment is what the names of the variables that stand in for flags begin
// with: UNDERTONE_CAP_EPSILON for --cap-epsilon.
const environment = "UNDERTONE_"

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "undertone-agent",
		Short: "Take part in federated personalization, and predict",
		Long: `Take part in federated personalization under differential privacy, and predict.

Samples, the personal model and the noise stay on this machine. A device's folder
(--dir) keeps the record of what was disclosed; do not copy it, and do not put it
back from a backup.

Every flag may be given in the environment: UNDERTONE_CAP_EPSILON for --cap-epsilon.`,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return fromEnvironment(cmd.Flags()) },
	}
	root.AddCommand(runCommand(), syncCommand(), predictCommand(), evaluateCommand(), statusCommand())
	return root
}

// run performs one command line and returns the exit status. Whatever goes wrong is
// one line on stderr. SIGINT and SIGTERM cancel the command's context; a second one
// kills.
func run(root *cobra.Command, args []string, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	root.SilenceErrors, root.SilenceUsage = true, true
	root.Version = version()
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.SetArgs(args)
	root.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError(fmt.Sprintf("unknown command %q (see undertone-agent --help)", args[0]))
		}
		return nil
	}
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "undertone-agent:", oneLine(err.Error()))
	if isMistake(err) {
		return statusUsage
	}
	return statusFailed
}

// usageError is a mistake in the command line.
type usageError string

func (e usageError) Error() string { return string(e) }

func flagMistake(flag, format string, args ...any) error {
	return usageError("--" + flag + ": " + fmt.Sprintf(format, args...))
}

// isMistake reports whether the command line, or a file that it names, is to blame.
func isMistake(err error) bool {
	var (
		usage usageError
		row   *client.RowError
		file  *identity.FileError
	)
	return errors.As(err, &usage) || errors.As(err, &row) || errors.As(err, &file)
}

// asMistake names the flag behind a mistake in a client's Config.
func asMistake(err error) error {
	flags := map[string]string{"servers": "server", "samples": "data", "cap": "cap-epsilon"}
	var field *client.ConfigError
	if errors.As(err, &field) {
		name := field.Field
		if flag := flags[name]; flag != "" {
			name = flag
		}
		return flagMistake(name, "%s", field.Problem)
	}
	return err
}

// fileMistake is what is wrong with a file that a flag names.
func fileMistake(flag string, err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return flagMistake(flag, "%s: %v", path.Path, path.Err)
	}
	return asMistake(err)
}

// flagError puts what pflag says of a flag into the words of all other mistakes.
func flagError(cmd *cobra.Command, err error) error {
	var (
		invalid *pflag.InvalidValueError
		absent  *pflag.NotExistError
		missing *pflag.ValueRequiredError
	)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return err
	case errors.As(err, &invalid):
		flag := invalid.GetFlag()
		return flagMistake(flag.Name, "%q is not a %s", invalid.GetValue(), flag.Value.Type())
	case errors.As(err, &absent):
		return flagMistake(absent.GetSpecifiedName(), "no such flag (see %s --help)", cmd.CommandPath())
	case errors.As(err, &missing):
		return flagMistake(missing.GetSpecifiedName(), "a value is missing")
	}
	return usageError(err.Error())
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
			err = usageError(fmt.Sprintf("%s: %q is not a %s", name, value, f.Value.Type()))
		}
	})
	return err
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// version says which source the program was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "undertone-agent, built without version information"
	}
	text := "undertone-agent " + info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			text += ", revision " + s.Value
		}
	}
	return text + ", " + info.GoVersion
}
