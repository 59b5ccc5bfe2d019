package ledger

import (
	"archive/zip"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
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

// Members of a bundle's file.
const (
	checkpointMember     = "checkpoint"
	recordsMember        = "records.jsonl"
	specificationsFolder = "specifications/"
	specificationsSuffix = ".json"
)

// Bounds of what is read, in bytes, whatever a file says of itself.
const (
	maxCheckpoint     = 64 << 10
	maxRecords        = 1 << 30
	maxSpecification  = 384 << 10
	maxSpecifications = 1 << 30 // of all together
)

// WriteBundle writes a bundle's file. The same bundle is the same bytes, as long as they
// are written by the same program.
func WriteBundle(w io.Writer, b *Bundle) error {
	z := zip.NewWriter(w)
	write := func(name string, pieces ...[]byte) error {
		member, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate})
		if err != nil {
			return err
		}
		for _, piece := range pieces {
			if _, err := member.Write(piece); err != nil {
				return err
			}
		}
		return nil
	}
	if err := write(checkpointMember, b.Checkpoint); err != nil {
		return err
	}
	lines := make([][]byte, 0, 2*len(b.Records))
	for _, record := range b.Records {
		lines = append(lines, record, []byte{'\n'})
	}
	if err := write(recordsMember, lines...); err != nil {
		return err
	}
	for _, digest := range slices.SortedFunc(maps.Keys(b.Specifications), compareDigests) {
		if err := write(specificationsFolder+digest.String()+specificationsSuffix, b.Specifications[digest]); err != nil {
			return err
		}
	}
	return z.Close()
}

func compareDigests(a, b Digest) int { return bytes.Compare(a[:], b[:]) }

// ReadBundle reads a bundle's file of so many bytes. It is read, and not verified. Fails
// with ErrBundle, naming the member that is unknown, missing, there twice, too large or
// damaged.
func ReadBundle(r io.ReaderAt, size int64) (*Bundle, error) {
	z, err := zip.NewReader(r, size)
	if errors.Is(err, zip.ErrFormat) {
		return nil, fmt.Errorf("%w: it is no zip file, or one that is cut short", ErrBundle)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrBundle, err)
	}
	b := &Bundle{Specifications: make(map[Digest][]byte)}
	seen := make(map[string]bool, len(z.File))
	left := int64(maxSpecifications)
	for _, f := range z.File {
		if seen[f.Name] {
			return nil, fmt.Errorf("%w: %.80q is there twice", ErrBundle, f.Name)
		}
		seen[f.Name] = true
		switch digest, isSpecification := specificationOf(f.Name); {
		case f.Name == checkpointMember:
			b.Checkpoint, err = readMember(f, maxCheckpoint)
		case f.Name == recordsMember:
			var lines []byte
			if lines, err = readMember(f, maxRecords); err == nil {
				b.Records, err = splitRecords(lines)
			}
		case isSpecification:
			var document []byte
			document, err = readMember(f, min(maxSpecification, left))
			left -= int64(len(document))
			b.Specifications[digest] = document
		default:
			err = fmt.Errorf("%w: %.80q does not belong there", ErrBundle, f.Name)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, name := range []string{checkpointMember, recordsMember} {
		if !seen[name] {
			return nil, fmt.Errorf("%w: %s is missing", ErrBundle, name)
		}
	}
	return b, nil
}

// specificationOf returns the digest that a member's name has, written in the one way.
func specificationOf(name string) (d Digest, ok bool) {
	digits := strings.TrimSuffix(strings.TrimPrefix(name, specificationsFolder), specificationsSuffix)
	if raw, err := hex.DecodeString(digits); err != nil || len(raw) != len(d) {
		return d, false
	} else {
		d = Digest(raw)
	}
	return d, name == specificationsFolder+d.String()+specificationsSuffix
}

// readMember reads a member of at most so many bytes, whose checksum is right.
func readMember(f *zip.File, most int64) ([]byte, error) {
	if f.UncompressedSize64 > uint64(most) {
		return nil, fmt.Errorf("%w: %s has %d bytes, and may have %d", ErrBundle, f.Name, f.UncompressedSize64, most)
	}
	member, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %v", ErrBundle, f.Name, err)
	}
	defer member.Close()
	// Not all allocated at once: the size is what the file claims.
	const enough = 1 << 20
	var b bytes.Buffer
	b.Grow(int(min(f.UncompressedSize64, enough)) + bytes.MinRead)
	if n, err := io.Copy(&b, io.LimitReader(member, most+1)); err != nil {
		return nil, fmt.Errorf("%w: %s: %v", ErrBundle, f.Name, err)
	} else if n > most {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", ErrBundle, f.Name, most)
	}
	return b.Bytes(), nil
}

// splitRecords returns the lines, each of which has its end.
func splitRecords(lines []byte) ([][]byte, error) {
	if len(lines) == 0 {
		return nil, nil
	}
	rest, ended := bytes.CutSuffix(lines, []byte{'\n'})
	if !ended {
		return nil, fmt.Errorf("%w: %s breaks off within its last line", ErrBundle, recordsMember)
	}
	records := bytes.Split(rest, []byte{'\n'})
	for i, record := range records {
		records[i] = slices.Clip(record)
	}
	return records, nil
}
