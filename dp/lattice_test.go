package dp_test

import (
	"encoding/binary"
	"errors"
	"math"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/noise"
)

var lattice = dp.Lattice{ScaleBits: 16, ModulusBits: 40}

// exceeds says whether ||z|| > bound, in big integers.
func exceeds(z []int64, bound uint64) bool {
	sum := new(big.Int)
	for _, v := range z {
		sum.Add(sum, new(big.Int).Mul(big.NewInt(v), big.NewInt(v)))
	}
	b := new(big.Int).SetUint64(bound)
	return sum.Cmp(b.Mul(b, b)) > 0
}

// The theorem at Lattice: Encode keeps the integer bound, and fails only as
// its comment says.
func FuzzEncode(f *testing.F) {
	add := func(scale, modulus uint8, bound float64, seed uint64, x ...float64) {
		f.Add(scale, modulus, bound, seed, floatBytes(x))
	}
	add(16, 40, 1, 1, 0.6, 0.8)
	add(16, 40, 1, 1, 3, 4)
	add(0, 8, 5, 1, 1e300, -1e300)
	add(52, 64, 1, 1, 1, 1, 1)
	add(10, 40, 1e-3, 1, 1, 1)
	add(10, 40, math.SmallestNonzeroFloat64, 1, math.SmallestNonzeroFloat64)
	add(16, 40, 1, 1, math.NaN(), math.Inf(-1))
	add(16, 16, 1, 1, 1)
	add(60, 1, math.Inf(1), 1)
	f.Fuzz(func(t *testing.T, scale, modulus uint8, bound float64, seed uint64, data []byte) {
		l := dp.Lattice{ScaleBits: uint(scale), ModulusBits: uint(modulus)}
		x := bytesFloats(data)
		z := make([]int64, len(x))
		err := l.Encode(z, x, bound, noise.NewSeeded(seed))
		if err != nil {
			if errors.Is(err, dp.ErrNorm) {
				t.Fatal("the clip leaves too little room for rounding")
			}
			if slices.ContainsFunc(z, func(v int64) bool { return v != 0 }) {
				t.Fatalf("%v, and yet %d", err, z)
			}
			return
		}
		most, err := l.Bound(bound)
		if err != nil {
			t.Fatal(err)
		}
		if exceeds(z, most) {
			t.Fatalf("%d exceeds %d", z, most)
		}
	})
}

func floatBytes(x []float64) (data []byte) {
	for _, v := range x {
		data = binary.LittleEndian.AppendUint64(data, math.Float64bits(v))
	}
	return data
}

func bytesFloats(data []byte) (x []float64) {
	for ; len(data) >= 8; data = data[8:] {
		x = append(x, math.Float64frombits(binary.LittleEndian.Uint64(data)))
	}
	return x
}

// Vectors of every length and size on either side of the bound keep it.
func TestEncodeKeepsTheBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := dp.Lattice{ScaleBits: rapid.UintRange(4, 30).Draw(t, "scale"), ModulusBits: 60}
		x := rapid.SliceOfN(rapid.Float64Range(-1, 1), 1, 200).Draw(t, "x")
		size := math.Pow(2, rapid.Float64Range(-10, 10).Draw(t, "size"))
		for i := range x {
			x[i] *= size
		}
		z := make([]int64, len(x))
		if err := l.Encode(z, x, 1, noise.NewSeeded(rapid.Uint64().Draw(t, "seed"))); errors.Is(err, dp.ErrTooCoarse) {
			if float64(len(x)) < math.Ldexp(0.99, 2*int(l.ScaleBits)) {
				t.Fatal(err)
			}
		} else if err != nil {
			t.Fatal(err)
		}
		if exceeds(z, 1<<l.ScaleBits) {
			t.Fatalf("%d", z)
		}
	})
}

// What lies on the lattice, within the bound, is encoded as it is.
func TestEncodeDecodeExact(t *testing.T) {
	x := []float64{0, 1, -3, 0x1p-16, -0.7109375}
	z := make([]int64, len(x))
	if err := lattice.Encode(z, x, 10, noise.NewSeeded(1)); err != nil {
		t.Fatal(err)
	}
	back := make([]float64, len(x))
	lattice.Decode(back, z)
	if !slices.Equal(back, x) {
		t.Errorf("%g, want %g", back, x)
	}
}

// The mean of many encodings is the clipped vector. A coordinate's rounding
// has variance f(1-f) lattice units; false alarm 1e-8 each, seeded.
func TestEncodeIsUnbiased(t *testing.T) {
	const draws = 100_000
	l := dp.Lattice{ScaleBits: 3, ModulusBits: 32}
	src := noise.NewSeeded(1)
	within := []float64{0.01, -0.01, 1.3, -2.7, 0.125, 1e-9, 0}
	for _, factor := range []float64{1, 1000} { // within the bound, and clipped
		x := make([]float64, len(within))
		for i, v := range within {
			x[i] = v * factor
		}
		const bound = 8
		want := slices.Clone(x)
		if _, err := dp.Clip(want, bound-math.Sqrt(float64(len(x)))/8); err != nil {
			t.Fatal(err)
		}
		sum := make([]float64, len(x))
		z := make([]int64, len(x))
		for range draws {
			if err := l.Encode(z, x, bound, src); err != nil {
				t.Fatal(err)
			}
			for i, v := range z {
				sum[i] += float64(v)
			}
		}
		for i := range x {
			units := want[i] * 8
			fraction := units - math.Floor(units)
			sd := math.Sqrt(draws*fraction*(1-fraction)) + 1e-6
			if off := sum[i] - draws*units; math.Abs(off) > 5.73*sd+1e-3 {
				t.Errorf("coordinate %d: mean %g, want %g", i, sum[i]/draws, units)
			}
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	var capacity *dp.CapacityError
	for _, c := range []struct {
		name  string
		l     dp.Lattice
		x     []float64
		bound float64
		is    error // nil: a *CapacityError
	}{
		{"NaN", lattice, []float64{1, math.NaN()}, 1, dp.ErrNotFinite},
		{"infinity", lattice, []float64{1, math.Inf(-1)}, 1, dp.ErrNotFinite},
		{"no bound", lattice, []float64{1}, 0, dp.ErrBound},
		{"NaN bound", lattice, []float64{1}, math.NaN(), dp.ErrBound},
		{"fine scale", dp.Lattice{ScaleBits: 53, ModulusBits: 64}, []float64{1}, 1, dp.ErrLattice},
		{"no modulus", dp.Lattice{ScaleBits: 8}, []float64{1}, 1, dp.ErrLattice},
		{"wide modulus", dp.Lattice{ScaleBits: 8, ModulusBits: 65}, []float64{1}, 1, dp.ErrLattice},
		{"bound below spacing", lattice, []float64{1}, 0x1p-17, dp.ErrTooCoarse},
		{"more coordinates than room", dp.Lattice{ScaleBits: 3, ModulusBits: 32}, make([]float64, 64), 1, dp.ErrTooCoarse},
		{"beyond the modulus", dp.Lattice{ScaleBits: 8, ModulusBits: 8}, []float64{1}, 1, nil},
		{"beyond 2^52", dp.Lattice{ScaleBits: 52, ModulusBits: 64}, []float64{1}, 2, nil},
	} {
		z := []int64{7, 7}
		if len(c.x) != 2 {
			z = slices.Repeat([]int64{7}, len(c.x))
		}
		err := c.l.Encode(z, c.x, c.bound, noise.NewSeeded(1))
		if c.is != nil && !errors.Is(err, c.is) || c.is == nil && !errors.As(err, &capacity) {
			t.Errorf("%s: %v", c.name, err)
		}
		if slices.Contains(z, 7) {
			t.Errorf("%s: %d is left behind", c.name, z)
		}
	}
}

func TestCheckNorm(t *testing.T) {
	const most = 1 << 32
	for _, c := range []struct {
		z     []int64
		bound uint64
		want  error
	}{
		{nil, 0, nil},
		{[]int64{3, -4}, 5, nil},
		{[]int64{3, -4, 1}, 5, dp.ErrNorm},
		{[]int64{most}, most, nil}, // squares to 2^64
		{[]int64{most, 1}, most, dp.ErrNorm},
		{[]int64{math.MinInt64}, 1 << 63, nil},
		{[]int64{math.MinInt64, 1}, 1 << 63, dp.ErrNorm},
		{[]int64{math.MinInt64, math.MinInt64, math.MinInt64}, math.MaxUint64, nil},
		{slices.Repeat([]int64{math.MinInt64}, 4), math.MaxUint64, dp.ErrNorm}, // 2^128
	} {
		if got := dp.CheckNorm(c.z, c.bound); got != c.want {
			t.Errorf("CheckNorm(%d, %d) = %v", c.z, c.bound, got)
		}
	}
}

// Sums may wrap on the way: reduced at the end, they are those of big integers.
func TestReduceIsModular(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := dp.Lattice{ModulusBits: rapid.UintRange(2, 64).Draw(t, "modulus")}
		var sum int64
		exact := new(big.Int)
		for _, v := range rapid.SliceOf(rapid.Int64()).Draw(t, "terms") {
			sum += v
			exact.Add(exact, big.NewInt(v))
		}
		got := []int64{sum}
		l.Reduce(got)

		modulus := new(big.Int).Lsh(big.NewInt(1), l.ModulusBits)
		half := new(big.Int).Rsh(modulus, 1)
		want := exact.Mod(exact.Add(exact, half), modulus)
		want.Sub(want, half)
		if want.Cmp(big.NewInt(got[0])) != 0 {
			t.Fatalf("%d, want %d", got[0], want)
		}
		decoded := make([]float64, 1)
		l.Decode(decoded, []int64{sum})
		if decoded[0] != float64(got[0]) {
			t.Fatalf("Decode gives %g, Reduce %d", decoded[0], got[0])
		}
	})
}

func TestCapacity(t *testing.T) {
	l := dp.Lattice{ScaleBits: 16, ModulusBits: 32} // holds 2^31 - 1 = 32768 bounds of 1, and a bit less
	for _, c := range []struct {
		name  string
		n     int
		sigma noise.Sigma
		fits  bool
	}{
		{"both fit", 32000, noise.MinSigma, true},
		{"contributions alone", 32768, noise.MinSigma, false},
		{"noise takes the room", 30000, noise.Sigma(10_000_000 << 20), true},
		{"noise on top", 30000, noise.Sigma(14_000_000 << 20), false},
		{"noise alone", 1, noise.Sigma(200_000_000 << 20), false},
	} {
		err := l.Capacity(c.n, 1, c.sigma.Float64())
		var capacity *dp.CapacityError
		if c.fits && err != nil || !c.fits && !errors.As(err, &capacity) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	const want = "dp: the sum of contributions does not fit the lattice: 40000 clients add up to 2.62144e+09 and noise to 7, of at most 2.147483647e+09: use fewer ScaleBits or more ModulusBits"
	if err := l.Capacity(40000, 1, noise.MinSigma.Float64()); err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

func TestEncodeDoesNotAllocate(t *testing.T) {
	src := noise.NewSeeded(1)
	x := slices.Repeat([]float64{0.3}, 150)
	z := make([]int64, len(x))
	if n := testing.AllocsPerRun(100, func() {
		if err := lattice.Encode(z, x, 1, src); err != nil {
			t.Fatal(err)
		}
		if err := dp.CheckNorm(z, 1<<16); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%g allocations", n)
	}
}

func BenchmarkEncode(b *testing.B) {
	src := noise.NewSecret()
	x := slices.Repeat([]float64{0.3}, 150)
	z := make([]int64, len(x))
	b.ReportAllocs()
	for b.Loop() {
		if err := lattice.Encode(z, x, 1, src); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(x)), "ns/coordinate")
}
