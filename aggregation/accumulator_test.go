package aggregation_test

import (
	"encoding/binary"
	"errors"
	"math"
	"math/big"
	"slices"
	"testing"

	"github.com/undertone-fl/undertone/aggregation"
	"pgregory.net/rapid"
)

func sumOf(t interface{ Fatal(...any) }, n int, vectors ...[]int64) *aggregation.Accumulator {
	a := aggregation.NewAccumulator(n)
	for _, v := range vectors {
		if err := a.Add(v); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// vectors draws vectors whose sum fits whatever the order.
func vectors(t *rapid.T, n int) [][]int64 {
	const limit = math.MaxInt64 / 16
	x := rapid.SliceOfN(rapid.Int64Range(-limit, limit), n, n)
	return rapid.SliceOfN(x, 0, 16).Draw(t, "vectors")
}

func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 8).Draw(t, "n")
		xs := vectors(t, n)
		a := sumOf(t, n, xs...)
		b := sumOf(t, n, rapid.Permutation(xs).Draw(t, "order")...)
		if !slices.Equal(a.Sum(), b.Sum()) || a.Count() != b.Count() {
			t.Fatalf("%v of %d in one order, %v of %d in another", a.Sum(), a.Count(), b.Sum(), b.Count())
		}
	})
}

func TestMergeIsAdd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 8).Draw(t, "n")
		xs := vectors(t, n)
		cut := rapid.IntRange(0, len(xs)).Draw(t, "cut")
		whole := sumOf(t, n, xs...)
		left, right := sumOf(t, n, xs[:cut]...), sumOf(t, n, xs[cut:]...)
		before := slices.Clone(right.Sum())
		if err := left.Merge(right); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(left.Sum(), whole.Sum()) || left.Count() != len(xs) {
			t.Fatalf("merged %v of %d, added %v of %d", left.Sum(), left.Count(), whole.Sum(), len(xs))
		}
		if !slices.Equal(right.Sum(), before) || right.Count() != len(xs)-cut {
			t.Fatalf("Merge changed what it read: %v", right.Sum())
		}
	})
}

// checkAdd adds x to a sum of a and compares with arbitrary precision.
func checkAdd(t interface{ Fatalf(string, ...any) }, a, x []int64) {
	acc := aggregation.NewAccumulator(len(a))
	if err := acc.Add(a); err != nil {
		t.Fatalf("0 + %v: %v", a, err)
	}
	want, fits := slices.Clone(a), true
	for i := range a {
		s := new(big.Int).Add(big.NewInt(a[i]), big.NewInt(x[i]))
		fits = fits && s.IsInt64()
		want[i] = s.Int64()
	}
	count := 2
	if !fits {
		want, count = a, 1
	}
	other := aggregation.NewAccumulator(len(x))
	if err := other.Add(x); err != nil {
		t.Fatalf("0 + %v: %v", x, err)
	}
	merged := aggregation.NewAccumulator(len(a))
	if err := merged.Merge(acc); err != nil {
		t.Fatalf("0 + %v: %v", a, err)
	}
	for _, step := range []struct {
		name string
		acc  *aggregation.Accumulator
		err  error
	}{{"Add", acc, acc.Add(x)}, {"Merge", merged, merged.Merge(other)}} {
		if (step.err == nil) != fits || !fits && !errors.Is(step.err, aggregation.ErrOverflow) {
			t.Fatalf("%s: %v + %v: error %v, fits %v", step.name, a, x, step.err, fits)
		}
		if !slices.Equal(step.acc.Sum(), want) || step.acc.Count() != count {
			t.Fatalf("%s: %v + %v = %v of %d, want %v of %d", step.name, a, x, step.acc.Sum(), step.acc.Count(), want, count)
		}
	}
}

// TestDeliberateWrap: every pair of values near the limits, alone and behind a
// coordinate that fits, which an overflow must give back.
func TestDeliberateWrap(t *testing.T) {
	edge := []int64{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, math.MaxInt64 - 1, math.MaxInt64}
	for _, a := range edge {
		for _, x := range edge {
			checkAdd(t, []int64{a}, []int64{x})
			checkAdd(t, []int64{7, a, -7}, []int64{5, x, 5})
		}
	}
}

func FuzzAdd(f *testing.F) {
	f.Add([]byte{0x7f, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Add([]byte{0x80, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		var a, x []int64
		for ; len(data) >= 16; data = data[16:] {
			a = append(a, int64(binary.BigEndian.Uint64(data)))
			x = append(x, int64(binary.BigEndian.Uint64(data[8:])))
		}
		checkAdd(t, a, x)
	})
}

func TestWrongLength(t *testing.T) {
	a := sumOf(t, 3, []int64{1, 2, 3})
	for _, x := range [][]int64{nil, {1}, {1, 2, 3, 4}} {
		if err := a.Add(x); !errors.Is(err, aggregation.ErrLength) {
			t.Errorf("Add of %d coordinates: %v", len(x), err)
		}
		if err := a.Merge(sumOf(t, len(x), x)); !errors.Is(err, aggregation.ErrLength) {
			t.Errorf("Merge of %d coordinates: %v", len(x), err)
		}
	}
	if !slices.Equal(a.Sum(), []int64{1, 2, 3}) || a.Count() != 1 {
		t.Errorf("refused vectors changed the sum to %v of %d", a.Sum(), a.Count())
	}
}

func TestReset(t *testing.T) {
	a := sumOf(t, 3, []int64{1, 2, 3})
	for _, n := range []int{2, 3, 5, 0} { // shrinks into dirty storage, and grows
		a.Reset(n)
		if !slices.Equal(a.Sum(), make([]int64, n)) || a.Count() != 0 {
			t.Errorf("Reset(%d) leaves %v of %d", n, a.Sum(), a.Count())
		}
		for i := range a.Sum() {
			a.Sum()[i] = 9
		}
	}
}

func TestAddDoesNotAllocate(t *testing.T) {
	a, x := aggregation.NewAccumulator(200), make([]int64, 200)
	if n := testing.AllocsPerRun(100, func() { _ = a.Add(x) }); n != 0 {
		t.Errorf("Add allocates %v times", n)
	}
}

// BenchmarkAdd: one contribution of the least-squares update at d = 50, r = 3.
func BenchmarkAdd(b *testing.B) {
	const n = 150 + 150*151/2
	a, x := aggregation.NewAccumulator(n), make([]int64, n)
	for i := range x {
		x[i] = int64(i%7) - 3
	}
	b.SetBytes(8 * n)
	b.ReportAllocs()
	for b.Loop() {
		if err := a.Add(x); err != nil {
			b.Fatal(err)
		}
	}
}

// TestReleaseNeedsNMin: fewer contributions than the noise was split for
// release nothing.
func TestReleaseNeedsNMin(t *testing.T) {
	a := aggregation.NewAccumulator(2)
	for n := range 3 {
		sum, err := a.Release(2)
		if few := n < 2; few != errors.Is(err, aggregation.ErrTooFew) || few != (sum == nil) {
			t.Errorf("%d of 2: %v, %v", n, sum, err)
		}
		if err := a.Add([]int64{1, -1}); err != nil {
			t.Fatal(err)
		}
	}
}
