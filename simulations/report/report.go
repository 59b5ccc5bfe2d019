// Package report turns the result of an experiment into files that people
// and programs read: result.json (FORMAT.md describes it), figures as SVG and
// PNG, and report.html, which holds everything in one file and asks the
// network for nothing.
//
// What a report says in words is computed from its numbers. The same result
// always gives the same bytes.
package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/undertone-fl/undertone/simulations"
)

// Names of the files that [Write] leaves in its directory, beside the figures.
const (
	ResultFile = "result.json"
	HTMLFile   = "report.html"
)

// ErrVersion says that a result.json is of a version that this program does
// not read.
var ErrVersion = errors.New("result.json is of another version")

// Write leaves a report of res in dir: result.json first, then the figures
// and report.html. Every file replaces its predecessor in one step.
// Command is what repeats the experiment; the report shows it.
func Write(dir string, res *simulations.Result, command string) error {
	var document bytes.Buffer
	if err := Encode(&document, res); err != nil {
		return err
	}
	if err := replace(dir, ResultFile, document.Bytes()); err != nil {
		return err
	}
	figures := newFigures(res)
	for _, f := range figures {
		png, err := f.PNG()
		if err != nil {
			return fmt.Errorf("%s.png: %w", f.Name, err)
		}
		if err := replace(dir, f.Name+".png", png); err != nil {
			return err
		}
		svg, err := f.SVG()
		if err != nil {
			return fmt.Errorf("%s.svg: %w", f.Name, err)
		}
		if err := replace(dir, f.Name+".svg", svg); err != nil {
			return err
		}
	}
	page, err := renderHTML(res, figures, command)
	if err != nil {
		return fmt.Errorf("%s: %w", HTMLFile, err)
	}
	return replace(dir, HTMLFile, page)
}

// Encode writes res in the format of result.json.
func Encode(w io.Writer, res *simulations.Result) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	return enc.Encode(res)
}

// Decode reads what [Encode] writes. A version that it does not know is an
// error that wraps [ErrVersion].
func Decode(r io.Reader) (*simulations.Result, error) {
	var res simulations.Result
	if err := json.NewDecoder(r).Decode(&res); err != nil {
		return nil, err
	}
	if res.Version != simulations.ResultVersion {
		return nil, fmt.Errorf("%w: %d, not %d", ErrVersion, res.Version, simulations.ResultVersion)
	}
	return &res, nil
}

// replace writes a file so that a reader, or a crash, finds the old content or
// the new one and nothing between.
func replace(dir, name string, content []byte) (err error) {
	tmp, err := os.CreateTemp(dir, "."+name+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			tmp.Close()
			os.Remove(tmp.Name())
		}
	}()
	if _, err = tmp.Write(content); err != nil {
		return err
	}
	if err = tmp.Chmod(fs.FileMode(0o644)); err != nil {
		return err
	}
	if err = tmp.Sync(); err != nil {
		return err
	}
	if err = tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), filepath.Join(dir, name))
}
