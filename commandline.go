package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit statuses. An error that has another one says so with ExitStatus.
const (
	statusFailed = 1
	statusUsage  = 2 // a mistake in the command line, or in a file that it names
)

// run performs one command line and returns the exit status. Whatever goes
// wrong is one line on stderr. SIGINT and SIGTERM cancel the command's
// context; a second one kills.
func run(root *cobra.Command, args []string, stderr io.Writer) (status int) {
	if os.Getenv("GOTRACEBACK") == "" {
		defer func() {
			if p := recover(); p != nil {
				// A panic from another goroutine brings its stack along.
				what, _, _ := strings.Cut(fmt.Sprint(p), "\ngoroutine ")
				fmt.Fprintf(stderr, "undertone: internal error: %s (GOTRACEBACK=all shows where)\n", oneLine(what))
				status = statusFailed
			}
		}()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	root.SilenceErrors, root.SilenceUsage = true, true
	root.Version = version()
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.SuggestionsMinimumDistance = 2
	root.SetArgs(args)
	// Cobra's own check of a command's name gives several lines.
	root.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		hint := "see undertone --help"
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			hint = "did you mean " + near[0] + "?"
		}
		return usageError(fmt.Sprintf("unknown command %q (%s)", args[0], hint))
	}
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }

	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "undertone:", oneLine(err.Error()))
	var withStatus interface{ ExitStatus() int }
	if errors.As(err, &withStatus) {
		return withStatus.ExitStatus()
	}
	return statusFailed
}

// usageError is a mistake in the command line.
type usageError string

func (e usageError) Error() string { return string(e) }
func (usageError) ExitStatus() int { return statusUsage }

// flagError puts what pflag says of a flag into the words of all other
// mistakes: the flag, a colon, the problem.
func flagError(cmd *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	var (
		invalid *pflag.InvalidValueError
		absent  *pflag.NotExistError
		missing *pflag.ValueRequiredError
	)
	switch {
	case errors.As(err, &invalid):
		flag := invalid.GetFlag()
		return usageError(fmt.Sprintf("--%s: %q is not %s", flag.Name, invalid.GetValue(), kind(flag.Value.Type())))
	case errors.As(err, &absent):
		name := "--" + absent.GetSpecifiedName()
		if absent.GetSpecifiedShortnames() != "" {
			name = "-" + absent.GetSpecifiedName()
		}
		return usageError(fmt.Sprintf("%s: no such flag (see %s --help)", name, cmd.CommandPath()))
	case errors.As(err, &missing):
		return usageError(fmt.Sprintf("--%s: a value is missing", missing.GetSpecifiedName()))
	}
	return usageError(err.Error())
}

// kind says what a flag of a pflag type wants.
func kind(flagType string) string {
	switch flagType {
	case "int", "int64":
		return "a whole number"
	case "uint", "uint32", "uint64":
		return "a whole number from 0 up"
	case "duration":
		return "a time such as 90s or 10m"
	case "float64":
		return "a number"
	case "bool":
		return "true or false"
	case "stringSlice":
		return "a list separated by commas"
	}
	return "a " + flagType
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "version",
		Short:             "Print the version of the program and of Go",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version())
			return err
		},
	}
}

// version says which source the program was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "undertone, built without version information"
	}
	text := "undertone " + info.Main.Version
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			text += ", revision " + s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			text += ", modified"
		}
	}
	return text + ", " + info.GoVersion
}
