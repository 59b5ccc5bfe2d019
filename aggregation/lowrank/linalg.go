package lowrank

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/lapack/lapack64"
	"gonum.org/v1/gonum/mat"
)

// triangle is the number of entries of a symmetric n x n matrix.
func triangle(n int) int { return n * (n + 1) / 2 }

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

// symmetrised returns (a + a^T)/2, a of n x n.
func symmetrised(a mat.Matrix) *mat.SymDense {
	n, _ := a.Dims()
	s := mat.NewSymDense(n, nil)
	for i := range n {
		for j := i; j < n; j++ {
			s.SetSym(i, j, (a.At(i, j)+a.At(j, i))/2)
		}
	}
	return s
}

// spectralNoise is the spectral norm that the noise in a packed symmetric
// n x n matrix has: its off-diagonal entries have standard deviation
// sd/sqrt(2), its norm tends to 2 sqrt(n) times that (Wigner).
func spectralNoise(sd float64, n int) float64 { return sd * math.Sqrt(2*float64(n)) }

// eigen returns the eigenvalues of m in increasing order, and eigenvectors as
// the columns of a matrix. Fails with ErrNotFinite.
func eigen(m *mat.SymDense) (values []float64, vectors *mat.Dense, err error) {
	var e mat.EigenSym
	if !finite(m.RawSymmetric().Data) || !e.Factorize(m, true) {
		return nil, nil, fmt.Errorf("%w: no eigenvectors", ErrNotFinite)
	}
	vectors = new(mat.Dense)
	e.VectorsTo(vectors)
	return e.Values(nil), vectors, nil
}

// top returns the r eigenvectors of the largest eigenvalues, best first.
func top(m *mat.SymDense, r int) (*mat.Dense, error) {
	_, vectors, err := eigen(m)
	if err != nil {
		return nil, err
	}
	d := m.SymmetricDim()
	out := mat.NewDense(d, r, nil)
	for c := range r {
		out.SetCol(c, mat.Col(nil, d-1-c, vectors))
	}
	return out, nil
}

// floorEigenvalues raises the eigenvalues of a symmetric n x n matrix to a
// floor, and to what survives rounding beside the largest. Fails with
// ErrNotFinite.
func floorEigenvalues(a []float64, n int, floor float64) error {
	values, v, err := eigen(symmetrised(mat.NewDense(n, n, a)))
	if err != nil {
		return err
	}
	floor = max(floor, rounding*values[n-1])
	clear(a)
	for c, l := range values {
		for i := range n {
			for j := range n {
				a[i*n+j] += max(l, floor) * v.At(i, c) * v.At(j, c)
			}
		}
	}
	return nil
}

// thinQR returns the first n columns of Q, stored column by column, and the
// upper triangular R, n x n, of a = Q R, d x n with n <= d. mat.QR's Q would
// be d x d.
func thinQR(a mat.Matrix) (q []float64, r *mat.TriDense) {
	d, n := a.Dims()
	factors := mat.DenseCopyOf(a)
	raw := factors.RawMatrix()
	tau, work := make([]float64, n), make([]float64, 1)
	lapack64.Geqrf(blas64.General(raw), tau, work, -1)
	work = make([]float64, int(work[0]))
	lapack64.Geqrf(blas64.General(raw), tau, work, len(work))
	r = mat.NewTriDense(n, mat.Upper, nil)
	for i := range n {
		for j := i; j < n; j++ {
			r.SetTri(i, j, factors.At(i, j))
		}
	}
	lapack64.Orgqr(blas64.General(raw), tau, work, -1)
	work = make([]float64, int(work[0]))
	lapack64.Orgqr(blas64.General(raw), tau, work, len(work))
	q = make([]float64, d*n)
	for c := range n {
		mat.Col(q[c*d:(c+1)*d], c, factors)
	}
	return q, r
}

// gain is the positive-part James-Stein factor (James, Stein 1961): the share
// of a squared norm that noise of this expected norm does not explain.
func gain(norm, noise float64) float64 {
	switch {
	case noise == 0:
		return 1
	case !(norm > noise):
		return 0
	}
	return 1 - (noise/norm)*(noise/norm)
}

// shrink multiplies x, an estimate with noise sd in each coordinate, by its
// gain.
func shrink(x []float64, sd float64) {
	floats.Scale(gain(floats.Norm(x, 2), sd*math.Sqrt(float64(len(x)))), x)
}

// finite reports whether x holds numbers only.
func finite(x []float64) bool {
	for _, v := range x {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return false
		}
	}
	return true
}
