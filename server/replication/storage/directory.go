// Package storage is a node's data directory: its log, its snapshots, and who
// it belongs to. FORMAT.md describes what is in it.
//
// What it promises: what was written is read back as it was written or not at
// all. Everything is checked once when the directory is opened, and again when
// it is read; a directory that is damaged, of a newer version, of another node
// or in use is refused in one line. While the node runs, an access that fails or
// hangs is fatal (Options.Fatal): a node whose disk is in doubt must not vote.
package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"
	"github.com/hashicorp/go-hclog"
)

// Version is the layout of the directories that are made, and the highest that
// is opened.
const Version = 1

const (
	versionFile  = "VERSION"
	lockFile     = "LOCK"
	divergedFile = "DIVERGED"
	logDir       = "log"
	probeFile    = "probe.tmp"
	// room is what a directory must have left: a segment of the log, and some
	// for a snapshot.
	room = segmentSize + 1<<20
)

// Errors of Open, inside an error that names the directory.
var (
	ErrNewer   = errors.New("made by a newer version of this program")
	ErrForeign = errors.New("belongs to another node")
	ErrInUse   = errors.New("in use by another process")
)

// Owner is the node that a directory belongs to.
type Owner struct {
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
}

// Options of Open.
type Options struct {
	Logger hclog.Logger
	// Fatal is told that the disk failed, and does not return.
	Fatal func(error)
	// Patience is how long an access to the disk may take: 10 s if zero.
	Patience time.Duration
	Fault    Fault
}

// Directory is an open data directory.
type Directory struct {
	Log       *Log
	Snapshots *Snapshots

	path  string
	owner Owner
	lock  *flock.Flock
	guard *guard
}

type versionRecord struct {
	Version int `json:"version"`
	Owner
}

// Open opens a data directory, or makes one for the owner. With the zero Owner
// it opens one of whatever node, and makes none.
func Open(path string, owner Owner, o Options) (_ *Directory, err error) {
	if owner != (Owner{}) {
		if err := os.MkdirAll(filepath.Join(path, logDir), 0o700); err != nil {
			return nil, err
		}
	} else if _, err := os.Stat(filepath.Join(path, versionFile)); err != nil {
		return nil, fmt.Errorf("%s: no data directory: %w", path, err)
	}
	d := &Directory{path: path, lock: flock.New(filepath.Join(path, lockFile))}
	locked, err := d.lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !locked {
		return nil, fmt.Errorf("%s: %w", path, ErrInUse)
	}
	defer func() {
		if err != nil {
			d.lock.Close()
		}
	}()
	if d.owner, err = claim(path, owner); err != nil {
		return nil, err
	}
	if err := probe(path); err != nil {
		return nil, err
	}
	if o.Patience == 0 {
		o.Patience = 10 * time.Second
	}
	d.guard = newGuard(o.Fault, o.Patience, o.Fatal)
	defer func() {
		if err != nil {
			d.guard.close()
		}
	}()
	if d.Snapshots, err = openSnapshots(path, d.guard, o.Logger); err != nil {
		return nil, err
	}
	if d.Log, err = openLog(filepath.Join(path, logDir), segmentSize, d.guard, o.Logger); err != nil {
		return nil, err
	}
	if err := d.complete(); err != nil {
		d.Log.wal.Close()
		return nil, err
	}
	return d, nil
}

// complete fails if entries are missing between the latest snapshot and the log.
func (d *Directory) complete() error {
	list, err := d.Snapshots.List()
	if err != nil {
		return err
	}
	var snapshot uint64
	if len(list) > 0 {
		snapshot = list[0].Index
	}
	if first, err := d.Log.FirstIndex(); err != nil || first > snapshot+1 {
		return errors.Join(err, fmt.Errorf("%s: damaged: the latest snapshot is of entry %d, and the log begins at %d", d.path, snapshot, first))
	}
	return nil
}

// Owner is whose directory it is.
func (d *Directory) Owner() Owner { return d.owner }

// Close ends a log in good order.
func (d *Directory) Close() error {
	d.guard.close()
	return errors.Join(d.Log.close(), d.lock.Close())
}

// Abandon gives the directory up as a crash does. Where an access hangs, the
// directory stays locked until it comes back, or the process ends.
func (d *Directory) Abandon() {
	d.guard.abandoned.Store(true)
	d.guard.close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Log.wal.Close()
		d.lock.Close()
	}()
	select {
	case <-done:
	case <-time.After(time.Second):
	}
}

// Diverged is why the node no longer serves, empty if it does.
func (d *Directory) Diverged() (string, error) {
	b, err := os.ReadFile(filepath.Join(d.path, divergedFile))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

// SetDiverged marks the directory: no node serves from it again.
func (d *Directory) SetDiverged(why string) error {
	return writeFile(filepath.Join(d.path, divergedFile), []byte(why))
}

// claim reads whose directory it is, or writes it.
func claim(path string, owner Owner) (Owner, error) {
	name := filepath.Join(path, versionFile)
	write := func() (Owner, error) {
		b, err := json.Marshal(versionRecord{Version, owner})
		if err != nil {
			return owner, err
		}
		return owner, writeFile(name, append(b, '\n'))
	}
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return write()
	}
	if err != nil {
		return owner, err
	}
	var v versionRecord
	if err := json.Unmarshal(b, &v); err != nil || v.Version < 1 {
		return owner, fmt.Errorf("%s: damaged", name)
	}
	switch {
	case v.Version > Version:
		return owner, fmt.Errorf("%s: %w (version %d, this one reads %d)", path, ErrNewer, v.Version, Version)
	case owner == (Owner{}) || v.Owner == owner:
		return v.Owner, nil
	case v.Owner == Owner{Node: owner.Node}: // restored from a backup, for whatever cluster comes first
		return write()
	default:
		return owner, fmt.Errorf("%s: %w: %q of cluster %q, not %q of %q",
			path, ErrForeign, v.Node, v.Cluster, owner.Node, owner.Cluster)
	}
}

// probe fails if the disk has no room to work with.
func probe(path string) error {
	name := filepath.Join(path, probeFile)
	defer os.Remove(name)
	if err := writeFile(name, make([]byte, room)); err != nil {
		return fmt.Errorf("%s: no room for %d MiB: %w", path, room>>20, err)
	}
	return nil
}

// writeFile writes a file so that after a crash it is there in full or not at
// all.
func writeFile(name string, b []byte) error {
	tmp := name + tmpSuffix
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err != nil {
		os.Remove(tmp)
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil // directories have no sync there
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
