package client

import (
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/undertone-fl/undertone/client/local"
)

// Samples gives the user's samples for a job of d features. It is asked once a
// round, so that what has come since counts. An error is reported in the Summary,
// and stays on the device: it contributes zeros.
type Samples func(job string, d int) (local.Samples, error)

// Fixed are the same samples for every job.
func Fixed(s local.Samples) Samples {
	return func(string, int) (local.Samples, error) { return s, nil }
}

// Row is one sample: a response to features. X has a value for each of Columns,
// features from 0 in any order, the others being zero; or, where Columns is nil,
// for all.
type Row struct {
	X       []float64
	Columns []int32
	Y       float64
}

// Rows are the samples of an iterator, which begins anew every time.
func Rows(rows iter.Seq[Row]) Samples {
	return func(_ string, d int) (local.Samples, error) { return gather(rows, d) }
}

// gather fails with local.ErrSamples.
func gather(rows iter.Seq[Row], d int) (local.Samples, error) {
	var out local.Samples
	all := slices.Collect(rows)
	width := d
	at := map[int32]int{} // of a feature among the columns
	if slices.ContainsFunc(all, func(r Row) bool { return r.Columns != nil }) {
		for _, r := range all {
			if r.Columns == nil {
				r.Columns = everyFeature(d)
			}
			for _, f := range r.Columns {
				at[f] = 0
			}
		}
		out.Columns = slices.Sorted(maps.Keys(at))
		for j, f := range out.Columns {
			at[f] = j
		}
		width = len(out.Columns)
	}
	out.X = make([]float64, width*len(all))
	out.Y = make([]float64, len(all))
	for i, r := range all {
		n := d
		if r.Columns != nil {
			n = len(r.Columns)
		}
		if len(r.X) != n {
			return local.Samples{}, fmt.Errorf("%w: row %d has %d values for %d features", local.ErrSamples, i+1, len(r.X), n)
		}
		row := out.X[i*width : (i+1)*width]
		out.Y[i] = r.Y
		for j, v := range r.X {
			switch {
			case out.Columns == nil:
				row[j] = v
			case r.Columns == nil:
				row[at[int32(j)]] += v
			default:
				row[at[r.Columns[j]]] += v
			}
		}
	}
	return out, nil
}

func everyFeature(d int) []int32 {
	all := make([]int32, d)
	for j := range all {
		all[j] = int32(j)
	}
	return all
}
