package local

import (
	"math"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"gonum.org/v1/gonum/floats"
)

// statistics stores B = X^T (y - X b) w~^T and A = (w~ w~^T + V) (x) X^T X,
// packed, in whitened features.
func (c *Contributor) statistics(main []float64, s *lowrank.State, data Samples, fit *Fit) {
	d, r := s.Config.Dim, s.Config.Rank
	first := len(s.Center) / d
	n := d * (r + first)
	w := &c.white
	w.load(&s.White, d, data)
	c.second = grow(c.second, d*d)
	clear(c.second)
	c.full = grow(c.full, d)
	clear(c.full)
	for i, e := range fit.Resid {
		row := w.row(i)
		// y - X b = residual + X (mean + U w), in whitened coordinates.
		for j, v := range row {
			f := w.feature(j)
			if first == 1 {
				e += v * s.Center[f]
			}
			for k := range r {
				e += v * fit.W[k] * s.Basis[k*d+f]
			}
		}
		for j, v := range row {
			f := w.feature(j)
			c.full[f] += e * v
			for k, u := range row {
				c.second[f*d+w.feature(k)] += v * u
			}
		}
	}
	coordinate := func(a int) float64 {
		if a < first {
			return 1
		}
		return fit.W[a-first]
	}
	for a := range r + first {
		floats.AddScaled(main[a*d:(a+1)*d], coordinate(a), c.full)
	}
	at := n
	for i := range n {
		a, fa := i/d, i%d
		for j := i; j < n; j++ {
			b, fb := j/d, j%d
			v := coordinate(a) * coordinate(b)
			if a >= first && b >= first {
				v += fit.Cov[(a-first)*r+b-first]
			}
			v *= c.second[fa*d+fb]
			if i != j {
				v *= math.Sqrt2
			}
			main[at] = v
			at++
		}
	}
}
