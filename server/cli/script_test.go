package cli_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/undertone-fl/undertone/server/cli"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"undertone": undertone})
}

// undertone is the program with this package's commands alone.
func undertone() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{Use: "undertone", SilenceErrors: true, SilenceUsage: true, Version: "undertone test"}
	root.AddCommand(cli.Commands()...)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "undertone:", strings.ReplaceAll(err.Error(), "\n", " | "))
	status := 1
	var withStatus interface{ ExitStatus() int }
	if errors.As(err, &withStatus) {
		status = withStatus.ExitStatus()
	}
	os.Exit(status)
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
