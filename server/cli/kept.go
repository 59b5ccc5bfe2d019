package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/undertone-fl/undertone/dp/ledger"
)

// memory is what an auditor kept of a ledger: the last checkpoint that was verified, in
// a file for each key that ever signed the ledger. So it is found by whichever of them
// the auditor trusts, before and after a rotation.
type memory struct {
	paths     []string // of the trusted key first; none if nothing is kept
	kept      []kept   // in them
	strangers []string
}

// kept is a checkpoint that was, and when.
type kept struct {
	ledger.Checkpoint
	at time.Time
}

// recall reads what was kept of the ledger that has these records. Those keys are the
// records' own word until they are verified: that they chose a file is harmless, as its
// checkpoint only adds to what must hold.
func (a *auditor) recall(trusted note.Verifier, records [][]byte) (*memory, error) {
	m := new(memory)
	switch a.seen {
	case noneSeen:
		return m, nil
	case "":
		dir, err := os.UserConfigDir()
		if err != nil {
			return nil, flagf("seen", "there is no place for the checkpoint (%w): name a file, or none", err)
		}
		dir = filepath.Join(dir, "undertone", "ledgers")
		m.paths = keptUnder(dir, trusted, records)
		all, err := filepath.Glob(filepath.Join(dir, url.PathEscape(trusted.Name())+"+????????"))
		if err != nil {
			return nil, err
		}
		m.strangers = slices.DeleteFunc(all, func(path string) bool { return slices.Contains(m.paths, path) })
	default:
		if err := mustNotBeDash("seen", a.seen); err != nil {
			return nil, err
		}
		// A file in a directory that is not there is a name that was mistyped, and would
		// begin anew what it was to go on with.
		if _, err := os.Stat(filepath.Dir(a.seen)); err != nil {
			return nil, flagf("seen", "%s: the directory of the file: %w", a.seen, pathProblem(err))
		}
		m.paths = []string{a.seen}
	}
	for _, path := range m.paths {
		c, err := readKept(path)
		if err != nil && a.seen != "" {
			return nil, fmt.Errorf("--seen: %w", err)
		}
		if err != nil {
			return nil, err
		}
		m.kept = append(m.kept, c)
	}
	return m, nil
}

// keptUnder are the files of the trusted key, and of the others that the records name.
func keptUnder(dir string, trusted note.Verifier, records [][]byte) []string {
	var paths []string
	add := func(key note.Verifier) {
		path := filepath.Join(dir, fmt.Sprintf("%s+%08x", url.PathEscape(key.Name()), key.KeyHash()))
		if key.Name() == trusted.Name() && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	add(trusted)
	for _, record := range records {
		if !ledger.OfKind(record, (*ledger.Begun)(nil)) && !ledger.OfKind(record, (*ledger.KeyRotated)(nil)) {
			continue
		}
		entry, err := ledger.Decode(record)
		if err != nil {
			continue // for Verify to say
		}
		text := ""
		switch e := entry.(type) {
		case *ledger.Begun:
			text = e.Key
		case *ledger.KeyRotated:
			text = e.Key
		}
		if key, err := ledger.ParseKey(text); err == nil {
			add(key)
		}
	}
	return paths
}

// readKept reads a checkpoint that was kept; the zero one if there is no file. It was
// verified when it was kept, maybe with a key that a ledger which lost records does not
// know of.
func readKept(path string) (k kept, err error) {
	signed, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return k, nil
	case err != nil:
		return k, problemAt(path, err)
	}
	if k.Checkpoint, err = ledger.ReadCheckpoint(signed); err != nil {
		return k, usagef("%s: %w (--seen %s compares with none)", path, err, noneSeen)
	}
	if info, err := os.Stat(path); err == nil {
		k.at = info.ModTime()
	}
	return k, nil
}

// latest is the longest of what was kept; zero if nothing was.
func (m *memory) latest() (c kept) {
	for _, k := range m.kept {
		if k.Size > c.Size {
			c = k
		}
	}
	return c
}

// place is the file that the auditor is told of; empty if nothing is kept.
func (m *memory) place() string {
	if len(m.paths) == 0 {
		return ""
	}
	return m.paths[0]
}

// check holds records that extend the latest checkpoint against the others, which are as
// old or older.
func (m *memory) check(records [][]byte) error {
	latest := m.latest()
	older := slices.DeleteFunc(slices.Clone(m.kept), func(k kept) bool { return k.Size == 0 || k.Checkpoint == latest.Checkpoint })
	if len(older) == 0 {
		return nil
	}
	log, err := ledger.Restore(records)
	if err != nil {
		return err
	}
	for _, c := range older {
		if root, err := log.Root(c.Size); err != nil || root != c.Root {
			return fmt.Errorf("%w: the first %d records are not those of a checkpoint that was kept", ledger.ErrFork, c.Size)
		}
	}
	return nil
}

// keep puts a checkpoint that was verified in the place of what was kept.
func (m *memory) keep(c ledger.Checkpoint, signed []byte) error {
	for i, path := range m.paths {
		if m.kept[i].Checkpoint == c {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return problemAt(path, err)
		}
		if err := writeAtomically(path, signed, 0o644); err != nil {
			return err
		}
	}
	return nil
}
