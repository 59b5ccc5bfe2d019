package ledger

import (
	"errors"
	"io"
)

// Bundle is a log to be verified elsewhere: what its file holds (FORMAT.md).
type Bundle struct {
	Checkpoint []byte   // signed, of all records
	Records    [][]byte // in order
	// Specifications are the documents that JobCreated names, by their digests.
	Specifications map[Digest][]byte
}

// ErrBundle says that a file is no bundle, or a damaged one.
var ErrBundle = errors.New("ledger: no ledger bundle")

// WriteBundle writes a bundle's file.
func WriteBundle(w io.Writer, b *Bundle) error { panic("ledger: to be built") }

// ReadBundle reads a bundle's file of so many bytes. It is read, and not verified. Fails
// with ErrBundle.
func ReadBundle(r io.ReaderAt, size int64) (*Bundle, error) { panic("ledger: to be built") }
