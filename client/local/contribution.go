package local

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
	white  whitened
	second []float64 // d x d: X^T X
	omega  []float64 // d x q: the sketch of this state's initialisation

	state  *lowrank.State // the one that kind and layout belong to
	kind   lowrank.Kind
	layout aggregation.Layout
}

// Contribute stores the user's contribution to the release that comes next,
// of length Config.Layout(kind).Len(), in dst. It is all that leaves the
// device.
//
// Whatever the samples, each part of it has at most the norm that the layout
// gives it: the main part is divided by its own norm (a weighted M-estimator,
// see package lowrank, so that nothing is clipped and no clip need be
// learned), and a histogram holds one bin. So the whole has at most norm
// Layout.Bound(), the sensitivity that the noise is scaled to: replacing
// one user's contribution by zeros moves the sum by no more. That holds up to
// rounding; dp.Lattice.Encode makes it exact, in integers, before the noise.
//
// A user without samples, or whose samples say nothing, contributes zeros.
//
// Fails with ErrModel (also if no release is left), ErrSamples or
// ErrNotFinite, and if dst has another length. dst is then zero where it has
// that length: the contribution of a device that must not show that it failed.
func (c *Contributor) Contribute(dst []float64, s *lowrank.State, data Samples) error {
	clear(dst)
	if err := c.adopt(s); err != nil {
		return err
	}
	if len(dst) != c.layout.Len() {
		return fmt.Errorf("local: a contribution of %d coordinates instead of %d", len(dst), c.layout.Len())
	}
	err := data.check(s.Config.Dim)
	if err == nil && len(data.Y) > 0 {
		err = c.fill(dst, s, data)
	}
	if err == nil && !(floats.Dot(dst, dst) <= 1.001*c.layout.Bound()*c.layout.Bound()) {
		err = fmt.Errorf("%w: the contribution", ErrNotFinite)
	}
	if err != nil {
		clear(dst)
	}
	return err
}

// adopt prepares for the release that follows s.
func (c *Contributor) adopt(s *lowrank.State) error {
	if c.state == s {
		return nil
	}
	if err := checkState(s); err != nil {
		return err
	}
	phase, ok := s.Phase()
	if !ok {
		return fmt.Errorf("%w: its schedule of %d releases is over", ErrModel, s.Step)
	}
	if phase.Kind == lowrank.Refine && s.Model.Rank != s.Config.Rank {
		return fmt.Errorf("%w: rank %d before an update of rank %d", ErrModel, s.Model.Rank, s.Config.Rank)
	}
	if phase.Kind == lowrank.Initialise && s.Config.Sketch > 0 {
		c.omega = s.Omega()
	}
	c.state, c.kind, c.layout = s, phase.Kind, s.Config.Layout(phase.Kind)
	return nil
}

// checkState fails with ErrModel or ErrNotFinite.
func checkState(s *lowrank.State) error {
	d, center := s.Config.Dim, 0
	if s.Config.Centred {
		center = s.Config.Dim
	}
	switch n, dense := len(s.White.Diagonal), len(s.White.Dense); {
	case d < 1 || s.Config.Rank < 0 || s.Config.Rank > d || s.Config.Sketch < 0 || s.Config.Sketch > d || s.Step < 0:
		return fmt.Errorf("%w: dimension %d, rank %d, sketch %d, step %d", ErrModel, d, s.Config.Rank, s.Config.Sketch, s.Step)
	case s.Model.Dim != d || len(s.Basis) != len(s.Model.U) || len(s.Center) != center:
		return fmt.Errorf("%w: its parts are of different dimensions", ErrModel)
	case s.White.Diagonal != nil && n != d || s.White.Dense != nil && dense != d*d:
		return fmt.Errorf("%w: a whitening of %d and %d entries for %d features", ErrModel, n, dense, d)
	case !(s.Balance > 0 && s.Balance <= largestSquare):
		return fmt.Errorf("%w: balance %v", ErrModel, s.Balance)
	}
	if err := checkSize("state", s.Basis, s.Center, s.White.Diagonal, s.White.Dense); err != nil {
		return err
	}
	return checkModel(&s.Model)
}

// fill adds the contribution to zeros in dst.
func (c *Contributor) fill(dst []float64, s *lowrank.State, data Samples) error {
	main := c.layout.Part(lowrank.PartMain, dst)
	if part := c.layout.Part(lowrank.PartResponse, dst); part != nil {
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
		return c.pairwise(main, s, data)
	case lowrank.Refine:
		return c.update(dst, s, data)
	}
	return nil
}

// rms is the root mean square of x.
func rms(x []float64) float64 { return floats.Norm(x, 2) / math.Sqrt(float64(len(x))) }

// normalise scales x to norm 1; what is as good as zero becomes zero.
func normalise(x []float64) {
	if n := floats.Norm(x, 2); n < smallestSquare {
		clear(x)
	} else {
		floats.Scale(1/n, x)
	}
}
