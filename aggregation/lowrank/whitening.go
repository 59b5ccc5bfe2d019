package lowrank

import (
	"math"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// Whitening is the public linear map W from parameters of whitened features,
// x' = W^T x with second moment I, to those of the features as they are:
// theta = W theta'. In whitened features one step size fits all directions,
// and the Newton step of an update needs no more than r x r numbers. The zero
// value is the identity.
type Whitening struct {
	Diagonal []float64 `json:"diagonal,omitempty"` // d
	Dense    []float64 `json:"dense,omitempty"`    // d x d, row-major; Diagonal is then unused
}

// Raw stores W theta in dst: parameters of the features as they are. dst and
// theta may not overlap.
func (w *Whitening) Raw(dst, theta []float64) {
	d := len(theta)
	switch {
	case w.Dense != nil:
		for i := range dst {
			dst[i] = floats.Dot(w.Dense[i*d:(i+1)*d], theta)
		}
	case w.Diagonal != nil:
		floats.MulTo(dst, w.Diagonal, theta)
	default:
		copy(dst, theta)
	}
}

// Pull stores W^T x in dst: features, or a gradient, in whitened coordinates.
// dst and x may not overlap.
func (w *Whitening) Pull(dst, x []float64) {
	d := len(x)
	switch {
	case w.Dense != nil:
		clear(dst)
		for i, v := range x {
			if v != 0 {
				floats.AddScaled(dst, v, w.Dense[i*d:(i+1)*d])
			}
		}
	case w.Diagonal != nil:
		floats.MulTo(dst, w.Diagonal, x)
	default:
		copy(dst, x)
	}
}

// smallestEigenvalue is the share of the mean eigenvalue below which a
// direction of the features counts as absent: below it lies the rounding of
// sums over many users.
const smallestEigenvalue = 1e-8

// inverseRoot returns v^-1/2 for an eigenvalue v of mean 1 with noise nu, and 0
// for one that is absent. Its deviation from 1 counts for what stands out of
// the noise, and it is not taken as less than the noise, as the inverse root
// of what noise made small would blow it up.
func inverseRoot(v, nu float64) float64 {
	deviation := v - 1
	deviation *= gain(math.Abs(deviation), nu)
	if v := max(1+deviation, min(nu, 1)); v > smallestEigenvalue {
		return 1 / math.Sqrt(v)
	}
	return 0
}

// whiten replaces a diagonal W by W S^{-1/2}, S the noised second moment of
// the features under the diagonal, of mean eigenvalue 1 and spectral noise nu.
// Fails with ErrNotFinite.
//
// Without signal W stays as it is; see inverseRoot.
func (w *Whitening) whiten(s *mat.SymDense, nu float64) error {
	values, vectors, err := eigen(s)
	if err != nil {
		return err
	}
	d := len(values)
	changed := false
	scaled := mat.NewDense(d, d, nil)
	for c, v := range values {
		f := inverseRoot(v, nu)
		changed = changed || f != 1
		for i := range d {
			scaled.Set(i, c, f*vectors.At(i, c))
		}
	}
	if !changed {
		return nil
	}
	var root mat.Dense
	root.Mul(scaled, vectors.T())
	w.Dense = root.RawMatrix().Data
	for i, v := range w.Diagonal {
		floats.Scale(v, w.Dense[i*d:(i+1)*d])
	}
	return nil
}
