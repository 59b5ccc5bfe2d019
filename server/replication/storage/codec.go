package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"time"

	"github.com/hashicorp/raft"
)

// codec writes log entries with a checksum, which raft-wal leaves to the file
// system: a bit that flipped on the disk is found when the entry is read, and
// not by what the state machine makes of it. FORMAT.md has the layout.
type codec struct{}

// codecID is in the header of every segment. It stands for the layout and for
// all of its rules.
const codecID = 1<<16 + 0x756e64 // "und"

// ErrCorrupt says that an entry is not what was written.
var ErrCorrupt = errors.New("checksum does not match")

const headerSize = 4 + 8 + 8 + 8 + 1 + 4 // checksum, index, term, time, type, length of the extensions

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (codec) ID() uint64 { return codecID }

func (codec) Encode(l *raft.Log, w io.Writer) error {
	var h [headerSize]byte
	binary.LittleEndian.PutUint64(h[4:], l.Index)
	binary.LittleEndian.PutUint64(h[12:], l.Term)
	var at int64 // a zero time has no UnixNano
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	binary.LittleEndian.PutUint64(h[20:], uint64(at))
	h[28] = byte(l.Type)
	if len(l.Extensions) > math.MaxUint32 {
		return fmt.Errorf("extensions of %d bytes", len(l.Extensions))
	}
	binary.LittleEndian.PutUint32(h[29:], uint32(len(l.Extensions)))
	sum := crc32.Update(0, castagnoli, h[4:])
	sum = crc32.Update(sum, castagnoli, l.Extensions)
	sum = crc32.Update(sum, castagnoli, l.Data)
	binary.LittleEndian.PutUint32(h[:], sum)
	for _, b := range [][]byte{h[:], l.Extensions, l.Data} {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func (codec) Decode(b []byte, l *raft.Log) error {
	if len(b) < headerSize || binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return ErrCorrupt
	}
	extensions := binary.LittleEndian.Uint32(b[29:])
	rest := b[headerSize:]
	if uint64(extensions) > uint64(len(rest)) {
		return ErrCorrupt
	}
	*l = raft.Log{
		Index: binary.LittleEndian.Uint64(b[4:]),
		Term:  binary.LittleEndian.Uint64(b[12:]),
		Type:  raft.LogType(b[28]),
	}
	if at := int64(binary.LittleEndian.Uint64(b[20:])); at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	// b is raft-wal's to use again.
	rest = append([]byte(nil), rest...)
	if extensions > 0 {
		l.Extensions = rest[:extensions:extensions]
	}
	if len(rest) > int(extensions) {
		l.Data = rest[extensions:]
	}
	return nil
}
