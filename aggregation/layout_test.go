package aggregation_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/undertone-fl/undertone/aggregation"
	"pgregory.net/rapid"
)

// TestLayoutParts: the parts cover the vector in order, none twice, and an
// append to one does not run into the next.
func TestLayoutParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var layout aggregation.Layout
		for i, n := range rapid.SliceOfN(rapid.IntRange(0, 5), 0, 5).Draw(t, "lengths") {
			layout = append(layout, aggregation.Part{Name: fmt.Sprint(i), Len: n})
		}
		v := make([]float64, layout.Len())
		for i := range v {
			v[i] = float64(i)
		}
		at := 0
		for _, p := range layout {
			part := layout.Part(p.Name, v)
			if len(part) != p.Len || cap(part) != p.Len {
				t.Fatalf("part %s: length %d and capacity %d, want %d", p.Name, len(part), cap(part), p.Len)
			}
			for _, x := range part {
				if x != float64(at) {
					t.Fatalf("part %s holds coordinate %v, want %d", p.Name, x, at)
				}
				at++
			}
		}
		if at != len(v) {
			t.Fatalf("the parts hold %d of %d coordinates", at, len(v))
		}
		if layout.Part("none", v) != nil {
			t.Fatal("a part that the layout does not have")
		}
	})
}

// TestLayoutBound: vectors whose every part is at its bound have the norm
// Bound.
func TestLayoutBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bounds := rapid.SliceOfN(rapid.Float64Range(0, 10), 0, 5).Draw(t, "bounds")
		var layout aggregation.Layout
		var norm float64
		for i, b := range bounds {
			layout = append(layout, aggregation.Part{Name: fmt.Sprint(i), Len: 1, Bound: b})
			norm = math.Hypot(norm, b)
		}
		if got := layout.Bound(); math.Abs(got-norm) > 1e-12*(1+norm) {
			t.Fatalf("Bound = %v, norm at the parts' bounds %v", got, norm)
		}
	})
}
