// Package commandline is what the command lines of undertone and undertone-agent
// have in common: how a command is run, how help looks, and how a mistake reads.
//
// Whatever goes wrong is one line on stderr, and the exit status says whose doing
// it was: 1 for what failed, 2 for a mistake in the command line or in a file that
// it names.
package commandline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/agnivade/levenshtein"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit statuses. An error that has another one says so with ExitStatus.
const (
	Failed = 1
	Usage  = 2 // a mistake in the command line, or in a file that it names
)

// Commands are listed in the order of their use.
func init() { cobra.EnableCommandSorting = false }

// Run performs one command line and returns the exit status. SIGINT and SIGTERM
// cancel the command's context; a second one kills.
func Run(root *cobra.Command, args []string, stderr io.Writer) (status int) {
	program := root.Name()
	if os.Getenv("GOTRACEBACK") == "" {
		defer func() {
			if p := recover(); p != nil {
				// A panic from another goroutine brings its stack along.
				what, _, _ := strings.Cut(fmt.Sprint(p), "\ngoroutine ")
				fmt.Fprintf(stderr, "%s: internal error: %s (GOTRACEBACK=all shows where)\n", program, OneLine(what))
				status = Failed
			}
		}()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	root.SilenceErrors, root.SilenceUsage = true, true
	root.Version = version(program)
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.SetArgs(args)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { printHelp(cmd) })
	root.CompletionOptions.DisableDefaultCmd = true // Own has one
	prepare(root)
	if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		quoteless(root)
	}

	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "%s: %s\n", program, OneLine(err.Error()))
	var withStatus interface{ ExitStatus() int }
	if errors.As(err, &withStatus) {
		return withStatus.ExitStatus()
	}
	return Failed
}

// prepare has commands that only hold others show their help, or say that there is no
// such command - cobra's own check gives several lines - and all refuse empty flags.
func prepare(cmd *cobra.Command) {
	if cmd.HasSubCommands() && !cmd.Runnable() {
		cmd.Args = unknownCommand
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	takes := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if err := emptyFlag(cmd.Flags()); err != nil || takes == nil {
			return err
		}
		return takes(cmd, args)
	}
	for _, sub := range cmd.Commands() {
		prepare(sub)
	}
}

// emptyFlag refuses a flag that was given and left empty, as by a variable of the shell
// that is not set, if that is what it is by itself. Else it means something, as of --out.
func emptyFlag(flags *pflag.FlagSet) (err error) {
	flags.Visit(func(f *pflag.Flag) {
		if v := f.Value.String(); err == nil && v == f.DefValue && (v == "" || v == "[]") {
			err = Flagf(f.Name, "is empty")
		}
	})
	return err
}

// quoteless has flags described without the quotes around the name of their value, which
// help leaves out and what completes a shell's line does not.
func quoteless(cmd *cobra.Command) {
	each := func(f *pflag.Flag) { _, f.Usage = pflag.UnquoteUsage(f) }
	cmd.Flags().VisitAll(each)
	cmd.PersistentFlags().VisitAll(each)
	for _, sub := range cmd.Commands() {
		quoteless(sub)
	}
}

// unknownCommand is the mistake of a name that no command below cmd has.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, sub := range cmd.Commands() {
		names = append(names, sub.Name())
	}
	hint := fmt.Sprintf("see %s --help", cmd.CommandPath())
	if near := Nearest(args[0], names); near != "" {
		hint = "did you mean " + near + "?"
	}
	return Usagef("unknown command %q (%s)", args[0], hint)
}

// Nearest is the choice that value was most likely meant to be, or "".
func Nearest(value string, choices []string) string {
	best, distance := "", len(value)/3+2 // farther than this is another word
	for _, c := range choices {
		if d := levenshtein.ComputeDistance(strings.ToLower(value), c); d < distance {
			best, distance = c, d
		}
	}
	return best
}

// UsageError is a mistake in the command line, or in a file that it names.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }
func (*UsageError) ExitStatus() int { return Usage }

// Usagef is a *UsageError.
func Usagef(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// Flagf is the *UsageError of a flag's value.
func Flagf(flag, format string, args ...any) error {
	return Usagef("--"+flag+": "+format, args...)
}

// NoArguments admits none.
func NoArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Usagef("unexpected argument %q: %s", args[0], cmd.UseLine())
	}
	return nil
}

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
		return Flagf(flag.Name, "%q is not %s", invalid.GetValue(), Kind(flag.Value.Type()))
	case errors.As(err, &absent):
		name := "--" + absent.GetSpecifiedName()
		if absent.GetSpecifiedShortnames() != "" {
			name = "-" + absent.GetSpecifiedName()
		}
		return Usagef("%s: no such flag (see %s --help)", name, cmd.CommandPath())
	case errors.As(err, &missing):
		return Flagf(missing.GetSpecifiedName(), "a value is missing")
	}
	return &UsageError{err}
}

// Kind says what a flag of a pflag type wants.
func Kind(flagType string) string {
	switch flagType {
	case "int", "int32", "int64":
		return "a whole number"
	case "uint", "uint32", "uint64":
		return "a whole number from 0 up"
	case "duration":
		return "a time such as 10m or 200ms"
	case "float64":
		return "a number"
	case "bool":
		return "true or false"
	case "stringSlice", "float64Slice", "int32Slice":
		return "a list separated by commas"
	}
	return "a " + flagType
}

// OneLine is a text on one line.
func OneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Own are the commands that are about the program itself.
func Own(root *cobra.Command) []*cobra.Command {
	return []*cobra.Command{completionCommand(root), versionCommand()}
}

func completionCommand(root *cobra.Command) *cobra.Command {
	shells := map[string]func(root *cobra.Command, w io.Writer) error{
		"bash":       func(root *cobra.Command, w io.Writer) error { return root.GenBashCompletionV2(w, true) },
		"fish":       func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) },
		"powershell": (*cobra.Command).GenPowerShellCompletionWithDesc,
		"zsh":        (*cobra.Command).GenZshCompletion,
	}
	names := slices.Sorted(maps.Keys(shells))
	return &cobra.Command{
		Use:               "completion SHELL",
		Short:             "Print what makes a shell complete commands: " + strings.Join(names, ", "),
		Example:           fmt.Sprintf("  source <(%s completion bash)", root.Name()),
		ValidArgsFunction: cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || shells[args[0]] == nil {
				return Usagef("SHELL is one of %s", strings.Join(names, ", "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return shells[args[0]](root, cmd.OutOrStdout())
		},
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "version",
		Short:             "Print the version of the program and of Go",
		Args:              NoArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), cmd.Root().Version)
			return err
		},
	}
}

// version says which source the program was built from.
func version(program string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return program + ", built without version information"
	}
	text := program + " " + info.Main.Version
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
