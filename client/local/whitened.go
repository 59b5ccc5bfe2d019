package local

import (
	"math"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"gonum.org/v1/gonum/floats"
)

// whitened is a user's samples in whitened features, row by row W^T x.
type whitened struct {
	x       []float64 // m x width, row-major
	width   int
	columns []int32 // as in Samples
	buffer  []float64
	full    []float64
}

func (w *whitened) load(by *lowrank.Whitening, d int, data Samples) {
	p, m := data.Width(d), len(data.Y)
	switch {
	case by.Dense != nil:
		w.width, w.columns = d, nil
		w.buffer = grow(w.buffer, m*d)
		w.x = w.buffer
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
		w.buffer = grow(w.buffer, m*p)
		w.x = w.buffer
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

func (w *whitened) row(i int) []float64 { return w.x[i*w.width : (i+1)*w.width] }

func (w *whitened) feature(j int) int {
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
