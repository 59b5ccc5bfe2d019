package aggregation_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/undertone-fl/undertone/aggregation"
	"pgregory.net/rapid"
)

func TestPackIsLittleEndianTwosComplement(t *testing.T) {
	for _, c := range []struct {
		width int
		x     []int64
		want  []byte
	}{
		{1, []int64{1, -1, 127, -128}, []byte{1, 0xff, 0x7f, 0x80}},
		{2, []int64{1, -2}, []byte{1, 0, 0xfe, 0xff}},
		{3, []int64{0x010203, -1, 5}, []byte{3, 2, 1, 0xff, 0xff, 0xff, 5, 0, 0}},
		{8, []int64{math.MinInt64}, []byte{0, 0, 0, 0, 0, 0, 0, 0x80}},
		{2, []int64{0x12345}, []byte{0x45, 0x23}}, // modulo 2^16
		{5, nil, nil},
	} {
		if got := aggregation.Pack(nil, c.x, c.width); !bytes.Equal(got, c.want) {
			t.Errorf("Pack(%d, %d bytes) = %x, want %x", c.x, c.width, got, c.want)
		}
	}
}

func TestPackAppends(t *testing.T) {
	got := aggregation.Pack([]byte("ab"), []int64{3, -3, 4}, 3)
	if want := []byte{'a', 'b', 3, 0, 0, 0xfd, 0xff, 0xff, 4, 0, 0}; !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// centred draws coordinates that width bytes can hold.
func centred(t *rapid.T, width int) []int64 {
	most := int64(math.MaxInt64) >> (64 - 8*width)
	return rapid.SliceOfN(rapid.Int64Range(-most-1, most), 0, 40).Draw(t, "x")
}

func TestUnpackInvertsPack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		width := rapid.IntRange(1, 8).Draw(t, "width")
		x := centred(t, width)
		packed := aggregation.Pack(nil, x, width)
		if len(packed) != len(x)*width {
			t.Fatalf("%d bytes for %d coordinates of %d", len(packed), len(x), width)
		}
		got := make([]int64, len(x))
		if err := aggregation.Unpack(got, packed, width); err != nil || !slices.Equal(got, x) {
			t.Fatalf("got %d, %v, want %d", got, err, x)
		}
	})
}

func TestAddPackedAddsAllOrNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		width := rapid.IntRange(1, 8).Draw(t, "width")
		x := centred(t, width)
		largest := rapid.Uint64().Draw(t, "largest")
		if width < 8 {
			largest = rapid.Uint64Range(0, 1<<(8*width-1)).Draw(t, "largest")
		}
		start := rapid.SliceOfN(rapid.Int64(), len(x), len(x)).Draw(t, "sum")
		sum, want := slices.Clone(start), slices.Clone(start)
		first := slices.IndexFunc(x, func(v int64) bool { return magnitude(v) > largest })
		if first < 0 {
			for i, v := range x {
				want[i] += v
			}
		}
		err := aggregation.AddPacked(sum, aggregation.Pack(nil, x, width), width, largest)
		if !slices.Equal(sum, want) {
			t.Fatalf("sum = %d, want %d", sum, want)
		}
		var out *aggregation.RangeError
		switch {
		case first < 0 && err != nil:
			t.Fatal(err)
		case first >= 0 && (!errors.As(err, &out) || *out != aggregation.RangeError{Index: first, Value: x[first], Largest: largest}):
			t.Fatalf("error %v, want one about coordinate %d", err, first)
		case first >= 0 && !errors.Is(err, aggregation.ErrRange):
			t.Fatalf("%v is no ErrRange", err)
		}
	})
}

func magnitude(v int64) uint64 {
	if v < 0 {
		return -uint64(v)
	}
	return uint64(v)
}

func TestPackedOfAnotherLength(t *testing.T) {
	for _, n := range []int{0, 5, 7, 9} {
		if err := aggregation.Unpack(make([]int64, 2), make([]byte, n), 3); !errors.Is(err, aggregation.ErrLength) {
			t.Errorf("Unpack of %d bytes: %v", n, err)
		}
		if err := aggregation.AddPacked(make([]int64, 2), make([]byte, n), 3, 1); !errors.Is(err, aggregation.ErrLength) {
			t.Errorf("AddPacked of %d bytes: %v", n, err)
		}
	}
}

// Ten mebibytes at width 8, and as many coordinates at the others.
const packedLen = 10 << 20 / 8

func BenchmarkPack(b *testing.B) {
	benchmarkPacked(b, func(x []int64, packed []byte, width int) error {
		aggregation.Pack(packed[:0], x, width)
		return nil
	})
}

func BenchmarkUnpack(b *testing.B) { benchmarkPacked(b, aggregation.Unpack) }

func BenchmarkAddPacked(b *testing.B) {
	benchmarkPacked(b, func(x []int64, packed []byte, width int) error {
		return aggregation.AddPacked(x, packed, width, 100)
	})
}

func benchmarkPacked(b *testing.B, f func(x []int64, packed []byte, width int) error) {
	for _, width := range []int{2, 3, 4, 5, 8} {
		b.Run(fmt.Sprintf("width=%d", width), func(b *testing.B) {
			x := make([]int64, packedLen)
			for i := range x {
				x[i] = int64(i%201) - 100
			}
			packed := aggregation.Pack(nil, x, width)
			b.SetBytes(int64(len(packed)))
			b.ReportAllocs()
			for b.Loop() {
				if err := f(x, packed, width); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
