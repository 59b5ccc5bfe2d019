package lowrank

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/undertone-fl/undertone/aggregation"
	"gonum.org/v1/gonum/floats"
)

// ErrFinished says that the schedule has no release left.
var ErrFinished = errors.New("lowrank: no release is left")

// ErrNotFinite says that a sum holds, or a step led to, what is no number.
var ErrNotFinite = errors.New("lowrank: not finite")

// State is what a schedule has released so far: all of it public, all of it
// computed from noised sums and public numbers. A state is not changed once
// it is made; Advance makes the next.
type State struct {
	Config Config `json:"config"`
	// Step counts the releases done; it indexes Config.Phases.
	Step  int   `json:"step"`
	Model Model `json:"model"` // for clients

	White Whitening `json:"white"`
	// Basis is U in whitened features, d x r, stored column by column, with
	// orthonormal columns; Center the mean there.
	Basis  []float64 `json:"basis,omitempty"`
	Center []float64 `json:"center,omitempty"`
	// Balance is the weight kappa of the preconditioner beside the gradient in
	// a contribution.
	Balance float64 `json:"balance"`
	// Change is how far the last update turned U and moved the mean:
	// ||(I - U U^T) U_new||_F + ||mean_new - mean||.
	Change float64 `json:"change"`
	// Trace is kept where Config asks for it: how the states up to this one were, in order.
	Trace []Measure `json:"trace,omitempty"`
}

// preconditionerShare is beta: the norm of the preconditioner in a typical
// contribution, beside a gradient of norm 1. It costs 4 % of the gradient's
// signal; the step divides by few numbers, which need less.
const preconditionerShare = 0.3

// largestRatio bounds ||G|| / ||P||, in whitened features the relative error of
// U with what few samples add to it: more than a few is noise.
const largestRatio = 4

// largestMean bounds the norm of the mean of theta, in whitened features and
// scaled responses, whose own size is 1: more would explain more than there is.
const largestMean = 2

// Before anything is known of w and the responses, in whitened features and
// scaled responses: each coordinate of w explains a tenth of the variance.
const (
	firstPrior         = 0.1
	firstNoiseVariance = 0.8
)

// Start returns the state before the first release.
func (c Config) Start() *State {
	s := &State{Config: c, Balance: preconditionerShare}
	s.Model.Dim = c.Dim
	if c.Centred {
		s.Center = make([]float64, c.Dim)
		s.Model.Mean = make([]float64, c.Dim)
		s.Model.NoiseVariance = firstNoiseVariance
	}
	return s
}

// Phase returns the release that comes next, false at the end.
func (s *State) Phase() (Phase, bool) {
	phases := s.Config.Phases()
	if s.Step >= len(phases) {
		return Phase{}, false
	}
	return phases[s.Step], true
}

// Advance returns the state after the next release. sum is the noised sum of
// the contributions, laid out as Config.Layout says; sd the standard
// deviation of the noise in each of its coordinates, 0 without noise. Neither
// the receiver nor sum is changed. Fails with ErrFinished, ErrNotFinite, or
// aggregation.ErrLength.
func (s *State) Advance(sum []float64, sd float64) (*State, error) {
	phase, ok := s.Phase()
	if !ok {
		return nil, ErrFinished
	}
	layout := s.Config.Layout(phase.Kind)
	if len(sum) != layout.Len() {
		return nil, fmt.Errorf("%w: a sum of %d coordinates instead of %d", aggregation.ErrLength, len(sum), layout.Len())
	}
	if !finite(sum) || !(sd >= 0) || math.IsInf(sd, 0) {
		return nil, fmt.Errorf("%w: a sum, or its noise of standard deviation %g", ErrNotFinite, sd)
	}
	next := s.clone()
	next.Step++
	measured := Measure{Step: next.Step}
	main := layout.Part(PartMain, sum)
	var err error
	switch phase.Kind {
	case Scales:
		next.learnScales(main, sd)
	case Items:
		next.learnItems(main, sd)
	case Moments:
		err = next.learnMoments(main, sd)
	case Initialise:
		err = next.initialise(main, sd)
	case Refine:
		err = next.refine(layout, sum, sd, &measured)
	}
	if err != nil {
		return nil, err
	}
	next.boundMean()
	if phase.Kind == Refine {
		next.Change = next.distance(s)
		measured.Change = next.Change
	}
	if part := layout.Part(PartResponse, sum); part != nil {
		if size, _, ok := typical(part, sd); ok {
			next.Model.Scale, measured.Scale = size, size
		}
	}
	next.materialise()
	if err := next.check(); err != nil {
		return nil, err
	}
	if s.Config.Trace {
		next.measure(measured)
	}
	return next, nil
}

// refine takes one update, and the scales that rode along with it, into measured as well.
func (s *State) refine(layout aggregation.Layout, sum []float64, sd float64, measured *Measure) error {
	var size float64 // mean square of ||w||, 0 where unknown
	if part := layout.Part(PartSize, sum); part != nil {
		_, size, _ = typical(part, sd)
	}
	update := s.gradient
	if s.Config.Update == LeastSquares {
		update = s.leastSquares
	}
	if err := update(layout.Part(PartMain, sum), sd, size); err != nil {
		return err
	}
	if part := layout.Part(PartBalance, sum); part != nil {
		if ratio, _, ok := typical(part, sd); ok {
			s.Balance = preconditionerShare * min(ratio, largestRatio)
		}
	}
	if _, square, ok := typical(layout.Part(PartNoise, sum), sd); ok {
		s.Model.NoiseVariance, measured.NoiseVariance = square, square
	}
	return nil
}

// clone copies what a step changes in place; it replaces the rest.
func (s *State) clone() *State {
	next := *s
	next.Basis = slices.Clone(s.Basis)
	next.Center = slices.Clone(s.Center)
	next.Model.Prior = slices.Clone(s.Model.Prior)
	return &next
}

// check fails with ErrNotFinite unless all of the state is numbers.
func (s *State) check() error {
	for _, x := range [][]float64{
		s.Model.U, s.Model.Mean, s.Model.Prior, s.Basis, s.Center, s.White.Diagonal, s.White.Dense,
		{s.Model.Scale, s.Model.NoiseVariance, s.Balance, s.Change},
	} {
		if !finite(x) {
			return fmt.Errorf("%w: a step", ErrNotFinite)
		}
	}
	return nil
}

// materialise derives the clients' model from the whitened one.
func (s *State) materialise() {
	d, r := s.Config.Dim, len(s.Basis)/s.Config.Dim
	s.Model.Rank = r
	s.Model.U = make([]float64, d*r)
	for c := range r {
		s.White.Raw(s.Model.Column(c), s.column(c))
	}
	if s.Config.Centred {
		s.Model.Mean = make([]float64, d)
		s.White.Raw(s.Model.Mean, s.Center)
	}
}

func (s *State) column(c int) []float64 {
	d := s.Config.Dim
	return s.Basis[c*d : (c+1)*d]
}

// distance is Change, from an earlier state to s.
func (s *State) distance(from *State) float64 {
	var out float64
	off := make([]float64, s.Config.Dim)
	for a := range s.Config.Rank {
		copy(off, s.column(a))
		for b := range s.Config.Rank {
			floats.AddScaled(off, -floats.Dot(from.column(b), s.column(a)), from.column(b))
		}
		out = math.Hypot(out, floats.Norm(off, 2))
	}
	if s.Config.Centred {
		out += floats.Distance(s.Center, from.Center, 2)
	}
	return out
}

// boundMean keeps the mean within largestMean.
func (s *State) boundMean() {
	if n := floats.Norm(s.Center, 2); n > largestMean {
		floats.Scale(largestMean/n, s.Center)
	}
}
