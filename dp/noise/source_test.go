package noise_test

import (
	"math"
	"testing"

	"github.com/undertone-fl/undertone/dp/noise"
)

func words(s noise.Source) (w [4]uint64) {
	for i := range w {
		w[i] = s.Uint64()
	}
	return w
}

func TestSeededPathsDiffer(t *testing.T) {
	seen := make(map[[4]uint64][]uint64)
	for _, path := range [][]uint64{
		{0}, {1}, {0, 0}, {0, 1}, {1, 0}, {0, 0, 0}, {0, 1, 0}, {0, 0, 1},
		{0, 0, 0, 0}, {0, 0, 0, 1}, {math.MaxUint64}, {0, math.MaxUint64 - 1},
	} {
		w := words(noise.NewSeeded(path[0], path[1:]...))
		if other, ok := seen[w]; ok {
			t.Errorf("%d and %d give one stream", other, path)
		}
		seen[w] = path
	}
}

func TestSeededResetIsNew(t *testing.T) {
	s := noise.NewSeeded(1, 2, 3, 4)
	s.Uint64()
	s.Reset(5, 6)
	if got, want := words(s), words(noise.NewSeeded(5, 6)); got != want {
		t.Errorf("%x, want %x", got, want)
	}
	if n := testing.AllocsPerRun(10, func() { s.Reset(5, 6, 7) }); n != 0 {
		t.Errorf("Reset makes %g allocations", n)
	}
}

func TestSeededRefusesPaths(t *testing.T) {
	for _, path := range [][]uint64{{1, 2, 3, 4}, {math.MaxUint64}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("path %d was taken", path)
				}
			}()
			noise.NewSeeded(0, path...)
		}()
	}
}

// A false alarm has probability 2^-256.
func TestSecretsDiffer(t *testing.T) {
	a, b := words(noise.NewSecret()), words(noise.NewSecret())
	if a == b {
		t.Error("two secret sources give one stream")
	}
}
