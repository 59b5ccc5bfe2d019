package storage

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// segmentSize bounds what the log keeps beyond its first entry, as whole
// segments are deleted, and is what an empty node takes on the disk.
const segmentSize = 16 << 20

// closedAt is where a log that was closed in good order ended.
var closedAt = []byte("undertone-closed-at")

// Log is the log, and the term and the vote, of one node.
type Log struct {
	wal   *wal.WAL
	guard *guard
	// appended counts bytes of entries since the node started.
	appended atomic.Uint64
}

var (
	_ raft.LogStore          = (*Log)(nil)
	_ raft.StableStore       = (*Log)(nil)
	_ raft.MonotonicLogStore = (*Log)(nil)
)

// openLog opens the log in a directory and reads every entry once, so that a
// damaged one is found before it is needed.
func openLog(dir string, g *guard, logger hclog.Logger) (l *Log, err error) {
	meta := &metaStore{}
	defer func() {
		// bbolt meets a damaged page with a panic.
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: damaged: %v", filepath.Join(dir, metadb.FileName), p)
		}
		if err != nil {
			meta.Close()
			l = nil
		}
	}()
	w, err := wal.Open(dir,
		wal.WithCodec(codec{}),
		wal.WithSegmentFiler(filer{segment.NewFiler(dir, fs.New())}),
		wal.WithMetaStore(meta),
		wal.WithSegmentSize(segmentSize),
		wal.WithLogger(logger))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if err := verify(dir, w); err != nil {
		w.Close()
		return nil, err
	}
	return &Log{wal: w, guard: g}, nil
}

func verify(dir string, w *wal.WAL) error {
	first, err := w.FirstIndex()
	if err != nil {
		return err
	}
	last, err := w.LastIndex()
	if err != nil {
		return err
	}
	b, err := w.Get(closedAt)
	if err != nil {
		return err
	}
	// raft-wal takes a damaged last batch for one that a crash tore, and drops it.
	// After a shutdown in good order nothing is torn.
	if len(b) == 8 && binary.LittleEndian.Uint64(b) > last {
		return fmt.Errorf("%s: damaged: it ends at entry %d, and was closed at %d", dir, last, binary.LittleEndian.Uint64(b))
	}
	var e raft.Log
	for i := first; i != 0 && i <= last; i++ {
		if err := w.GetLog(i, &e); err != nil {
			return fmt.Errorf("%s: entry %d: %w", dir, i, err)
		}
		if e.Index != i {
			return fmt.Errorf("%s: entry %d: %w", dir, i, ErrCorrupt)
		}
	}
	return w.Set(closedAt, nil)
}

func (l *Log) close() error {
	last, err := l.wal.LastIndex()
	if err != nil {
		return err
	}
	if err := l.wal.Set(closedAt, binary.LittleEndian.AppendUint64(nil, last)); err != nil {
		return err
	}
	return l.wal.Close()
}

// Appended is the number of bytes of entries appended since the node started.
func (l *Log) Appended() uint64 { return l.appended.Load() }

// IsMonotonic says that indices follow one another without gaps.
func (l *Log) IsMonotonic() bool { return true }

func (l *Log) FirstIndex() (uint64, error) { return l.wal.FirstIndex() }
func (l *Log) LastIndex() (uint64, error)  { return l.wal.LastIndex() }

func (l *Log) GetLog(index uint64, e *raft.Log) error {
	return l.guard.do(Read, func() error {
		if err := l.wal.GetLog(index, e); err != nil {
			return err
		}
		if e.Index != index {
			return fmt.Errorf("entry %d: %w", index, ErrCorrupt)
		}
		return nil
	}, raft.ErrLogNotFound, wal.ErrClosed)
}

func (l *Log) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

func (l *Log) StoreLogs(entries []*raft.Log) error {
	n := 0
	for _, e := range entries {
		n += headerSize + len(e.Data) + len(e.Extensions)
	}
	l.appended.Add(uint64(n))
	return l.guard.do(Append, func() error { return l.wal.StoreLogs(entries) }, wal.ErrClosed)
}

func (l *Log) DeleteRange(first, last uint64) error {
	return l.guard.do(Truncate, func() error { return l.wal.DeleteRange(first, last) }, wal.ErrClosed)
}

func (l *Log) Set(key, value []byte) error {
	return l.guard.do(Stable, func() error { return l.wal.Set(key, value) }, wal.ErrClosed)
}

func (l *Log) Get(key []byte) (value []byte, err error) {
	err = l.guard.do(Read, func() error {
		value, err = l.wal.Get(key)
		return err
	}, wal.ErrClosed)
	return value, err
}

func (l *Log) SetUint64(key []byte, value uint64) error {
	return l.guard.do(Stable, func() error { return l.wal.SetUint64(key, value) }, wal.ErrClosed)
}

func (l *Log) GetUint64(key []byte) (value uint64, err error) {
	err = l.guard.do(Read, func() error {
		value, err = l.wal.GetUint64(key)
		return err
	}, wal.ErrClosed)
	return value, err
}

// raft-wal v0.4 marks every new segment as written by its own codec, and then
// refuses to open the log with another (hashicorp/raft-wal pull request 20).
// filer and metaStore put the mark right on its way to the disk.

type filer struct{ types.SegmentFiler }

func (f filer) Create(s types.SegmentInfo) (types.SegmentWriter, error) {
	s.Codec = codecID
	return f.SegmentFiler.Create(s)
}

type metaStore struct{ metadb.BoltMetaDB }

func (m *metaStore) CommitState(s types.PersistentState) error {
	for i := range s.Segments {
		s.Segments[i].Codec = codecID
	}
	return m.BoltMetaDB.CommitState(s)
}
