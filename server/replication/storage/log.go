package storage

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"runtime/debug"
	"slices"
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
func openLog(dir string, segmentSize int, g *guard, logger hclog.Logger) (l *Log, err error) {
	meta := &metaStore{}
	// bbolt meets a damaged page with a panic, or reads beyond its file.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
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
	l = &Log{wal: w, guard: g}
	if err := l.verify(); err != nil {
		w.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return l, nil
}

func (l *Log) verify() error {
	first, err := l.wal.FirstIndex()
	if err != nil {
		return err
	}
	last, err := l.wal.LastIndex()
	if err != nil {
		return err
	}
	b, err := l.get(closedAt)
	if err != nil {
		return err
	}
	// raft-wal takes a damaged last batch for one that a crash tore, and drops it.
	// After a shutdown in good order nothing is torn.
	if b != nil && string(b) != string(binary.LittleEndian.AppendUint64(nil, last)) {
		return fmt.Errorf("it ends at entry %d, where it was not closed: %w", last, ErrCorrupt)
	}
	var e raft.Log
	for i := first; i != 0 && i <= last; i++ {
		if err := l.read(i, &e); err != nil {
			return err
		}
	}
	return l.wal.Set(closedAt, nil)
}

func (l *Log) close() error {
	last, err := l.wal.LastIndex()
	if err != nil {
		return err
	}
	if err := l.set(closedAt, binary.LittleEndian.AppendUint64(nil, last)); err != nil {
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
	return l.guard.do(Read, func() error { return l.read(index, e) }, raft.ErrLogNotFound, wal.ErrClosed)
}

func (l *Log) read(index uint64, e *raft.Log) error {
	err := l.wal.GetLog(index, e)
	if err == nil && e.Index != index {
		err = ErrCorrupt
	}
	if err == raft.ErrLogNotFound {
		return err // raft compares
	}
	if err != nil {
		return fmt.Errorf("entry %d: %w", index, err)
	}
	return nil
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

// Set stores a small value with a checksum of key and value, of which bbolt has
// none.
func (l *Log) Set(key, value []byte) error {
	return l.guard.do(Stable, func() error { return l.set(key, value) }, wal.ErrClosed)
}

// Get returns a value, nil if there is none.
func (l *Log) Get(key []byte) (value []byte, err error) {
	err = l.guard.do(Read, func() error {
		value, err = l.get(key)
		return err
	}, wal.ErrClosed)
	return value, err
}

func (l *Log) set(key, value []byte) error {
	return l.wal.Set(key, binary.LittleEndian.AppendUint32(slices.Clip(value), sumOf(key, value)))
}

func (l *Log) get(key []byte) ([]byte, error) {
	b, err := l.wal.Get(key)
	if err != nil || b == nil {
		return nil, err
	}
	n := len(b) - 4
	if n < 0 || binary.LittleEndian.Uint32(b[n:]) != sumOf(key, b[:n]) {
		return nil, fmt.Errorf("%s: %w", key, ErrCorrupt)
	}
	return b[:n], nil
}

func sumOf(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// SetUint64 is Set with a number.
func (l *Log) SetUint64(key []byte, value uint64) error {
	return l.Set(key, binary.LittleEndian.AppendUint64(nil, value))
}

// GetUint64 is Get of a number, 0 if there is none.
func (l *Log) GetUint64(key []byte) (uint64, error) {
	b, err := l.Get(key)
	if err != nil || b == nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("%s is not a number", key)
	}
	return binary.LittleEndian.Uint64(b), nil
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
