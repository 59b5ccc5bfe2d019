package simulations

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// A journal makes an experiment resumable. It is two files in Options.Dir:
// journal.jsonl, whose first line is the Config and each further one a
// finished Run, and checkpoint.json, the state of the run in progress after
// its last release. RemoveJournal deletes both. A line that a crash cut short
// is dropped. A lock file beside them, which stays, keeps a second process out.
type journal struct {
	dir   string
	lock  *flock.Flock
	file  *os.File
	runs  []Run
	saved *checkpoint
}

// checkpoint is where a run stands. Its file holds the CRC-32C of the JSON on
// a line of its own, then the JSON; one that does not fit is as good as none.
type checkpoint struct {
	Unit    int           `json:"unit"`
	Seconds float64       `json:"seconds"`
	At      progressState `json:"at"`
}

const (
	journalName    = "journal.jsonl"
	checkpointName = "checkpoint.json"
	lockName       = ".undertone.lock" // held while an experiment runs
)

func openJournal(cfg *Config, opts Options) (*journal, error) {
	j := &journal{dir: opts.Dir}
	if j.dir == "" {
		return j, nil
	}
	if err := os.MkdirAll(j.dir, 0o777); err != nil {
		return nil, err
	}
	j.lock = flock.New(filepath.Join(j.dir, lockName))
	if held, err := j.lock.TryLock(); err != nil {
		return nil, err
	} else if !held {
		return nil, fmt.Errorf("%s: %w", j.dir, ErrInUse)
	}
	opened := false
	defer func() {
		if !opened {
			j.close()
		}
	}()
	path := filepath.Join(j.dir, journalName)
	head, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	old, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && opts.Resume:
		return nil, fmt.Errorf("%w in %s", ErrNothingToResume, j.dir)
	case err == nil && !opts.Resume:
		return nil, fmt.Errorf("%s: %w", j.dir, ErrUnfinished)
	case err == nil:
		if err := j.load(old, head); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	// The file is written anew, so that a torn last line is gone from it.
	if j.file, err = os.Create(path + ".new"); err != nil {
		return nil, err
	}
	if err := j.line(head); err != nil {
		return nil, err
	}
	for _, r := range j.runs {
		if err := j.write(r); err != nil {
			return nil, err
		}
	}
	if err := os.Rename(path+".new", path); err != nil {
		return nil, err
	}
	opened = true
	return j, nil
}

func (j *journal) load(old, head []byte) error {
	lines := bufio.NewScanner(bytes.NewReader(old))
	lines.Buffer(nil, len(old)+1)
	if !lines.Scan() || !bytes.Equal(lines.Bytes(), head) {
		return fmt.Errorf("%s: %w", j.dir, ErrOtherExperiment)
	}
	for lines.Scan() {
		var r Run
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			break
		}
		j.runs = append(j.runs, r)
	}
	b, err := os.ReadFile(filepath.Join(j.dir, checkpointName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	sum, body, _ := bytes.Cut(b, []byte("\n"))
	var c checkpoint
	if string(sum) == checksum(body) && json.Unmarshal(body, &c) == nil {
		j.saved = &c
	}
	return nil
}

// finished returns the unit's run if the journal has it.
func (j *journal) finished(u *unit) (Run, bool) {
	for _, r := range j.runs {
		if r.Method == u.method && r.Epsilon == u.epsilon && r.Seed == u.seed {
			return r, true
		}
	}
	return Run{}, false
}

// checksum is the CRC-32C of b in hexadecimal.
func checksum(b []byte) string {
	return fmt.Sprintf("%08x", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// checkpoint returns where the unit of that index was stopped, and the time
// spent on it; nil if it had not begun, or had by another plan.
func (j *journal) checkpoint(unit int, u *unit) (*progressState, time.Duration) {
	if j.saved == nil || j.saved.Unit != unit || u.plan == nil {
		return nil, 0
	}
	at := &j.saved.At
	if at.State == nil || at.State.Config != u.plan.Config || at.State.Step != len(at.Rounds) || at.State.Step > len(u.plan.Phases()) {
		return nil, 0
	}
	return &j.saved.At, time.Duration(j.saved.Seconds * float64(time.Second))
}

// save replaces the checkpoint.
func (j *journal) save(unit int, at progressState, spent time.Duration) error {
	if j.dir == "" {
		return nil
	}
	b, err := json.Marshal(checkpoint{unit, spent.Seconds(), at})
	if err != nil {
		return err
	}
	b = append([]byte(checksum(b)+"\n"), b...)
	path := filepath.Join(j.dir, checkpointName)
	if err := os.WriteFile(path+".new", b, 0o666); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// append records a finished run.
func (j *journal) append(r Run) error {
	if j.dir == "" {
		return nil
	}
	return j.write(r)
}

func (j *journal) write(r Run) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return j.line(b)
}

func (j *journal) line(b []byte) error {
	_, err := j.file.Write(append(b, '\n'))
	return err
}

func (j *journal) close() {
	if j.file != nil {
		j.file.Close()
	}
	if j.lock != nil {
		j.lock.Unlock()
	}
}

// RemoveJournal deletes what Simulate left in a directory, once the result has
// been kept elsewhere.
func RemoveJournal(dir string) error {
	for _, name := range []string{checkpointName, journalName} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
