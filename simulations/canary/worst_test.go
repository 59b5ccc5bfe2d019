package canary

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/undertone-fl/undertone/dp/noise"
)

// TestExtremes: under the claim the statistics of the worst are as likely as their p-values
// say, on the side of caution, at the coarsest lattice too: of 2,000 draws at most 1 in 10,
// and 6 deviations more, are below 0.1. And one that is wrong is found.
func TestExtremes(t *testing.T) {
	const draws, alarm = 2000, 0.1
	src := noise.NewSeeded(3)
	most := draws*alarm + 6*math.Sqrt(draws*alarm)
	for _, k := range []int{1, 2, 30} {
		for _, sigma := range []float64{leastShare, leastNoise} {
			below := [2]int{}
			for range draws {
				squares, sums := make([]float64, 20), make([]float64, 20)
				for i := range squares {
					for range k {
						v := math.Round(sigma*normal(src)) / sigma
						squares[i] += v * v
						sums[i] += v
					}
				}
				if _, p := extreme(squares, float64(k), sigma); p < alarm {
					below[0]++
				}
				if _, _, p := farthest(sums, float64(k)); p < alarm {
					below[1]++
				}
			}
			t.Logf("%d squares, sigma %v: %v of %d", k, sigma, below, draws)
			if float64(max(below[0], below[1])) > most {
				t.Errorf("%d squares, sigma %v: %v of %d are below %v", k, sigma, below, draws, alarm)
			}
		}
	}
	squares := []float64{100, 100, 0, 100}
	if at, p := extreme(squares, 100, leastNoise); at != 2 || p > 1e-100 {
		t.Errorf("%d, p = %v", at, p)
	}
	if at, p := extreme([]float64{100, 300, 100}, 100, leastNoise); at != 1 || p > 1e-10 {
		t.Errorf("%d, p = %v", at, p)
	}
	if at, z, p := farthest([]float64{1, -80, 2}, 100); at != 1 || z != -8 || p > 1e-14 {
		t.Errorf("%d, %v, p = %v", at, z, p)
	}
}

// TestSize: sizes of standard normal variables are standard normal: their quantiles are
// those of the variable's absolute value.
func TestSize(t *testing.T) {
	n := distuv.UnitNormal
	for _, u := range []float64{1e-5, 0.01, 0.3, 0.5, 0.9, 0.99999} {
		x := n.Quantile((1 + u) / 2)
		if got, want := size(-x), n.Quantile(u); math.Abs(got-want) > 1e-6 {
			t.Errorf("at %v: %v, want %v", u, got, want)
		}
	}
	for _, x := range []float64{0, 1e-300, 40, math.Inf(1)} {
		if s := size(x); math.Abs(s) != 4.5 {
			t.Errorf("of %v: %v", x, s)
		}
	}
}

// TestConstant: what never varies is a failure, and not left out.
func TestConstant(t *testing.T) {
	for _, constant := range []float64{0, 0.3, 1e9} {
		p := newDependence(3)
		src := noise.NewSeeded(4)
		for range 20 {
			p.add([]float64{normal(src), constant, normal(src)})
		}
		if r, i, j, pvalue := p.strongest(); r != 1 || i != 1 || j != 1 || pvalue > 1e-50 {
			t.Errorf("of %v: %v, %d, %d, p = %v", constant, r, i, j, pvalue)
		}
	}
}
