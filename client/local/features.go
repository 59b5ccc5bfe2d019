package local

import (
	"math"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"gonum.org/v1/gonum/floats"
)

// What users send before there is a U: statistics of the features, and the
// moments that U starts from.

// scales marks the bin of each feature's root mean square.
func (c *Contributor) scales(main []float64, s *lowrank.State, data Samples) {
	d := s.Config.Dim
	p := data.Width(d)
	bins := len(main) / d
	c.column = grow(c.column, p)
	clear(c.column)
	for i := range data.Y {
		for j, v := range data.X[i*p : (i+1)*p] {
			c.column[j] += v * v
		}
	}
	for j, v := range c.column {
		if b := lowrank.ScaleBin(math.Sqrt(v / float64(len(data.Y)))); b >= 0 {
			main[data.feature(j)*bins+b] = 1 / math.Sqrt(float64(d))
		}
	}
}

// items adds up counts and responses by item. Each half has norm 1/sqrt(2),
// the responses in units of the user's own root mean square.
func (c *Contributor) items(main []float64, s *lowrank.State, data Samples) {
	d := s.Config.Dim
	p := data.Width(d)
	count, response := main[:d], main[d:]
	for i, y := range data.Y {
		for j, v := range data.X[i*p : (i+1)*p] {
			if f := data.feature(j); v != 0 && f != d-1 {
				count[f] += v
				response[f] += v * y
			}
		}
	}
	n, size := floats.Norm(count, 2), rms(data.Y)
	if n < smallestSquare {
		clear(main)
		return
	}
	floats.Scale(math.Sqrt2/2/n, count)
	floats.Scale(math.Sqrt2/2/n/max(size, smallestSquare), response)
	if n := floats.Norm(response, 2); n > math.Sqrt2/2 { // an item rated twice
		floats.Scale(math.Sqrt2/2/n, response)
	}
}

// moments stores [X^T X ; X^T y / rms(y)] of norm 1, X under the diagonal
// whitening.
func (c *Contributor) moments(main []float64, s *lowrank.State, data Samples) {
	d := s.Config.Dim
	w := &c.white
	w.load(&lowrank.Whitening{Diagonal: s.White.Diagonal}, d, data)
	var second []float64
	if d > lowrank.LargestMoment {
		second = main[:d]
		for i := range data.Y {
			for j, v := range w.row(i) {
				second[w.feature(j)] += v * v
			}
		}
	} else {
		second = main[:d*(d+1)/2]
		for i := range data.Y {
			addOuter(second, d, w.row(i), w.columns, 1)
		}
		packed(second, d)
	}
	if size := rms(data.Y); s.Config.Centred && size > 0 {
		cross := main[len(second):]
		for i, y := range data.Y {
			y /= size
			for j, v := range w.row(i) {
				cross[w.feature(j)] += y * v
			}
		}
	}
	normalise(main)
}

// pairwise stores the user's moment of pairs of samples of norm 1, or its
// sketch:
//
//	sum_{j != j'} e_j e_j' x_j x_j'^T = (X^T e)(X^T e)^T - sum_j e_j^2 x_j x_j^T
//
// in whitened features, with e = y - X (mean + b). Leaving out j = j' leaves
// out what the response noise alone makes of it.
func (c *Contributor) pairwise(main []float64, s *lowrank.State, data Samples) error {
	d := s.Config.Dim
	alone := s.Model // no shared subspace yet
	alone.Rank, alone.U, alone.Prior, alone.NoiseVariance = 0, nil, nil, 0
	fit, err := c.Solver.solve(&alone, data)
	if err != nil {
		return err
	}
	w := &c.white
	w.load(&s.White, d, data)
	c.column = grow(c.column, w.width)
	clear(c.column)
	var diagonal float64
	for i, e := range fit.Resid {
		row := w.row(i)
		floats.AddScaled(c.column, e, row)
		diagonal += e * e * floats.Dot(row, row)
	}
	if s.Config.Sketch == 0 {
		addOuter(main, d, c.column, w.columns, 1)
		for i, e := range fit.Resid {
			addOuter(main, d, w.row(i), w.columns, -e*e)
		}
		packed(main, d)
	} else {
		c.addSketch(main, d, c.column, 1)
		for i, e := range fit.Resid {
			c.addSketch(main, d, w.row(i), -e*e)
		}
	}
	if floats.Norm(main, 2) <= cancelled*diagonal {
		clear(main) // one sample, say, has no pairs
	}
	normalise(main)
	return nil
}

// cancelled is the share of the two terms that is left by rounding when they
// are equal.
const cancelled = 1e-12

// addSketch adds f x x^T Omega to main, d x q stored column by column.
func (c *Contributor) addSketch(main []float64, d int, x []float64, f float64) {
	for at := 0; at < len(main); at += d {
		var dot float64
		for j, v := range x {
			dot += v * c.omega[at+c.white.feature(j)]
		}
		for j, v := range x {
			main[at+c.white.feature(j)] += f * dot * v
		}
	}
}
