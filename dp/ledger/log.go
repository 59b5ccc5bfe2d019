package ledger

import (
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// Log is an append-only list of records with their Merkle tree. It serves one
// goroutine at a time; a Clip may be read while the log goes on.
type Log struct {
	records [][]byte
	hashes  hashes // of the tree, in tlog's order of storage
	last    int64  // the latest record's time
}

// hashes of a tree are where tlog.StoredHashIndex says.
type hashes []tlog.Hash

// ReadHashes implements tlog.HashReader.
func (h hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x < 0 || x >= int64(len(h)) {
			return nil, fmt.Errorf("ledger: no hash %d", x)
		}
		out[i] = h[x]
	}
	return out, nil
}

// Append writes an entry's record at the end, and returns it with its index, from 0.
// at is the time, in milliseconds since 1970, of somebody's clock: an earlier one than
// the last record's is taken for that.
func (l *Log) Append(e Entry, at int64) (index int64, record []byte) {
	e.stamp().Time = max(at, l.last)
	record = Encode(e)
	l.append(record, e.stamp().Time)
	return l.Size() - 1, record
}

func (l *Log) append(record []byte, at int64) {
	added, err := tlog.StoredHashes(l.Size(), record, l.hashes)
	if err != nil {
		panic(err) // every hash is there
	}
	l.records = append(l.records, record)
	l.hashes = append(l.hashes, added...)
	l.last = at
}

// Restore returns the log of records, in order. Fails with ErrEntry, and the number of
// the record. It reads what a Log wrote; that it is a true history is for Verify.
func Restore(records [][]byte) (*Log, error) {
	all := decodeAll(records)
	l := &Log{records: slices.Clone(records), hashes: treeOf(all)}
	for i, d := range all {
		if d.err != nil {
			return nil, fmt.Errorf("record %d: %w", i, d.err)
		}
		l.last = d.entry.stamp().Time
	}
	return l, nil
}

// Size is the number of records.
func (l *Log) Size() int64 { return int64(len(l.records)) }

// Records returns all records, which never change.
func (l *Log) Records() [][]byte { return slices.Clip(l.records) }

// Clip returns the log as it is now, to be read while l goes on.
func (l *Log) Clip() *Log { return &Log{slices.Clip(l.records), slices.Clip(l.hashes), l.last} }

// Root is the hash of the tree of the first size records.
func (l *Log) Root(size int64) (Digest, error) {
	h, err := tlog.TreeHash(size, l.hashes)
	return Digest(h), err
}

// Proof is a list of hashes.
type Proof []Digest

// Inclusion proves that record index is one of the first size.
func (l *Log) Inclusion(index, size int64) (Proof, error) {
	if size > l.Size() {
		return nil, fmt.Errorf("ledger: %d records, of %d", size, l.Size())
	}
	p, err := tlog.ProveRecord(size, index, l.hashes)
	return proofOf(p), err
}

// Consistency proves that the first old records are a prefix of the first size.
func (l *Log) Consistency(old, size int64) (Proof, error) {
	if old == 0 || old == size {
		return nil, nil
	}
	if size > l.Size() {
		return nil, fmt.Errorf("ledger: %d records, of %d", size, l.Size())
	}
	p, err := tlog.ProveTree(size, old, l.hashes)
	return proofOf(p), err
}

func proofOf(hashes []tlog.Hash) Proof {
	p := make(Proof, len(hashes))
	for i, h := range hashes {
		p[i] = Digest(h)
	}
	return p
}

func (p Proof) hashes() []tlog.Hash {
	out := make([]tlog.Hash, len(p))
	for i, d := range p {
		out[i] = tlog.Hash(d)
	}
	return out
}
