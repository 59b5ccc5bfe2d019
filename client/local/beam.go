package local

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
)

// beam is the search for hard problems: greedy choice with many candidates
// kept at every level instead of one. Where samples are so few that the best
// single index is often wrong, the best set is still among the best partial
// sets.
type beam struct {
	states, next []partial
	rank         []expansion
	column       [][]float64 // p: Gram columns, computed when first used
	known        []bool
	key          []uint64
}

// partial is a partial support, with what is left of the problem once it is
// in the fit.
type partial struct {
	support     []int
	key         uint64 // of the set, whatever its order
	energy      float64
	resid, left []float64
	basis       []float64 // |S| x p
}

type expansion struct {
	state, index int
	energy       float64
	key          uint64
}

// search replaces the support by the best one that a beam of the given width
// finds, if it is better than the one at hand.
func (q *pursuit) search(k, width int) {
	b, p := &q.beam, q.p
	b.prepare(p, k, width)
	b.states = b.states[:1]
	first := &b.states[0]
	first.support, first.key, first.energy = first.support[:0], 0, 0
	copy(first.resid, q.alpha)
	copy(first.left, q.norm2)
	for range k {
		b.rank = b.rank[:0]
		for s := range b.states {
			st := &b.states[s]
			for j, a := range st.resid {
				if st.left[j] > q.floor[j] {
					b.rank = append(b.rank, expansion{s, j, st.energy + a*a/st.left[j], st.key + b.key[j]})
				}
			}
		}
		if len(b.rank) == 0 {
			break
		}
		slices.SortFunc(b.rank, func(x, y expansion) int {
			switch {
			case x.energy > y.energy:
				return -1
			case x.energy < y.energy:
				return 1
			case x.key != y.key: // equal fits in an order that does not depend on the sort
				if x.key < y.key {
					return -1
				}
				return 1
			}
			return x.index - y.index
		})
		b.next = b.next[:0]
		for _, e := range b.rank {
			if len(b.next) == width {
				break
			}
			if slices.ContainsFunc(b.next, func(n partial) bool { return n.key == e.key }) {
				continue
			}
			b.next = b.next[:len(b.next)+1]
			q.extend(&b.next[len(b.next)-1], &b.states[e.state], e)
		}
		b.states, b.next = b.next, b.states
	}
	best := &b.states[0]
	if len(best.support) == 0 || best.energy <= q.energy*(1+1e-12) {
		return
	}
	q.support = append(q.support[:0], best.support...)
	for t, s := range q.support {
		copy(q.gram[t], b.column[s])
	}
	q.solve()
}

// extend makes to the state that follows from when e's index joins it.
func (q *pursuit) extend(to, from *partial, e expansion) {
	b, p, t := &q.beam, q.p, len(from.support)
	if !b.known[e.index] {
		q.grams.gramColumn(b.column[e.index], e.index)
		b.known[e.index] = true
	}
	to.support = append(append(to.support[:0], from.support...), e.index)
	to.key, to.energy = e.key, e.energy
	copy(to.basis, from.basis[:t*p])
	h := to.basis[t*p : (t+1)*p]
	copy(h, b.column[e.index])
	for u := range t {
		hu := to.basis[u*p : (u+1)*p]
		floats.AddScaled(h, -hu[e.index], hu)
	}
	floats.Scale(1/math.Sqrt(h[e.index]), h)
	copy(to.resid, from.resid)
	floats.AddScaled(to.resid, -from.resid[e.index]/h[e.index], h)
	for j, v := range h {
		to.left[j] = from.left[j] - v*v
	}
	to.left[e.index] = 0
}

func (b *beam) prepare(p, k, width int) {
	fit := func(s []partial) []partial {
		for len(s) < width {
			s = append(s, partial{})
		}
		for i := range s {
			s[i].resid, s[i].left = grow(s[i].resid, p), grow(s[i].left, p)
			s[i].basis = grow(s[i].basis, k*p)
		}
		return s
	}
	b.states, b.next = fit(b.states[:cap(b.states)]), fit(b.next[:cap(b.next)])
	for len(b.column) < p {
		b.column = append(b.column, nil)
	}
	b.known = grow(b.known, p)
	clear(b.known)
	for len(b.key) < p {
		// Multiples of an odd constant with high entropy: sums of a few of
		// them identify the set.
		x := uint64(len(b.key)+1) * 0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		b.key = append(b.key, x^x>>27)
	}
	for j := range p {
		b.column[j] = grow(b.column[j], p)
	}
}
