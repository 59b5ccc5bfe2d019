package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/undertone-fl/undertone/commandline"
)

// dash in the place of a file is stdin or stdout.
const dash = "-"

// pathProblem leaves the system call out of an error about a path.
func pathProblem(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return fmt.Errorf("%s: %w", path.Path, path.Err)
	}
	return err
}

// problemAt is an error about a file in the terms of the path that the user named, whatever
// draft it was met at. Fails like blame.
func problemAt(path string, err error) error {
	var (
		of   *fs.PathError
		link *os.LinkError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &of):
		err = of.Err
	case errors.As(err, &link):
		err = link.Err
	}
	return blame(fmt.Errorf("%s: %w", path, err))
}

// blame makes an error about a file a *commandline.UsageError, unless it is the machine's
// trouble: a disk that is full or broken.
func blame(err error) error {
	for _, trouble := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO} {
		if errors.Is(err, trouble) {
			return err
		}
	}
	return &commandline.UsageError{Err: err}
}

// maxInput bounds what a person or a program writes for another one to read, in bytes.
const maxInput = 1 << 20

// readInput reads a file of at most maxInput, or stdin. Fails with a
// *commandline.UsageError.
func readInput(cmd *cobra.Command, path string) ([]byte, error) {
	return readUpTo(cmd, path, maxInput, func([]byte) error { return nil })
}

// readUpTo is readInput of at most so many bytes, whose first ones begins has nothing
// against: not all of a device that has no end is read.
func readUpTo(cmd *cobra.Command, path string, most int64, begins func(start []byte) error) ([]byte, error) {
	in := cmd.InOrStdin()
	if path != dash {
		f, err := os.Open(path)
		if err != nil {
			return nil, problemAt(path, err)
		}
		defer f.Close()
		in = f
	}
	r := bufio.NewReader(io.LimitReader(in, most+1))
	start, err := r.Peek(64)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, problemAt(path, err)
	}
	if err := begins(start); err != nil {
		return nil, problemAt(path, err)
	}
	text, err := io.ReadAll(r)
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("it is larger than %s", size(uint64(most)))
	}
	return text, problemAt(path, err)
}

// mustNotBeDash refuses stdin and stdout where there has to be a file.
func mustNotBeDash(flag, path string) error {
	if path == dash {
		return flagf(flag, "is the name of a file; - for stdin or stdout has no meaning here")
	}
	return nil
}

// destination is where a file is to be written: where a symbolic link leads, so that the
// link stays one.
func destination(path string) string {
	if to, err := filepath.EvalSymlinks(path); err == nil {
		return to
	}
	to, err := os.Readlink(path) // to a file that is not there yet
	switch {
	case err != nil:
		return path
	case filepath.IsAbs(to):
		return to
	}
	return filepath.Join(filepath.Dir(path), to)
}

// draft is a file that will be that of a path, in the terms of which its errors are.
type draft struct {
	*os.File
	path string
}

// empty takes back what was written.
func (d draft) empty() error {
	_, err := d.File.Seek(0, io.SeekStart)
	if err == nil {
		err = d.File.Truncate(0)
	}
	return problemAt(d.path, err)
}

func (d draft) Write(b []byte) (int, error) {
	n, err := d.File.Write(b)
	return n, problemAt(d.path, err)
}

// writeAtomically makes or replaces a file, all of it or nothing. Fails like problemAt.
func writeAtomically(path string, text []byte, mode fs.FileMode) error {
	return draftOf(path, mode, func(d draft) error {
		_, err := d.Write(text)
		return err
	})
}

// draftOf has write fill a draft, and puts that in the place of a file, which is as it was
// if write fails. Fails with write's error, or like problemAt.
func draftOf(path string, mode fs.FileMode, write func(d draft) error) error {
	to := destination(path)
	if info, err := os.Stat(to); err == nil && !info.Mode().IsRegular() {
		return usagef("%s: there is something else already, and nothing but a file is replaced", path)
	}
	f, err := os.CreateTemp(filepath.Dir(to), ".new-*")
	if err != nil {
		return problemAt(path, err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := write(draft{f, path}); err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return f.Chmod(mode) }, f.Sync, f.Close,
		func() error { return os.Rename(f.Name(), to) },
	} {
		if err := step(); err != nil {
			return problemAt(path, err)
		}
	}
	return nil
}
