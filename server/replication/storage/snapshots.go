package storage

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	snapshotDir = "snapshots" // raft.FileSnapshotStore's, below its base
	tmpSuffix   = ".tmp"
	metaFile    = "meta.json"
	sumFile     = "meta.sum"
	// retain is one snapshot to use, and the one before it for an operator.
	retain = 2
)

// busy are errors of a snapshot's files that end: too many others are open. The
// log is whole without the snapshot, and raft makes another one.
var busy = []error{syscall.EMFILE, syscall.ENFILE}

// Snapshots are hashicorp's FileSnapshotStore, with a checksum of its meta.json:
// the index, term and membership of a snapshot, which it does not protect.
type Snapshots struct {
	files *raft.FileSnapshotStore
	dir   string
	guard *guard
}

var _ raft.SnapshotStore = (*Snapshots)(nil)

func openSnapshots(base string, g *guard, logger hclog.Logger) (*Snapshots, error) {
	files, err := raft.NewFileSnapshotStoreWithLogger(base, retain, logger)
	if err != nil {
		return nil, err
	}
	s := &Snapshots{files: files, dir: filepath.Join(base, snapshotDir), guard: g}
	return s, s.clean()
}

// clean removes what a crash left half written, and fails if a finished
// snapshot's meta.json was damaged: FileSnapshotStore would pass over it and go
// back to an older one, whose log is gone.
func (s *Snapshots) clean() error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), tmpSuffix) {
			if err := os.RemoveAll(filepath.Join(s.dir, e.Name())); err != nil {
				return err
			}
			continue
		}
		if !e.IsDir() {
			continue
		}
		if err := s.check(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// check compares a meta.json with its checksum. One without a checksum was
// finished just before a crash, and has to be read without.
func (s *Snapshots) check(id string) error {
	meta, err := os.ReadFile(filepath.Join(s.dir, id, metaFile))
	if err != nil {
		return err
	}
	sum, err := os.ReadFile(filepath.Join(s.dir, id, sumFile))
	if errors.Is(err, os.ErrNotExist) {
		sum, err = checksum(meta), nil
	}
	if err != nil {
		return err
	}
	if !json.Valid(meta) || !bytes.Equal(bytes.TrimSpace(sum), checksum(meta)) {
		return fmt.Errorf("%s: %w", filepath.Join(s.dir, id, metaFile), ErrCorrupt)
	}
	return nil
}

func checksum(b []byte) []byte {
	sum := sha256.Sum256(b)
	return hex.AppendEncode(nil, sum[:])
}

// List returns the snapshots, the latest first.
func (s *Snapshots) List() ([]*raft.SnapshotMeta, error) { return s.files.List() }

// Open opens a snapshot whose bytes are those that were written. A damaged one
// is fatal: there may be no log to make up for it.
func (s *Snapshots) Open(id string) (meta *raft.SnapshotMeta, r io.ReadCloser, err error) {
	err = s.guard.do(Read, func() error {
		meta, r, err = s.open(id)
		return err
	}, append(busy[:len(busy):len(busy)], os.ErrNotExist)...) // or reaped meanwhile
	return meta, r, err
}

func (s *Snapshots) open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if err := s.check(id); err != nil {
		return nil, nil, err
	}
	meta, r, err := s.files.Open(id)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%s: %w", filepath.Join(s.dir, id), err)
	}
	return meta, r, err
}

// Latest opens the latest snapshot, if there is one. Unlike Open it may be
// called before the node runs: what is wrong with the snapshot is an error.
func (s *Snapshots) Latest() (*raft.SnapshotMeta, io.ReadCloser, error) {
	list, err := s.files.List()
	if err != nil || len(list) == 0 {
		return nil, nil, err
	}
	return s.open(list[0].ID)
}

// Create begins a snapshot.
func (s *Snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, t raft.Transport) (sink raft.SnapshotSink, err error) {
	err = s.guard.do(Snapshot, func() error {
		sink, err = s.files.Create(version, index, term, configuration, configurationIndex, t)
		return err
	}, busy...)
	return &snapshotSink{SnapshotSink: sink, store: s}, err
}

type snapshotSink struct {
	raft.SnapshotSink
	store *Snapshots
}

func (k *snapshotSink) Write(b []byte) (n int, err error) {
	err = k.store.guard.do(Snapshot, func() error {
		n, err = k.SnapshotSink.Write(b)
		return err
	})
	return n, err
}

func (k *snapshotSink) Close() error {
	return k.store.guard.do(Snapshot, func() error {
		if err := k.SnapshotSink.Close(); err != nil {
			return err
		}
		dir := filepath.Join(k.store.dir, k.ID())
		meta, err := os.ReadFile(filepath.Join(dir, metaFile))
		if err != nil {
			return err
		}
		return writeFile(filepath.Join(dir, sumFile), append(checksum(meta), '\n'))
	}, busy...)
}
