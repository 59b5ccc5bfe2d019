package commandline

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// Part starts a part of a command's flags; AddParts adds it.
func Part(title string) *pflag.FlagSet {
	part := pflag.NewFlagSet(title, pflag.ContinueOnError)
	part.SortFlags = false
	return part
}

// partOf is the annotation of a flag that names its part.
const partOf = "part"

// AddParts adds flags to a command, whose help shows them part by part.
func AddParts(cmd *cobra.Command, parts ...*pflag.FlagSet) {
	cmd.Flags().SortFlags = false
	for _, part := range parts {
		part.VisitAll(func(f *pflag.Flag) {
			if err := part.SetAnnotation(f.Name, partOf, []string{part.Name()}); err != nil {
				panic(err) // it has no such flag
			}
		})
		cmd.Flags().AddFlagSet(part)
	}
}

// Epilogue is the annotation of a command that has the last part of its help.
const Epilogue = "epilogue"

// printHelp prints the same kind of help for every command: what it does, how it
// is called, examples, the commands below it, its flags.
func printHelp(cmd *cobra.Command) {
	w := cmd.OutOrStdout()
	about := cmd.Long
	if about == "" {
		about = cmd.Short + "."
	}
	parts := partsOf(cmd)
	line := cmd.UseLine()
	if len(parts) == 0 {
		line = strings.TrimSuffix(line, " [flags]")
	}
	if cmd.HasAvailableSubCommands() {
		line = cmd.CommandPath() + " COMMAND"
	}
	fmt.Fprintf(w, "%s\n\nUsage:\n  %s\n", strings.TrimSpace(about), line)
	if cmd.HasExample() {
		fmt.Fprintf(w, "\nExamples:\n%s\n", cmd.Example)
	}
	printCommands(cmd)
	for _, part := range parts {
		fmt.Fprintf(w, "\n%s:\n%s", part.Name(), part.FlagUsagesWrapped(width(cmd)))
	}
	if text := cmd.Annotations[Epilogue]; text != "" {
		fmt.Fprintf(w, "\n%s\n", text)
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\n%s COMMAND --help says more.\n", cmd.CommandPath())
	}
}

// printCommands prints the commands below one, group by group if it has groups.
func printCommands(cmd *cobra.Command) {
	w := cmd.OutOrStdout()
	groups := cmd.Groups()
	if len(groups) == 0 {
		groups = []*cobra.Group{{Title: "Commands"}}
	}
	for _, g := range groups {
		title := "\n" + g.Title + ":\n"
		for _, sub := range cmd.Commands() {
			if sub.GroupID == g.ID && sub.IsAvailableCommand() {
				fmt.Fprintf(w, "%s  %-*s %s\n", title, sub.NamePadding(), sub.Name(), sub.Short)
				title = ""
			}
		}
	}
}

// partsOf are a command's flags in parts, in their order. That there are --help
// and --version is known.
func partsOf(cmd *cobra.Command) []*pflag.FlagSet {
	var parts []*pflag.FlagSet
	byTitle := map[string]*pflag.FlagSet{}
	cmd.LocalFlags().SortFlags = false
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" || f.Name == "version" {
			return
		}
		title := "Flags"
		if of := f.Annotations[partOf]; of != nil {
			title = of[0]
		}
		if byTitle[title] == nil {
			byTitle[title] = Part(title)
			parts = append(parts, byTitle[title])
		}
		byTitle[title].AddFlag(f)
	})
	return parts
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
