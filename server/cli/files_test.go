package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/undertone-fl/undertone/commandline"
)

// An error about a draft names the file that the user named; a full disk is not the
// user's mistake.
func TestProblemAt(t *testing.T) {
	for _, test := range []struct {
		err   error
		want  string
		usage bool
	}{
		{&fs.PathError{Op: "open", Path: ".new-123", Err: syscall.ENOENT}, "out/x: no such file or directory", true},
		{&os.LinkError{Op: "rename", Old: ".new-123", New: "y", Err: syscall.EACCES}, "out/x: permission denied", true},
		{&fs.PathError{Op: "write", Path: ".new-123", Err: syscall.ENOSPC}, "out/x: no space left on device", false},
		{errors.New("other"), "out/x: other", true},
	} {
		err := problemAt("out/x", test.err)
		if err.Error() != test.want && os.PathSeparator == '/' {
			t.Errorf("%q, want %q", err, test.want)
		}
		if usage := (*commandline.UsageError)(nil); errors.As(err, &usage) != test.usage {
			t.Errorf("%v: a user's mistake: %v", err, !test.usage)
		}
	}
	if problemAt("x", nil) != nil {
		t.Error("no error is one")
	}
}

// A file is written where a link leads; what is no file is left alone, and so is what was
// there if the draft fails.
func TestWriteAtomically(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for link, to := range map[string]string{"absolute": at("one"), "relative": "two"} {
		if err := os.Symlink(to, at(link)); err != nil {
			t.Skip(err)
		}
		for _, text := range []string{"first", "second"} { // it is not there yet, and then it is
			if err := writeAtomically(at(link), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if info, err := os.Lstat(at(link)); err != nil || info.Mode()&fs.ModeSymlink == 0 {
				t.Errorf("%s is no link any more", link)
			}
			if got, err := os.ReadFile(at(link)); err != nil || string(got) != text {
				t.Errorf("%q, %v", got, err)
			}
		}
	}
	if err := writeAtomically(dir, nil, 0o600); err == nil {
		t.Error("a directory is replaced")
	}
	failed := errors.New("failed")
	if err := draftOf(at("one"), 0o600, func(d draft) error { return failed }); err != failed {
		t.Error(err)
	}
	if got, _ := os.ReadFile(at("one")); string(got) != "second" {
		t.Errorf("a draft that failed leaves %q", got)
	}
	if left, _ := filepath.Glob(at(".new-*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
