package local

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"hash/crc32"
	"math"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write testdata anew")

// stored is the state in testdata/personal-v1.bin.
var stored = Personal{
	W: []float64{1.5, -0x1p-1074, math.MaxFloat64},
	B: []Entry{{0, -2.25}, {7, math.Pi}, {math.MaxInt32, 1e-9}},
}

func TestPersonalV1(t *testing.T) {
	const path = "testdata/personal-v1.bin"
	encoded, err := stored.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, encoded, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var p Personal
	if err := p.UnmarshalBinary(old); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(p, stored) {
		t.Errorf("%s decodes to %v, not %v", path, p, stored)
	}
	if !bytes.Equal(encoded, old) {
		t.Errorf("version 1 is now encoded as %x, once %x", encoded, old)
	}
}

func TestPersonalRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Personal{
			W: rapid.SliceOfN(rapid.Float64(), 0, 5).Draw(t, "w"),
			B: []Entry{},
		}
		features := rapid.SliceOfNDistinct(rapid.Uint32Max(math.MaxInt32), 0, 6, rapid.ID).Draw(t, "features")
		slices.Sort(features)
		for _, f := range features {
			p.B = append(p.B, Entry{f, rapid.Float64().Draw(t, "value")})
		}
		encoded, err := p.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if want := 20 + 8*len(p.W) + 12*len(p.B); len(encoded) != want {
			t.Errorf("%d bytes, not %d", len(encoded), want)
		}
		var q Personal
		if err := q.UnmarshalBinary(encoded); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(p, q) {
			t.Errorf("%v became %v", p, q)
		}
	})
}

func TestPersonalRefuses(t *testing.T) {
	good, err := stored.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	// changed returns the encoding after a change, with a fitting checksum.
	changed := func(f func([]byte)) []byte {
		b := slices.Clone(good[:len(good)-4])
		f(b)
		return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
	}
	b := 16 + 8*3 // where b starts
	for _, c := range []struct {
		name string
		data []byte
		want error
	}{
		{"magic", changed(func(x []byte) { x[0] = 'U' }), ErrPersonalMagic},
		{"version 2", changed(func(x []byte) { x[4] = 2 }), ErrPersonalVersion},
		{"version 0", changed(func(x []byte) { x[4] = 0 }), ErrPersonalVersion},
		{"reserved", changed(func(x []byte) { x[6] = 1 }), ErrPersonalCorrupt},
		{"more of w than there is", changed(func(x []byte) { le.PutUint32(x[8:], math.MaxUint32) }), ErrPersonalTruncated},
		{"more of b than there is", changed(func(x []byte) { le.PutUint32(x[12:], math.MaxUint32) }), ErrPersonalTruncated},
		{"trailing byte", append(slices.Clone(good), 0), ErrPersonalCorrupt},
		{"features equal", changed(func(x []byte) { le.PutUint32(x[b+12:], 0) }), ErrPersonalIndex},
		{"features fall", changed(func(x []byte) { le.PutUint32(x[b:], 8) }), ErrPersonalIndex},
		{"feature out of range", changed(func(x []byte) { le.PutUint32(x[b+24:], 1<<31) }), ErrPersonalIndex},
		{"NaN in w", changed(func(x []byte) { le.PutUint64(x[16:], math.Float64bits(math.NaN())) }), ErrNotFinite},
		{"infinity in b", changed(func(x []byte) { le.PutUint64(x[b+4:], math.Float64bits(math.Inf(1))) }), ErrNotFinite},
	} {
		p := Personal{W: []float64{42}}
		if err := p.UnmarshalBinary(c.data); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, not %v", c.name, err, c.want)
		}
		if len(p.W) != 1 || p.W[0] != 42 {
			t.Errorf("%s: the state was changed to %v", c.name, p)
		}
	}
	for n := range good {
		if err := new(Personal).UnmarshalBinary(good[:n]); !errors.Is(err, ErrPersonalTruncated) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
	for bit := range 8 * len(good) { // CRC-32 finds every single flip
		x := slices.Clone(good)
		x[bit/8] ^= 1 << (bit % 8)
		if err := new(Personal).UnmarshalBinary(x); err == nil {
			t.Errorf("bit %d flipped: no error", bit)
		}
	}
	for _, p := range []Personal{
		{W: []float64{math.NaN()}},
		{B: []Entry{{3, 1}, {2, 1}}},
	} {
		if _, err := p.MarshalBinary(); err == nil {
			t.Errorf("%v was encoded", p)
		}
	}
}

func FuzzPersonal(f *testing.F) {
	good, _ := stored.MarshalBinary()
	f.Add(good)
	f.Add([]byte(personalMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		var p Personal
		if p.UnmarshalBinary(data) != nil {
			return
		}
		again, err := p.MarshalBinary()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%x decodes, and encodes as %x, %v", data, again, err)
		}
	})
}

func TestPredict(t *testing.T) {
	m := &lowrank.Model{Dim: 4, Rank: 1, U: []float64{1, 2, 0, -1}, Mean: []float64{0, 1, 0, 0}, Scale: 10}
	p := &Personal{W: []float64{2}, B: []Entry{{0, 5}, {2, -3}}}
	// theta = (2+5, 1+4, -3, -2)
	for _, c := range []struct {
		x       []float64
		columns []int32
		want    float64
	}{
		{[]float64{1, 10, 100, 1000}, nil, 10 * (7 + 50 - 300 - 2000)},
		{[]float64{1, 100}, []int32{0, 2}, 10 * (7 - 300)},
		{[]float64{10, 1000}, []int32{1, 3}, 10 * (50 - 2000)},
		{nil, []int32{}, 0},
	} {
		y, err := Predict(m, p, c.x, c.columns)
		if err != nil || y != c.want {
			t.Errorf("prediction for %v on %v is %v, %v; want %v", c.x, c.columns, y, err, c.want)
		}
	}
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		name    string
		m       *lowrank.Model
		p       *Personal
		x       []float64
		columns []int32
		want    error
	}{
		{"short x", m, p, make([]float64, 3), nil, ErrSamples},
		{"short compact x", m, p, make([]float64, 3), []int32{0, 1}, ErrSamples},
		{"columns out of order", m, p, make([]float64, 2), []int32{1, 0}, ErrSamples},
		{"column out of range", m, p, make([]float64, 1), []int32{4}, ErrSamples},
		{"another rank", m, &Personal{W: []float64{1, 2}}, make([]float64, 4), nil, ErrModel},
		{"b beyond the features", m, &Personal{W: []float64{1}, B: []Entry{{4, 1}}}, make([]float64, 4), nil, ErrModel},
		{"b out of order", m, &Personal{W: []float64{1}, B: []Entry{{2, 1}, {1, 1}}}, make([]float64, 4), nil, ErrPersonalIndex},
		{"NaN in x", m, p, []float64{nan, 0, 0, 0}, nil, ErrNotFinite},
		{"infinite w", m, &Personal{W: []float64{inf}}, make([]float64, 4), nil, ErrNotFinite},
		{"overflow", m, &Personal{W: []float64{1e300}}, []float64{1e40, 0, 0, 0}, nil, ErrNotFinite},
		{"short U", &lowrank.Model{Dim: 4, Rank: 1, U: make([]float64, 3)}, p, make([]float64, 4), nil, ErrModel},
	} {
		if y, err := Predict(c.m, c.p, c.x, c.columns); !errors.Is(err, c.want) || y != 0 {
			t.Errorf("%s: %v, %v; want %v", c.name, y, err, c.want)
		}
	}
}

func TestFitToPersonal(t *testing.T) {
	f := &Fit{W: []float64{1}, Support: []int{2, 0}, B: []float64{20, 10}}
	p := f.Personal([]int32{3, 5, 9})
	want := &Personal{W: []float64{1}, B: []Entry{{3, 10}, {9, 20}}}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("%v, not %v", p, want)
	}
	f.W[0] = 2 // the solver's storage
	if p.W[0] != 1 {
		t.Error("the personal state shares the fit's storage")
	}
}
