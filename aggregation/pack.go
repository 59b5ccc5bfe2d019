package aggregation

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// ErrRange says that a coordinate is larger than an honest one can be.
var ErrRange = errors.New("aggregation: coordinate out of range")

// RangeError is a coordinate of which AddPacked refuses the vector.
type RangeError struct {
	Index   int
	Value   int64
	Largest uint64 // the largest absolute value allowed
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("%v: coordinate %d is %d, and may be %d at most", ErrRange, e.Index, e.Value, e.Largest)
}

func (e *RangeError) Unwrap() error { return ErrRange }

// Pack appends x to dst as little-endian two's complement integers of width
// bytes, 1 to 8, and returns it grown: what a contribution and a sum are on the
// wire. Coordinates are taken modulo 2^(8 width).
func Pack(dst []byte, x []int64, width int) []byte {
	checkWidth(width)
	at, n := len(dst), len(x)*width
	dst = slices.Grow(dst, n)[:at+n]
	packed := dst[at:]
	// A store of eight bytes spills into the coordinates that follow, which
	// are written after it.
	whole := words(len(x), width)
	for i, v := range x[:whole] {
		binary.LittleEndian.PutUint64(packed[i*width:], uint64(v))
	}
	for i, v := range x[whole:] {
		one := packed[(whole+i)*width:][:width]
		for b := range one {
			one[b] = byte(v >> (8 * b))
		}
	}
	return dst
}

// Unpack reads packed integers into dst, in the centred range. Fails with
// ErrLength unless packed holds len(dst) of them.
func Unpack(dst []int64, packed []byte, width int) error {
	if err := checkPacked(len(dst), packed, width); err != nil {
		return err
	}
	shift := uint(64-8*width) & 63
	whole := words(len(dst), width)
	for i := range dst[:whole] {
		dst[i] = int64(binary.LittleEndian.Uint64(packed[i*width:])) << shift >> shift
	}
	for i := whole; i < len(dst); i++ {
		dst[i] = coordinate(packed, i, width)
	}
	return nil
}

// AddPacked adds packed integers to sum, modulo 2^64, in one pass. Fails with
// ErrLength unless packed holds len(sum) of them, and with a *RangeError if one
// is larger than largest in absolute value; sum is then as before.
func AddPacked(sum []int64, packed []byte, width int, largest uint64) error {
	if err := checkPacked(len(sum), packed, width); err != nil {
		return err
	}
	// v is in range if v + largest is in [0, 2 largest], as unsigned integers;
	// 2^63 and above exclude no int64.
	limit := 2 * largest
	if largest >= 1<<63 {
		limit = math.MaxUint64
	}
	shift := uint(64-8*width) & 63
	whole := words(len(sum), width)
	outside := false
	for i, s := range sum[:whole] {
		v := int64(binary.LittleEndian.Uint64(packed[i*width:])) << shift >> shift
		outside = outside || uint64(v)+largest > limit
		sum[i] = s + v
	}
	for i := whole; i < len(sum); i++ {
		v := coordinate(packed, i, width)
		outside = outside || uint64(v)+largest > limit
		sum[i] += v
	}
	if !outside {
		return nil
	}
	var err *RangeError
	for i := range sum {
		v := coordinate(packed, i, width)
		if err == nil && uint64(v)+largest > limit {
			err = &RangeError{i, v, largest}
		}
		sum[i] -= v
	}
	return err
}

// words is the number of coordinates, of n, that eight bytes can be read at.
func words(n, width int) int {
	if n*width < 8 {
		return 0
	}
	return (n*width-8)/width + 1
}

// coordinate reads one byte by byte.
func coordinate(packed []byte, i, width int) int64 {
	var v uint64
	for b, x := range packed[i*width:][:width] {
		v |= uint64(x) << (8 * b)
	}
	shift := uint(64-8*width) & 63
	return int64(v) << shift >> shift
}

func checkPacked(n int, packed []byte, width int) error {
	checkWidth(width)
	if len(packed)%width != 0 || len(packed)/width != n {
		return fmt.Errorf("%w: %d bytes instead of %d coordinates of %d", ErrLength, len(packed), n, width)
	}
	return nil
}

func checkWidth(width int) {
	if width < 1 || width > 8 {
		panic("aggregation: packed integers have 1 to 8 bytes")
	}
}
