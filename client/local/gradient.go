package local

import (
	"math"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"gonum.org/v1/gonum/floats"
)

// update stores what the next U follows from, the gradient and its
// preconditioner or the statistics of the least-squares update, and marks the
// bins that ride along.
func (c *Contributor) update(dst []float64, s *lowrank.State, data Samples) error {
	fit, err := c.Solver.solve(&s.Model, data)
	if err != nil {
		return err
	}
	m := float64(len(data.Y))
	free := m - fit.Freedom
	if free < 1e-6*m {
		return nil // the fit has used up the samples: they say nothing of U
	}
	lowrank.MarkBin(c.layout.Part(lowrank.PartNoise, dst), floats.Norm(fit.Resid, 2)/math.Sqrt(free))
	if part := c.layout.Part(lowrank.PartSize, dst); part != nil {
		square := floats.Dot(fit.W, fit.W)
		for a := range fit.W {
			square += fit.Cov[a*len(fit.W)+a]
		}
		lowrank.MarkBin(part, math.Sqrt(square))
	}
	main := c.layout.Part(lowrank.PartMain, dst)
	if s.Config.Update == lowrank.LeastSquares {
		c.statistics(main, s, data, fit)
	} else {
		balance := c.gradient(main, s, data, fit, free)
		lowrank.MarkBin(c.layout.Part(lowrank.PartBalance, dst), balance)
	}
	normalise(main)
	return nil
}

// gradient stores [G ; kappa P], see lowrank.State.Advance, and returns
// ||G|| / ||P||:
//
//	G = -X^T e w~^T + X^T X U V,   P = (m - f) (w~ w~^T + V),
//
// in whitened features, with e the residual, w~ = w, or (1, w) where the
// method is centred, and V the posterior covariance of w. G is d x columns,
// column by column; P packed.
func (c *Contributor) gradient(main []float64, s *lowrank.State, data Samples, fit *Fit, free float64) float64 {
	d := s.Config.Dim
	first := len(s.Center) / d // 1 if centred
	cols := s.Config.Rank + first
	c.cross = grow(c.cross, data.Width(d))
	c.Solver.crossResidual(c.cross)
	for col := range cols {
		c.gradientColumn(main[col*d:(col+1)*d], col-first, s, data, fit)
	}
	gradient, precondition := main[:d*cols], main[d*cols:]
	secondMoment(precondition, first, fit, free)
	ratio := floats.Norm(gradient, 2) / max(floats.Norm(precondition, 2), smallestSquare)
	floats.Scale(s.Balance, precondition)
	return ratio
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
			t := c.Solver.t
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
func secondMoment(dst []float64, first int, fit *Fit, f float64) {
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
