package ledger

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Errors of checkpoints and proofs.
var (
	// ErrCheckpoint says that bytes are no checkpoint of the log.
	ErrCheckpoint = errors.New("ledger: no checkpoint of this log")
	// ErrSignature says that none of the log's keys signed it.
	ErrSignature = errors.New("ledger: not signed with the log's key")
	// ErrFork says that a checkpoint does not extend the one that was seen before:
	// there are two histories.
	ErrFork = errors.New("ledger: two histories")
	// ErrTruncated says that a log is shorter than it was.
	ErrTruncated = errors.New("ledger: records were taken back")
	// ErrNotIncluded says that a record is not in the log.
	ErrNotIncluded = errors.New("ledger: the record is not in the log")
)

// Checkpoint commits to the first Size records of a log: to all of its history.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   Digest
}

// Text is what is signed (C2SP tlog-checkpoint): origin, size and root, a line each.
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

func parseCheckpoint(text string) (c Checkpoint, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return c, fmt.Errorf("%w: want three lines", ErrCheckpoint)
	}
	c.Origin = lines[0]
	if c.Size, err = strconv.ParseInt(lines[1], 10, 64); err != nil || c.Size < 0 {
		return c, fmt.Errorf("%w: size %.32q", ErrCheckpoint, lines[1])
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != len(c.Root) {
		return c, fmt.Errorf("%w: root %.64q", ErrCheckpoint, lines[2])
	}
	c.Root = Digest(root)
	if c.Text() != text {
		return c, fmt.Errorf("%w: not written as a checkpoint is", ErrCheckpoint)
	}
	return c, nil
}

// Sign returns a checkpoint's signed note.
func (c Checkpoint) Sign(s note.Signer) ([]byte, error) {
	return note.Sign(&note.Note{Text: c.Text()}, s)
}

// OpenCheckpoint reads a signed checkpoint. The signature is that of the key given,
// whose name is the log's. Fails with ErrSignature or ErrCheckpoint.
func OpenCheckpoint(signed []byte, key note.Verifier) (Checkpoint, error) {
	n, err := note.Open(signed, note.VerifierList(key))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: %v", ErrSignature, err)
	}
	c, err := parseCheckpoint(n.Text)
	if err == nil && c.Origin != key.Name() {
		err = fmt.Errorf("%w: it is of %.64q", ErrCheckpoint, c.Origin)
	}
	return c, err
}

// ReadCheckpoint reads a signed checkpoint and checks no signature: one that was opened
// before, and kept where nobody else writes. What it is then compared with need not know
// the key that signed it. Fails with ErrCheckpoint.
func ReadCheckpoint(signed []byte) (Checkpoint, error) {
	_, err := note.Open(signed, note.VerifierList())
	unverified, ok := errors.AsType[*note.UnverifiedNoteError](err)
	if !ok {
		return Checkpoint{}, fmt.Errorf("%w: %v", ErrCheckpoint, err)
	}
	return parseCheckpoint(unverified.Note.Text)
}

// Follow checks that next extends c, the checkpoint seen before; the zero Checkpoint is
// extended by all. Fails with ErrTruncated or ErrFork.
func (c Checkpoint) Follow(next Checkpoint, p Proof) error {
	switch {
	case c.Size == 0:
		return nil
	case next.Size < c.Size:
		return fmt.Errorf("%w: %d of %d are left", ErrTruncated, next.Size, c.Size)
	case next.Size == c.Size:
		if next.Root != c.Root {
			return fmt.Errorf("%w: %d records have the root %.8v, and had %.8v", ErrFork, c.Size, next.Root, c.Root)
		}
		return nil
	}
	if err := tlog.CheckTree(p.hashes(), next.Size, tlog.Hash(next.Root), c.Size, tlog.Hash(c.Root)); err != nil {
		return fmt.Errorf("%w: the first %d of %d records are not those seen before", ErrFork, c.Size, next.Size)
	}
	return nil
}

// Includes checks that a record is the index-th of those that c commits to. Fails with
// ErrNotIncluded.
func (c Checkpoint) Includes(record []byte, index int64, p Proof) error {
	if index < 0 || index >= c.Size {
		return fmt.Errorf("%w: record %d of %d", ErrNotIncluded, index, c.Size)
	}
	if err := tlog.CheckRecord(p.hashes(), c.Size, tlog.Hash(c.Root), index, tlog.RecordHash(record)); err != nil {
		return fmt.Errorf("%w: record %d is another one", ErrNotIncluded, index)
	}
	return nil
}
