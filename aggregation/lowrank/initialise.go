package lowrank

import (
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
func (s *State) initialise(sum []float64, sd float64) {
	d, r := s.Config.Dim, s.Config.Rank
	var vectors *mat.Dense // d x r, best first
	if s.Config.Sketch > 0 {
		vectors = nystrom(sum, s.Omega(), d, s.Config.Sketch, r, sd)
	} else {
		m := unpack(sum, d)
		if s.Config.Features == OneHot {
			completeDiagonal(m, r)
		}
		vectors = top(m, r)
	}
	s.Basis = orthonormal(vectors)
	s.firstPrior()
}

func (s *State) firstPrior() {
	if !s.Config.Centred {
		return
	}
	r := s.Config.Rank
	s.Model.Prior = make([]float64, r*r)
	for c := range r {
		s.Model.Prior[c*r+c] = firstPrior
	}
}

// top returns the r eigenvectors of the largest eigenvalues, best first.
func top(m *mat.SymDense, r int) *mat.Dense {
	d := m.SymmetricDim()
	out := mat.NewDense(d, r, nil)
	var eigen mat.EigenSym
	if !eigen.Factorize(m, true) {
		for c := range r {
			out.Set(c, c, 1)
		}
		return out
	}
	var v mat.Dense
	eigen.VectorsTo(&v)
	for c := range r {
		out.SetCol(c, mat.Col(nil, d-1-c, &v))
	}
	return out
}

// completeDiagonal replaces the diagonal of a moment matrix of one-hot
// features, which no pair of samples can fill (a user rates an item once), by
// what its own best approximation of rank r has there: principal-axis
// factoring.
func completeDiagonal(m *mat.SymDense, r int) {
	const iterations = 6 // the diagonal settles to a few percent
	d := m.SymmetricDim()
	for j := range d { // the constant has neither
		m.SetSym(d-1, j, 0)
	}
	for range iterations {
		var eigen mat.EigenSym
		if !eigen.Factorize(m, true) {
			return
		}
		values := eigen.Values(nil)
		var v mat.Dense
		eigen.VectorsTo(&v)
		for j := range d {
			var diagonal float64
			for c := d - r; c < d; c++ {
				diagonal += max(0, values[c]) * v.At(j, c) * v.At(j, c)
			}
			m.SetSym(j, j, diagonal)
		}
	}
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
	return orthonormal(g)
}

// nystrom returns the top r eigenvectors of the approximation
// Y (Omega^T Y)^+ Y^T of a positive semidefinite matrix M from its sketch
// Y = M Omega (Halko, Martinsson, Tropp 2011, section 5.5), with the noise of
// the core, sd in each entry, added to its diagonal to keep the inverse
// stable.
func nystrom(sketch, omega []float64, d, q, r int, sd float64) *mat.Dense {
	y := mat.NewDense(q, d, sketch).T()
	o := mat.NewDense(q, d, omega).T()
	var core mat.Dense
	core.Mul(o.T(), y)
	sym := mat.NewSymDense(q, nil)
	for i := range q {
		for j := i; j < q; j++ {
			sym.SetSym(i, j, (core.At(i, j)+core.At(j, i))/2)
		}
	}
	var eigen mat.EigenSym
	out := mat.NewDense(d, r, nil)
	if !eigen.Factorize(sym, true) {
		return out
	}
	values := eigen.Values(nil)
	var v, b mat.Dense
	eigen.VectorsTo(&v)
	floor := max(spectralNoise(sd, q), 1e-12*values[q-1])
	for c, l := range values {
		f := 0.0
		if l > floor {
			f = 1 / math.Sqrt(l)
		}
		for i := range q {
			v.Set(i, c, v.At(i, c)*f)
		}
	}
	b.Mul(y, &v) // B B^T is the approximation
	var svd mat.SVD
	if !svd.Factorize(&b, mat.SVDThin) {
		return out
	}
	var u mat.Dense
	svd.UTo(&u)
	for c := range r {
		out.SetCol(c, mat.Col(nil, c, &u))
	}
	return out
}

// orthonormal returns the Q of a thin QR decomposition, column by column.
func orthonormal(a *mat.Dense) []float64 {
	d, n := a.Dims()
	var qr mat.QR
	qr.Factorize(a)
	var q mat.Dense
	qr.QTo(&q)
	out := make([]float64, d*n)
	for c := range n {
		mat.Col(out[c*d:(c+1)*d], c, &q)
	}
	return out
}
