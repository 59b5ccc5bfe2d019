package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
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

func TestPanicIsOneLine(t *testing.T) {
	root := newRoot()
	root.AddCommand(&cobra.Command{Use: "explode", Run: func(*cobra.Command, []string) { panic("first\nsecond") }})
	t.Setenv("GOTRACEBACK", "")
	os.Unsetenv("GOTRACEBACK")
	var stderr bytes.Buffer
	if status := run(root, []string{"explode"}, &stderr); status != statusFailed {
		t.Errorf("status %d, want %d", status, statusFailed)
	}
	if got, want := stderr.String(), "undertone: internal error: first second (GOTRACEBACK=all shows where)\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestPanicOfAWorkerIsOneLine: one that another goroutine recovered brings its
// stack along, which is not for users.
func TestPanicOfAWorkerIsOneLine(t *testing.T) {
	root := newRoot()
	root.AddCommand(&cobra.Command{Use: "explode", Run: func(*cobra.Command, []string) {
		panic(fmt.Errorf("boom\n%s", debug.Stack()))
	}})
	t.Setenv("GOTRACEBACK", "")
	os.Unsetenv("GOTRACEBACK")
	var stderr bytes.Buffer
	run(root, []string{"explode"}, &stderr)
	if got, want := stderr.String(), "undertone: internal error: boom (GOTRACEBACK=all shows where)\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPanicIsShownOnRequest(t *testing.T) {
	root := newRoot()
	root.AddCommand(&cobra.Command{Use: "explode", Run: func(*cobra.Command, []string) { panic("boom") }})
	t.Setenv("GOTRACEBACK", "all")
	defer func() {
		if p := recover(); p != "boom" {
			t.Errorf("recovered %v, want the panic itself", p)
		}
	}()
	run(root, []string{"explode"}, &bytes.Buffer{})
	t.Error("the panic was swallowed")
}

func TestFailureIsOneLine(t *testing.T) {
	root := newRoot()
	root.AddCommand(&cobra.Command{Use: "fail", RunE: func(*cobra.Command, []string) error { return errors.New("disk full") }})
	var stderr bytes.Buffer
	if status := run(root, []string{"fail"}, &stderr); status != statusFailed {
		t.Errorf("status %d, want %d", status, statusFailed)
	}
	if got := stderr.String(); got != "undertone: disk full\n" {
		t.Errorf("got %q", got)
	}
}

// TestNoUsageDump: whatever is wrong with the command line is one line and
// status 2, also before a subcommand is known.
func TestNoUsageDump(t *testing.T) {
	for _, line := range []string{
		"simulat", "nothing-like-it", "--nope", "-n", "simulate extra", "simulate --nope", "simulate -n 3",
		"simulate --seeds", "simulate --seeds x", "simulate --seed -1", "simulate --quiet=perhaps", "simulate --delta e",
		"version --nope",
	} {
		var stderr bytes.Buffer
		if status := run(newRoot(), strings.Fields(line), &stderr); status != statusUsage {
			t.Errorf("%s: status %d, want %d", line, status, statusUsage)
		}
		if got := stderr.String(); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "undertone: ") {
			t.Errorf("%s: got %q, want one line", line, got)
		}
	}
}
