package client

import (
	"fmt"
	"math"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"gonum.org/v1/gonum/floats"
)

// Contributor computes what one user after another sends: the client's half
// of the method, whose other half is lowrank.State.Advance. It serves one
// goroutine and, once its storage has grown, does not allocate.
type Contributor struct {
	Solver Solver

	cross  []float64 // p: X^T residual
	column []float64 // p: a column of the gradient, on the user's features
	full   []float64 // d: the same on all
	white  white
	second []float64 // d x d
	omega  []float64 // d x q, of the dimensions last seen

	state  *lowrank.State // the layout's
	kind   lowrank.Kind
	layout aggregation.Layout
}

// Contribute stores the user's contribution to the release that comes next,
// of length Config.Layout(kind).Len(), in dst. Its parts keep within the
// layout's bounds up to rounding; dp.Lattice.Encode makes the bound exact. A
// user without samples, or whose samples say nothing, contributes zeros.
//
// Fails if no release is left.
func (c *Contributor) Contribute(dst []float64, s *lowrank.State, data Samples) error {
	if c.state != s {
		phase, ok := s.Phase()
		if !ok {
			return fmt.Errorf("client: the schedule of %d releases is over", s.Step)
		}
		c.state, c.kind, c.layout = s, phase.Kind, s.Config.Layout(phase.Kind)
	}
	layout := c.layout
	if len(dst) != layout.Len() {
		return fmt.Errorf("client: a contribution of %d coordinates instead of %d", len(dst), layout.Len())
	}
	clear(dst)
	if len(data.Y) == 0 {
		return nil
	}
	main := layout.Part(lowrank.PartMain, dst)
	if part := layout.Part(lowrank.PartResponse, dst); part != nil {
		lowrank.MarkBin(part, rms(data.Y))
	}
	switch c.kind {
	case lowrank.Scales:
		c.scales(main, s, data)
	case lowrank.Items:
		c.items(main, s, data)
	case lowrank.Moments:
		c.moments(main, s, data)
	case lowrank.Initialise:
		c.pairwise(main, s, data)
	case lowrank.Refine:
		c.update(dst, layout, s, data)
	}
	return nil
}

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
	if n := floats.Norm(count, 2); n > 0 {
		floats.Scale(math.Sqrt2/2/n, count)
		if size := rms(data.Y); size > 0 {
			floats.Scale(math.Sqrt2/2/(n*size), response)
		}
		if n := floats.Norm(response, 2); n > math.Sqrt2/2 { // an item rated twice
			floats.Scale(math.Sqrt2/2/n, response)
		}
	}
}

// moments stores [X^T X ; X^T y / rms(y)] of norm 1, X under the diagonal
// whitening.
func (c *Contributor) moments(main []float64, s *lowrank.State, data Samples) {
	d := s.Config.Dim
	w := &c.white
	w.load(&lowrank.Whitening{Diagonal: s.White.Diagonal}, d, data)
	second := main[:d*(d+1)/2]
	for i := range data.Y {
		addOuter(second, d, w.row(i), w.columns, 1)
	}
	packed(second, d)
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

// pairwise stores the user's moment of pairs of samples, see
// lowrank.State.Advance, or its sketch.
func (c *Contributor) pairwise(main []float64, s *lowrank.State, data Samples) {
	d, q := s.Config.Dim, s.Config.Sketch
	alone := s.Model // no shared subspace yet
	alone.Rank, alone.U, alone.Prior, alone.NoiseVariance = 0, nil, nil, 0
	e := c.Solver.Solve(&alone, data).Resid
	w := &c.white
	w.load(&s.White, d, data)
	c.column = grow(c.column, w.width)
	clear(c.column)
	for i, v := range e {
		floats.AddScaled(c.column, v, w.row(i))
	}
	if q == 0 {
		addOuter(main, d, c.column, w.columns, 1)
		for i, v := range e {
			addOuter(main, d, w.row(i), w.columns, -v*v)
		}
		packed(main, d)
	} else {
		if len(c.omega) != d*q {
			c.omega = s.Omega()
		}
		c.addSketch(main, d, c.column, 1)
		for i, v := range e {
			c.addSketch(main, d, w.row(i), -v*v)
		}
	}
	normalise(main)
}

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

// update stores the gradient and its preconditioner, or the statistics of the
// least-squares update, and marks the bins that ride along.
func (c *Contributor) update(dst []float64, layout aggregation.Layout, s *lowrank.State, data Samples) {
	fit := c.Solver.Solve(&s.Model, data)
	free := float64(len(data.Y)) - fit.Freedom
	if free < 1e-6*float64(len(data.Y)) {
		return // the fit has used up the samples: they say nothing of U
	}
	lowrank.MarkBin(layout.Part(lowrank.PartNoise, dst), floats.Norm(fit.Resid, 2)/math.Sqrt(free))
	if part := layout.Part(lowrank.PartSize, dst); part != nil {
		square := floats.Dot(fit.W, fit.W)
		for c := range fit.W {
			square += fit.Cov[c*len(fit.W)+c]
		}
		lowrank.MarkBin(part, math.Sqrt(square))
	}
	main := layout.Part(lowrank.PartMain, dst)
	if s.Config.Update == lowrank.LeastSquares {
		c.statistics(main, s, data, fit)
		normalise(main)
		return
	}
	d, r := s.Config.Dim, s.Config.Rank
	first := len(s.Center) / d // 1 if centred
	cols := r + first
	c.cross = grow(c.cross, data.Width(d))
	c.Solver.CrossResidual(c.cross)
	for col := range cols {
		c.gradientColumn(main[col*d:(col+1)*d], col-first, s, data, fit)
	}
	gradient, precondition := main[:d*cols], main[d*cols:]
	c.secondMoment(precondition, first, fit, free)
	g, p := floats.Norm(gradient, 2), floats.Norm(precondition, 2)
	if !(p > 0) {
		return
	}
	lowrank.MarkBin(layout.Part(lowrank.PartBalance, dst), g/p)
	floats.Scale(s.Balance, precondition)
	normalise(main)
}

// gradientColumn stores column w of the gradient in whitened features,
// -X^T e w + X^T X U V_w; w = -1 is that of the mean, whose coordinate is 1.
func (c *Contributor) gradientColumn(dst []float64, w int, s *lowrank.State, data Samples, fit *Fit) {
	d, r := s.Config.Dim, s.Config.Rank
	p := len(c.cross)
	c.column = grow(c.column, p)
	copy(c.column, c.cross)
	if w < 0 {
		floats.Scale(-1, c.column)
	} else {
		floats.Scale(-fit.W[w], c.column)
		if s.Model.Prior != nil {
			t := c.Solver.CrossGram()
			for b := range r {
				floats.AddScaled(c.column, fit.Cov[b*r+w], t[b*p:(b+1)*p])
			}
		}
	}
	c.pull(dst, d, &s.White, data, c.column)
}

// pull brings a vector over the user's features into whitened ones.
func (c *Contributor) pull(dst []float64, d int, white *lowrank.Whitening, data Samples, x []float64) {
	if data.Columns == nil {
		white.Pull(dst, x)
		return
	}
	c.full = grow(c.full, d)
	clear(c.full)
	for j, f := range data.Columns {
		c.full[f] = x[j]
	}
	white.Pull(dst, c.full)
}

// secondMoment stores f (w~ w~^T + V), packed.
func (c *Contributor) secondMoment(dst []float64, first int, fit *Fit, f float64) {
	r := len(fit.W)
	at := 0
	for a := -first; a < r; a++ {
		for b := a; b < r; b++ {
			v := 1.0
			if a >= 0 {
				v = fit.W[a]*fit.W[b] + fit.Cov[a*r+b]
			} else if b >= 0 {
				v = fit.W[b]
			}
			if a != b {
				v *= math.Sqrt2
			}
			dst[at] = f * v
			at++
		}
	}
}

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

// rms is the root mean square of x.
func rms(x []float64) float64 { return floats.Norm(x, 2) / math.Sqrt(float64(len(x))) }

// normalise scales x to norm 1; zeros stay.
func normalise(x []float64) {
	if n := floats.Norm(x, 2); n > 0 && !math.IsInf(n, 0) {
		floats.Scale(1/n, x)
	}
}
