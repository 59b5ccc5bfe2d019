package client

import (
	"math"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
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

// white is a user's samples in whitened features.
type white struct {
	x       []float64 // m x width, row-major
	width   int
	columns []int32 // as in Samples
	full    []float64
}

func (w *white) load(by *lowrank.Whitening, d int, data Samples) {
	p, m := data.Width(d), len(data.Y)
	switch {
	case by.Dense != nil:
		w.width, w.columns = d, nil
		w.x = grow(w.x, m*d)
		w.full = grow(w.full, d)
		for i := range m {
			row := data.X[i*p : (i+1)*p]
			if data.Columns != nil {
				clear(w.full)
				for j, v := range row {
					w.full[data.Columns[j]] = v
				}
				row = w.full
			}
			by.Pull(w.x[i*d:(i+1)*d], row)
		}
	case by.Diagonal != nil:
		w.width, w.columns = p, data.Columns
		w.x = grow(w.x, m*p)
		for i := range m {
			for j, v := range data.X[i*p : (i+1)*p] {
				w.x[i*p+j] = v * by.Diagonal[data.feature(j)]
			}
		}
	default:
		w.width, w.columns = p, data.Columns
		w.x = data.X
	}
}

func (w *white) row(i int) []float64 { return w.x[i*w.width : (i+1)*w.width] }

func (w *white) feature(j int) int {
	if w.columns != nil {
		return int(w.columns[j])
	}
	return j
}

// addOuter adds f x x^T to the upper triangle of a symmetric d x d matrix,
// stored row by row; columns are the features of x, nil for all.
func addOuter(triangle []float64, d int, x []float64, columns []int32, f float64) {
	if columns == nil {
		at := 0
		for i, v := range x {
			floats.AddScaled(triangle[at:at+d-i], f*v, x[i:])
			at += d - i
		}
		return
	}
	for i, v := range x {
		if v == 0 {
			continue
		}
		a := int(columns[i])
		at := a*d - a*(a-1)/2 - a // where row a starts, less a
		for j := i; j < len(x); j++ {
			triangle[at+int(columns[j])] += f * v * x[j]
		}
	}
}

// packed multiplies the off-diagonal entries by sqrt(2), so that the norm of
// the triangle is the Frobenius norm of the matrix.
func packed(triangle []float64, d int) {
	at := 0
	for n := d; n > 0; n-- {
		floats.Scale(math.Sqrt2, triangle[at+1:at+n])
		at += n
	}
}
