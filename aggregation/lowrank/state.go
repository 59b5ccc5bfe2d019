package lowrank

import (
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// ErrNotFinite says that a step led to numbers that are none; the state
// before it stands.
var ErrNotFinite = errors.New("lowrank: a step did not stay finite")

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
}

// preconditionerShare is beta: the norm of the preconditioner in a typical
// contribution, beside a gradient of norm 1.
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
// deviation of the noise in each of its coordinates, 0 without noise. The
// receiver is not changed. Fails with ErrNotFinite.
func (s *State) Advance(sum []float64, sd float64) (*State, error) {
	phase, ok := s.Phase()
	if !ok {
		return nil, errors.New("lowrank: no release is left")
	}
	layout := s.Config.Layout(phase.Kind)
	if len(sum) != layout.Len() {
		return nil, fmt.Errorf("lowrank: a sum of %d coordinates instead of %d", len(sum), layout.Len())
	}
	next := s.clone()
	next.Step++
	main := layout.Part(PartMain, sum)
	switch phase.Kind {
	case Scales:
		next.learnScales(main, sd)
	case Items:
		next.learnItems(main, sd)
	case Moments:
		next.learnMoments(main, sd)
	case Initialise:
		next.initialise(main, sd)
	case Refine:
		if s.Config.Update == LeastSquares {
			next.leastSquares(main, sd)
		} else {
			next.gradient(main, sd)
			if ratio, _, ok := typical(layout.Part(PartBalance, sum), sd); ok {
				next.Balance = preconditionerShare * min(ratio, largestRatio)
			}
		}
		if part := layout.Part(PartSize, sum); part != nil {
			_, square, ok := typical(part, sd)
			next.scalePrior(square, ok)
		}
		if _, square, ok := typical(layout.Part(PartNoise, sum), sd); ok {
			next.Model.NoiseVariance = square
		}
		next.Change = next.distance(s)
	}
	if part := layout.Part(PartResponse, sum); part != nil {
		if size, _, ok := typical(part, sd); ok {
			next.Model.Scale = size
		}
	}
	next.materialise()
	if !finite(next.Model.U) || !finite(next.Model.Mean) || !finite(next.Model.Prior) {
		return nil, ErrNotFinite
	}
	return next, nil
}

func (s *State) clone() *State {
	next := *s
	next.Basis = append([]float64(nil), s.Basis...)
	next.Center = append([]float64(nil), s.Center...)
	next.White.Diagonal = append([]float64(nil), s.White.Diagonal...)
	next.White.Dense = append([]float64(nil), s.White.Dense...)
	next.Model.Prior = append([]float64(nil), s.Model.Prior...)
	return &next
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
	d, r := s.Config.Dim, s.Config.Rank
	off := float64(r)
	for a := range r {
		for b := range r {
			v := floats.Dot(s.column(a), from.column(b))
			off -= v * v
		}
	}
	out := math.Sqrt(max(0, off))
	if len(s.Center) == d && len(from.Center) == d {
		out += floats.Distance(s.Center, from.Center, 2)
	}
	return out
}

// unpack reads a symmetric n x n matrix from its upper triangle, packed row by
// row with off-diagonal entries times sqrt(2), so that the packed vector has
// the matrix' Frobenius norm.
func unpack(packed []float64, n int) *mat.SymDense {
	s := mat.NewSymDense(n, nil)
	at := 0
	for i := range n {
		for j := i; j < n; j++ {
			v := packed[at]
			if i != j {
				v /= math.Sqrt2
			}
			s.SetSym(i, j, v)
			at++
		}
	}
	return s
}

// spectralNoise is the spectral norm that the noise in a packed symmetric
// n x n matrix has: its off-diagonal entries have standard deviation
// sd/sqrt(2), its norm tends to 2 sqrt(n) times that (Wigner).
func spectralNoise(sd float64, n int) float64 { return sd * math.Sqrt(2*float64(n)) }
