package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/undertone-fl/undertone/commandline"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"undertone": main})
}

// TestScripts runs the command as a user would. Each script says in its first
// lines what it shows.
func TestScripts(t *testing.T) {
	for _, of := range []string{"simulations", "server"} {
		t.Run(of, func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir:                 of + "/cli/testdata/script",
				RequireExplicitExec: true,
				RequireUniqueNames:  true,
			})
		})
	}
}

// TestNoUsageDump: whatever is wrong with the command line is one line and
// status 2, also before a subcommand is known.
func TestNoUsageDump(t *testing.T) {
	for _, line := range []string{
		"simulat", "nothing-like-it", "--nope", "-n", "simulate extra", "simulate --nope", "simulate -n 3",
		"simulate --seeds", "simulate --seeds x", "simulate --seed -1", "simulate --quiet=perhaps", "simulate --delta e",
		"version --nope", "completion", "completion csh", "job nope", "benchmark --only nothing", "faults --only nothing", "faults --clients 3",
	} {
		var stderr bytes.Buffer
		if status := commandline.Run(newRoot(), strings.Fields(line), &stderr); status != commandline.Usage {
			t.Errorf("%s: status %d, want %d", line, status, commandline.Usage)
		}
		if got := stderr.String(); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "undertone: ") {
			t.Errorf("%s: got %q, want one line", line, got)
		}
	}
}

// TestHelp holds that every command says in the same words what it is for: no
// flag is without a word on what it takes, and no line is cobra's own.
func TestHelp(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		line := strings.TrimSpace(strings.TrimPrefix(cmd.CommandPath(), "undertone"))
		root := newRoot()
		var text, stderr bytes.Buffer
		root.SetOut(&text)
		if status := commandline.Run(root, append(strings.Fields(line), "--help"), &stderr); status != 0 {
			t.Errorf("%s --help: status %d: %s", cmd.CommandPath(), status, &stderr)
		}
		for _, noise := range []string{" strings ", " string ", " float ", " int ", " uint ", "help for ", "[command]", "Available Commands"} {
			if strings.Contains(text.String(), noise) {
				t.Errorf("%s --help has %q:\n%s", cmd.CommandPath(), noise, &text)
			}
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(newRoot())
}
