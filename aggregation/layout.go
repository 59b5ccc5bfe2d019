package aggregation

import "math"

// Part is a stretch of a contribution with a bound of its own.
type Part struct {
	Name string
	Len  int
	// Bound is the most that the part's L2 norm may be.
	Bound float64
}

// Layout is the order of the parts of a contribution. Clients and the server
// both read it, so that neither knows an offset.
type Layout []Part

// Len is the number of coordinates.
func (l Layout) Len() int {
	n := 0
	for _, p := range l {
		n += p.Len
	}
	return n
}

// Bound is the norm bound of the whole contribution, which is released as one
// vector: the root of the sum of the parts' squared bounds.
func (l Layout) Bound() float64 {
	var s float64
	for _, p := range l {
		s += p.Bound * p.Bound
	}
	return math.Sqrt(s)
}

// Part returns the stretch of v that belongs to the named part, nil if the
// layout has none of that name.
func (l Layout) Part(name string, v []float64) []float64 {
	at := 0
	for _, p := range l {
		if p.Name == name {
			return v[at : at+p.Len : at+p.Len]
		}
		at += p.Len
	}
	return nil
}
