package cli_test

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/undertone-fl/undertone/commandline"
	"github.com/undertone-fl/undertone/server/cli"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"undertone": undertone})
}

// undertone is the program with this package's commands alone.
func undertone() {
	root := &cobra.Command{Use: "undertone"}
	root.AddCommand(append(cli.Commands(), cli.Audit())...)
	os.Exit(commandline.Run(root, os.Args[1:], os.Stderr))
}

// TestScripts runs the commands as a user would. Each script says in its first
// lines what it shows.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}
