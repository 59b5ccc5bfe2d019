package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// What is wrong with an encoded personal state.
var (
	ErrPersonalMagic     = errors.New("local: not a personal state")
	ErrPersonalVersion   = errors.New("local: a personal state of an unknown version")
	ErrPersonalTruncated = errors.New("local: a personal state cut short")
	ErrPersonalCorrupt   = errors.New("local: a corrupt personal state")
	ErrPersonalIndex     = errors.New("local: a personal state's features are out of order or range")
)

// The encoding, see FORMAT.md: a header, w, the features and values of b, and
// a checksum of all that.
const (
	personalMagic   = "utps"
	personalVersion = 1
	personalHeader  = len(personalMagic) + 2 + 2 + 4 + 4
	personalSum     = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// MarshalBinary encodes p. Fails with ErrPersonalIndex or ErrNotFinite if p
// could not be decoded again.
func (p *Personal) MarshalBinary() ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	out := make([]byte, 0, personalHeader+8*len(p.W)+12*len(p.B)+personalSum)
	out = append(out, personalMagic...)
	out = le.AppendUint16(out, personalVersion)
	out = le.AppendUint16(out, 0)
	out = le.AppendUint32(out, uint32(len(p.W)))
	out = le.AppendUint32(out, uint32(len(p.B)))
	for _, w := range p.W {
		out = le.AppendUint64(out, math.Float64bits(w))
	}
	for _, e := range p.B {
		out = le.AppendUint32(out, e.Feature)
		out = le.AppendUint64(out, math.Float64bits(e.Value))
	}
	return le.AppendUint32(out, crc32.Checksum(out, castagnoli)), nil
}

// UnmarshalBinary replaces p by what data encodes. Data that MarshalBinary
// would not have written is refused, with one of the ErrPersonal errors or
// ErrNotFinite; p is then as before.
func (p *Personal) UnmarshalBinary(data []byte) error {
	if len(data) < len(personalMagic) && string(data) == personalMagic[:len(data)] {
		return ErrPersonalTruncated
	}
	if len(data) < len(personalMagic) || string(data[:len(personalMagic)]) != personalMagic {
		return ErrPersonalMagic
	}
	le := binary.LittleEndian
	if len(data) < len(personalMagic)+2 {
		return ErrPersonalTruncated
	}
	if v := le.Uint16(data[4:]); v != personalVersion {
		return fmt.Errorf("%w: %d, where this program knows %d", ErrPersonalVersion, v, personalVersion)
	}
	if len(data) < personalHeader+personalSum {
		return ErrPersonalTruncated
	}
	r, n := uint64(le.Uint32(data[8:])), uint64(le.Uint32(data[12:]))
	switch size := uint64(personalHeader) + 8*r + 12*n + personalSum; {
	case uint64(len(data)) < size:
		return fmt.Errorf("%w: %d bytes of %d", ErrPersonalTruncated, len(data), size)
	case uint64(len(data)) > size:
		return fmt.Errorf("%w: %d bytes instead of %d", ErrPersonalCorrupt, len(data), size)
	}
	body, sum := data[:len(data)-personalSum], data[len(data)-personalSum:]
	if crc32.Checksum(body, castagnoli) != le.Uint32(sum) {
		return fmt.Errorf("%w: its checksum differs", ErrPersonalCorrupt)
	}
	if le.Uint16(data[6:]) != 0 {
		return fmt.Errorf("%w: its reserved bytes are not zero", ErrPersonalCorrupt)
	}
	q := Personal{W: make([]float64, r), B: make([]Entry, n)}
	body = body[personalHeader:]
	for c := range q.W {
		q.W[c] = math.Float64frombits(le.Uint64(body[8*c:]))
	}
	body = body[8*r:]
	for a := range q.B {
		q.B[a] = Entry{le.Uint32(body[12*a:]), math.Float64frombits(le.Uint64(body[12*a+4:]))}
	}
	if err := q.check(); err != nil {
		return err
	}
	*p = q
	return nil
}
