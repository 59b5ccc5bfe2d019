package local

import (
	"fmt"

	"gonum.org/v1/gonum/floats"
)

// Samples are one user's data: y = X theta + noise.
//
// X is row-major, len(Y) x len(Columns) when Columns is set, else
// len(Y) x d. Columns lists, in increasing order, the features that are not
// zero in every one of the user's rows (one-hot items, say); the others are
// left out of X.
type Samples struct {
	X       []float64
	Y       []float64
	Columns []int32
}

// Width is the number of columns of X, for d features.
func (s *Samples) Width(d int) int {
	if s.Columns != nil {
		return len(s.Columns)
	}
	return d
}

// feature is the feature of column j.
func (s *Samples) feature(j int) int {
	if s.Columns != nil {
		return int(s.Columns[j])
	}
	return j
}

// check fails with ErrSamples or ErrNotFinite if s are no samples of d
// features. It reads X once.
func (s *Samples) check(d int) error {
	p, m := s.Width(d), len(s.Y)
	if len(s.X) != m*p {
		return fmt.Errorf("%w: X has %d entries for %d x %d", ErrSamples, len(s.X), m, p)
	}
	if err := checkColumns(s.Columns, d); err != nil {
		return err
	}
	return checkSize("samples", s.X, s.Y)
}

func checkColumns(columns []int32, d int) error {
	last := -1
	for j, f := range columns {
		if int(f) <= last || int(f) >= d {
			return fmt.Errorf("%w: column %d is feature %d, after %d, of %d features", ErrSamples, j, f, last, d)
		}
		last = int(f)
	}
	return nil
}

// checkSize fails with ErrNotFinite unless every vector's sum of squares is a
// number and small enough.
func checkSize(of string, vectors ...[]float64) error {
	for _, v := range vectors {
		if !(floats.Dot(v, v) <= largestSquare) {
			return fmt.Errorf("%w: in the %s", ErrNotFinite, of)
		}
	}
	return nil
}
