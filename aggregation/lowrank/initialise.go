package lowrank

import (
	"fmt"
	"math"
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
		vectors, err = nystrom(sum, s.Omega(), d, q, r, sd)
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
			g.Set(i, c, r.NormFloat64())
		}
	}
	omega, _ := thinQR(g)
	return omega
}

// nystrom returns the top r eigenvectors of the approximation
// Y (Omega^T Y)^+ Y^T of a positive semidefinite d x d matrix M from its sketch
// Y = M Omega (Halko, Martinsson, Tropp 2011, section 5.5), sketch and omega
// stored column by column. The pseudoinverse leaves out what does not stand
// out of the core's noise, sd in each entry before it is symmetrised.
func nystrom(sketch, omega []float64, d, q, r int, sd float64) (*mat.Dense, error) {
	y := mat.NewDense(q, d, sketch).T()
	o := mat.NewDense(q, d, omega)
	var core, b mat.Dense
	core.Mul(o, y)
	values, vectors, err := eigen(symmetrised(&core))
	if err != nil {
		return nil, err
	}
	floor := max(spectralNoise(sd, q), rounding*values[q-1])
	for c, l := range values {
		f := 0.0
		if l > floor {
			f = 1 / math.Sqrt(l)
		}
		for i := range q {
			vectors.Set(i, c, vectors.At(i, c)*f)
		}
	}
	b.Mul(y, vectors) // B B^T is the approximation
	var svd mat.SVD
	if !finite(b.RawMatrix().Data) || !svd.Factorize(&b, mat.SVDThin) {
		return nil, fmt.Errorf("%w: no singular vectors", ErrNotFinite)
	}
	var u mat.Dense
	svd.UTo(&u)
	return mat.DenseCopyOf(u.Slice(0, d, 0, r)), nil
}
