package local

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
)

// Personal is what a device keeps of its user, r + 2k numbers, and never
// sends: theta = Mean + U w + b with the model it was fitted to. A later
// model's U may span the subspace by other coordinates: fit again.
//
// Its encoding is described in FORMAT.md.
type Personal struct {
	W []float64 // r
	B []Entry   // features in increasing order
}

// Entry is a non-zero coefficient of b.
type Entry struct {
	Feature uint32
	Value   float64
}

// Personal returns a copy of the fit to keep. columns are those of the
// samples that it was fitted to.
func (f *Fit) Personal(columns []int32) *Personal {
	p := &Personal{W: slices.Clone(f.W), B: make([]Entry, len(f.Support))}
	of := Samples{Columns: columns}
	for a, j := range f.Support {
		p.B[a] = Entry{uint32(of.feature(j)), f.B[a]}
	}
	slices.SortFunc(p.B, func(x, y Entry) int { return cmp.Compare(x.Feature, y.Feature) })
	return p
}

// Predict returns the response that the user's model expects for features x,
//
//	Scale * x^T (Mean + U w + b).
//
// x has a value for each of the listed features, as in Samples, or for all if
// columns is nil. Fails with ErrModel if the model is malformed or of another
// rank or dimension than p, ErrSamples if x is not of its features, and
// ErrNotFinite. Does not allocate.
func Predict(m *lowrank.Model, p *Personal, x []float64, columns []int32) (float64, error) {
	if err := checkModel(m); err != nil {
		return 0, err
	}
	if len(p.W) != m.Rank {
		return 0, fmt.Errorf("%w: rank %d for a w of %d coordinates", ErrModel, m.Rank, len(p.W))
	}
	if err := p.check(); err != nil {
		return 0, err
	}
	if n := len(p.B); n > 0 && uint64(p.B[n-1].Feature) >= uint64(m.Dim) {
		return 0, fmt.Errorf("%w: %d features for a b on feature %d", ErrModel, m.Dim, p.B[n-1].Feature)
	}
	row := Samples{Columns: columns}
	if len(x) != row.Width(m.Dim) {
		return 0, fmt.Errorf("%w: %d values for %d features", ErrSamples, len(x), row.Width(m.Dim))
	}
	if err := checkColumns(columns, m.Dim); err != nil {
		return 0, err
	}
	if err := checkSize("features", x); err != nil {
		return 0, err
	}
	var y float64
	own := p.B
	for j, v := range x {
		f := row.feature(j)
		var theta float64
		if m.Mean != nil {
			theta = m.Mean[f]
		}
		for c, w := range p.W {
			theta += w * m.U[c*m.Dim+f]
		}
		for len(own) > 0 && int(own[0].Feature) < f {
			own = own[1:]
		}
		if len(own) > 0 && int(own[0].Feature) == f {
			theta += own[0].Value
		}
		y += v * theta
	}
	y *= m.ResponseScale()
	if math.IsNaN(y) || math.IsInf(y, 0) {
		return 0, fmt.Errorf("%w: the prediction", ErrNotFinite)
	}
	return y, nil
}

// check fails with ErrPersonalIndex or ErrNotFinite.
func (p *Personal) check() error {
	for c, w := range p.W {
		if math.IsNaN(w) || math.IsInf(w, 0) {
			return fmt.Errorf("%w: w[%d] = %v", ErrNotFinite, c, w)
		}
	}
	for a, e := range p.B {
		if e.Feature > math.MaxInt32 || a > 0 && e.Feature <= p.B[a-1].Feature {
			return fmt.Errorf("%w: b on feature %d", ErrPersonalIndex, e.Feature)
		}
		if math.IsNaN(e.Value) || math.IsInf(e.Value, 0) {
			return fmt.Errorf("%w: b on feature %d is %v", ErrNotFinite, e.Feature, e.Value)
		}
	}
	return nil
}
