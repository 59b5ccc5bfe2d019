// Package cli is the commands that run, operate and audit the service: undertone
// server, ca, job, status, node, backup, restore, recover and audit. What a node does is
// package server's; what an operator's command does is a call to one, over the
// same interface that others may use.
//
// Every mistake in the command line, or in a file that it names, is one line and
// exit status 2; a server that cannot be reached, or that refuses, is one line
// and exit status 1. What a program is to read comes with --json, on stdout;
// notes for people go to stderr then.
package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/commandline"
	"github.com/undertone-fl/undertone/proto/identity"
)

// Commands returns the commands that run and operate the service.
func Commands() []*cobra.Command {
	list := []*cobra.Command{
		serverCommand(), caCommand(), jobCommand(), statusCommand(), nodeCommand(),
		backupCommand(), restoreCommand(), recoverCommand(),
	}
	for _, cmd := range list {
		prepare(cmd)
	}
	return list
}

// Audit returns undertone audit, with the measurements given among its commands.
func Audit(measurements ...*cobra.Command) *cobra.Command {
	cmd := auditCommand(measurements)
	prepare(cmd)
	return cmd
}

// prepare does for a command and those below it what all have in common.
func prepare(cmd *cobra.Command) {
	cmd.Flags().SortFlags = false
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error { return inputStatus(run(cmd, args)) }
	}
	for _, sub := range cmd.Commands() {
		prepare(sub)
	}
}

var (
	usagef = commandline.Usagef
	flagf  = commandline.Flagf
)

// inputStatus gives what is the user's mistake its exit status.
func inputStatus(err error) error {
	var (
		term *jobs.TermError
		spec *rounds.SpecError
		file *identity.FileError
	)
	if errors.As(err, &term) || errors.As(err, &spec) || errors.As(err, &file) {
		return &commandline.UsageError{Err: err}
	}
	return err
}

// named takes exactly the arguments named.
func named(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef("%s is missing: %s", names[len(args)], cmd.UseLine())
		case len(args) > len(names):
			return usagef("unexpected argument %q: %s", args[len(names)], cmd.UseLine())
		}
		return nil
	}
}

// mustBeOneOf checks an enumeration.
func mustBeOneOf(flag, value string, choices []string) error {
	if slices.Contains(choices, value) {
		return nil
	}
	hint := ""
	if near := commandline.Nearest(value, choices); near != "" {
		hint = fmt.Sprintf(" (did you mean %s?)", near)
	}
	return flagf(flag, "%q is not one of %s%s", value, list(choices), hint)
}

func list(words []string) string { return strings.Join(words, ", ") }

// complete registers what shells offer for a flag's value.
func complete(cmd *cobra.Command, flag string, offer cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, offer); err != nil {
		panic(err) // there is no such flag, or it has two
	}
}

func directories(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

func files(extensions ...string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		if len(extensions) == 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return extensions, cobra.ShellCompDirectiveFilterFileExt
	}
}
