package lowrank

import (
	"fmt"
	"math/rand/v2"

	"gonum.org/v1/gonum/mat"
)

// initialise sets U to the top eigenvectors of the noised sum of the users'
// pairwise moments
//
//	M_i = sum_{j != j'} e_j e_j' x_j x_j'^T / ||.||_F,   e = y - X (mean + b),
//
// in whitened features. Leaving out j = j' removes the bias of the response
// noise; taking the sparse part out first, and dividing by the user's own
// norm, leaves no scale to learn and nothing to clip.
func (s *State) initialise(sum []float64, sd float64) error {
	d, r := s.Config.Dim, s.Config.Rank
	var vectors *mat.Dense // d x r, best first
	var err error
	if q := s.Config.Sketch; q > 0 {
		vectors, err = rangeFinder(sum, d, q, r)
	} else {
		m := unpack(sum, d)
		if s.Config.Features == OneHot {
			err = completeDiagonal(m, r)
		}
		if err == nil {
			vectors, err = top(m, r)
		}
	}
	if err != nil {
		return err
	}
	s.Basis, _ = thinQR(vectors)
	if s.Config.Centred {
		s.Model.Prior = make([]float64, r*r)
		for c := range r {
			s.Model.Prior[c*r+c] = firstPrior
		}
	}
	return nil
}

// completeDiagonal replaces the diagonal of a moment matrix of one-hot
// features, which no pair of samples can fill (a user rates an item once), by
// what its own best approximation of rank r has there: principal-axis
// factoring (Harman, Modern Factor Analysis, chapter 8), from zero, as what
// there is is noise alone. The last feature, the constant, has no moments.
func completeDiagonal(m *mat.SymDense, r int) error {
	const iterations = 6 // the diagonal settles to a few percent
	d := m.SymmetricDim()
	for j := range d {
		m.SetSym(j, j, 0)
		m.SetSym(d-1, j, 0)
	}
	for range iterations {
		values, vectors, err := eigen(m)
		if err != nil {
			return err
		}
		for j := range d {
			var diagonal float64
			for c := d - r; c < d; c++ {
				diagonal += max(0, values[c]) * vectors.At(j, c) * vectors.At(j, c)
			}
			m.SetSym(j, j, diagonal)
		}
	}
	return nil
}

// Omega is the public test matrix of the sketch, d x q with orthonormal
// columns, stored column by column: the same for everybody.
func (s *State) Omega() []float64 {
	d, q := s.Config.Dim, s.Config.Sketch
	r := rand.New(rand.NewPCG(uint64(d), uint64(q)))
	g := mat.NewDense(d, q, nil)
	for i := range d {
		for c := range q {
			g.Set(i, c, float64(2*r.IntN(2)-1)) // a random sign
		}
	}
	omega, _ := thinQR(g)
	return omega
}

// rangeFinder returns the r leading left singular vectors of the sketch
// Y = M Omega, d x q stored column by column: an approximate basis of M's
// leading range (Halko, Martinsson, Tropp 2011, section 4). Approximations
// that also divide by Omega^T Y need a positive semidefinite M; a pairwise
// moment is not one, and they blow its small eigenvalues up.
func rangeFinder(sketch []float64, d, q, r int) (*mat.Dense, error) {
	var svd mat.SVD
	if !svd.Factorize(mat.NewDense(q, d, sketch).T(), mat.SVDThin) {
		return nil, fmt.Errorf("%w: no singular vectors", ErrNotFinite)
	}
	var u mat.Dense
	svd.UTo(&u)
	return mat.DenseCopyOf(u.Slice(0, d, 0, r)), nil
}
