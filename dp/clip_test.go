package dp_test

import (
	"errors"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/floats"
	"pgregory.net/rapid"

	"github.com/undertone-fl/undertone/dp"
)

func TestClip(t *testing.T) {
	tiny := math.SmallestNonzeroFloat64
	for _, c := range []struct {
		name  string
		x     []float64
		bound float64
		norm  float64
		want  []float64
	}{
		{"within", []float64{3, -4}, 5, 5, []float64{3, -4}},
		{"above", []float64{3, -4}, 1, 5, []float64{0.6, -0.8}},
		{"zero", []float64{0, 0}, 1, 0, []float64{0, 0}},
		{"empty", nil, 1, 0, nil},
		{"squares overflow", []float64{3e300, 4e300}, 5, 5e300, []float64{3, 4}},
		{"norm overflows", []float64{1.5e308, -1.5e308}, math.Sqrt2, math.Inf(1), []float64{1, -1}},
		{"squares underflow", []float64{3e-300, 4e-300}, 1e-300, 5e-300, []float64{0.6e-300, 0.8e-300}},
		{"subnormal within", []float64{tiny, tiny}, 2 * tiny, tiny, []float64{tiny, tiny}},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := slices.Clone(c.x)
			norm, err := dp.Clip(x, c.bound)
			if err != nil {
				t.Fatal(err)
			}
			if norm != c.norm && math.Abs(norm/c.norm-1) > 1e-15 {
				t.Errorf("norm %g, want %g", norm, c.norm)
			}
			for i := range x {
				if math.Abs(x[i]-c.want[i]) > 1e-14*math.Abs(c.want[i]) {
					t.Errorf("clipped to %g, want %g", x, c.want)
				}
			}
		})
	}
}

func TestClipRefuses(t *testing.T) {
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		x := []float64{1e9, bad, 2}
		if _, err := dp.Clip(x, 1); !errors.Is(err, dp.ErrNotFinite) || x[0] != 1e9 {
			t.Errorf("Clip of %g: %v", x, err)
		}
	}
	for _, bound := range []float64{0, -1, math.NaN(), math.Inf(1)} {
		if _, err := dp.Clip([]float64{1}, bound); !errors.Is(err, dp.ErrBound) {
			t.Errorf("Clip to %g: %v", bound, err)
		}
	}
}

func TestClipNeverExceedsItsBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		finite := rapid.Float64().Filter(func(v float64) bool { return !math.IsInf(v, 0) })
		x := rapid.SliceOf(finite).Draw(t, "x")
		bound := math.Abs(finite.Filter(func(v float64) bool { return v != 0 }).Draw(t, "bound"))
		if _, err := dp.Clip(x, bound); err != nil {
			t.Fatal(err)
		}
		clipped := slices.Clone(x)
		norm, err := dp.Clip(x, bound)
		if err != nil || norm > bound || !slices.Equal(x, clipped) {
			t.Fatalf("norm %g above %g, %v", norm, bound, err)
		}
		// gonum's norm scales too, by another algorithm.
		if other := floats.Norm(x, 2); other > bound*(1+1e-14)+1e-322 {
			t.Fatalf("norm %g above %g", other, bound)
		}
	})
}

// Subnormal coordinates cannot shrink by one part in forty: Clip must end
// nevertheless.
func TestClipOfSubnormals(t *testing.T) {
	const tiny = math.SmallestNonzeroFloat64
	x := slices.Repeat([]float64{10 * tiny}, 16)
	if norm, err := dp.Clip(x, 39*tiny); err != nil || norm != 40*tiny {
		t.Fatalf("%g, %v", norm, err)
	}
	if norm := floats.Norm(x, 2); norm > 39*tiny || norm == 0 {
		t.Errorf("norm %g", norm)
	}
}
