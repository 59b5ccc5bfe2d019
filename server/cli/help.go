package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// begin starts a part of the help text, of which the set's name is the title.
func begin(title string) *pflag.FlagSet {
	fs := pflag.NewFlagSet(title, pflag.ContinueOnError)
	fs.SortFlags = false
	return fs
}

// group adds flags to a command whose help shows them in parts.
func group(cmd *cobra.Command, parts ...*pflag.FlagSet) {
	for _, fs := range parts {
		cmd.Flags().AddFlagSet(fs)
	}
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { printHelp(cmd, parts) })
}

func printHelp(cmd *cobra.Command, parts []*pflag.FlagSet) {
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "%s\n\nUsage:\n  %s\n\nExamples:\n%s\n", cmd.Long, cmd.UseLine(), cmd.Example)
	for _, fs := range parts {
		fmt.Fprintf(w, "\n%s:\n%s", fs.Name(), fs.FlagUsagesWrapped(width(cmd)))
	}
}

// width is how many columns help may take.
func width(cmd *cobra.Command) int {
	if out, ok := cmd.OutOrStdout().(*os.File); ok {
		if w, _, err := term.GetSize(int(out.Fd())); err == nil && w > 60 {
			return min(w, 120)
		}
	}
	return 100
}

func list(words []string) string { return strings.Join(words, ", ") }
