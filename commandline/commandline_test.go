package commandline_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"testing"

	"github.com/spf13/cobra"

	"github.com/undertone-fl/undertone/commandline"
)

func TestPanicIsOneLine(t *testing.T) {
	root := &cobra.Command{Use: "undertone"}
	root.AddCommand(&cobra.Command{Use: "explode", Run: func(*cobra.Command, []string) { panic("first\nsecond") }})
	t.Setenv("GOTRACEBACK", "")
	os.Unsetenv("GOTRACEBACK")
	var stderr bytes.Buffer
	if status := commandline.Run(root, []string{"explode"}, &stderr); status != commandline.Failed {
		t.Errorf("status %d, want %d", status, commandline.Failed)
	}
	if got, want := stderr.String(), "undertone: internal error: first second (GOTRACEBACK=all shows where)\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestPanicOfAWorkerIsOneLine: one that another goroutine recovered brings its
// stack along, which is not for users.
func TestPanicOfAWorkerIsOneLine(t *testing.T) {
	root := &cobra.Command{Use: "undertone"}
	root.AddCommand(&cobra.Command{Use: "explode", Run: func(*cobra.Command, []string) {
		panic(fmt.Errorf("boom\n%s", debug.Stack()))
	}})
	t.Setenv("GOTRACEBACK", "")
	os.Unsetenv("GOTRACEBACK")
	var stderr bytes.Buffer
	commandline.Run(root, []string{"explode"}, &stderr)
	if got, want := stderr.String(), "undertone: internal error: boom (GOTRACEBACK=all shows where)\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPanicIsShownOnRequest(t *testing.T) {
	root := &cobra.Command{Use: "undertone"}
	root.AddCommand(&cobra.Command{Use: "explode", Run: func(*cobra.Command, []string) { panic("boom") }})
	t.Setenv("GOTRACEBACK", "all")
	defer func() {
		if p := recover(); p != "boom" {
			t.Errorf("recovered %v, want the panic itself", p)
		}
	}()
	commandline.Run(root, []string{"explode"}, &bytes.Buffer{})
	t.Error("the panic was swallowed")
}

func TestFailureIsOneLine(t *testing.T) {
	root := &cobra.Command{Use: "undertone"}
	root.AddCommand(&cobra.Command{Use: "fail", RunE: func(*cobra.Command, []string) error { return errors.New("disk full") }})
	var stderr bytes.Buffer
	if status := commandline.Run(root, []string{"fail"}, &stderr); status != commandline.Failed {
		t.Errorf("status %d, want %d", status, commandline.Failed)
	}
	if got := stderr.String(); got != "undertone: disk full\n" {
		t.Errorf("got %q", got)
	}
}
