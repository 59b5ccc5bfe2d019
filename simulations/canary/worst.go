package canary

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/stat/distuv"
)

// What is wrong with one coordinate, one contributor or one release of many is lost among
// the others where all are pooled. So each is also looked at by itself, and what is
// reported is the worst, with a p-value that is shared by all of them (Bonferroni).

// extreme finds among sums of k squares of noise, each chi-square of k degrees of freedom,
// the least likely one. sigma is the least noise in lattice units that any of the squares
// is of: a lattice's points at a distance r from 0 stand for cubes at up to half a
// diagonal more, and rounding moves a coordinate by less than 1, so r is taken for as much
// nearer to what is expected. With more than 64 squares that is less than what it guards
// against.
func extreme(squares []float64, k, sigma float64) (at int, pvalue float64) {
	least, most := 0, 0
	for i, s := range squares {
		if s < squares[least] {
			least = i
		}
		if s > squares[most] {
			most = i
		}
	}
	chi := distuv.ChiSquared{K: k}
	slack := 1.5 * math.Sqrt(min(k, 64)) / sigma
	low, high := math.Sqrt(squares[least])+slack, max(0, math.Sqrt(squares[most])-slack)
	less, more := chi.CDF(low*low), chi.Survival(high*high)
	at, pvalue = least, less
	if more < less {
		at, pvalue = most, more
	}
	return at, min(1, 2*float64(len(squares))*pvalue)
}

// farthest finds among sums of k standard normal variables the one farthest from 0, and
// how many standard errors that is.
func farthest(sums []float64, k float64) (at int, z, pvalue float64) {
	for i, s := range sums {
		if math.Abs(s) > math.Abs(sums[at]) {
			at = i
		}
	}
	z = sums[at] / math.Sqrt(k)
	return at, z, min(1, 2*float64(len(sums))*distuv.UnitNormal.CDF(-math.Abs(z)))
}

// worstDeviation holds each of several sums of k squares to sigma. where says of the worst
// which it is.
func worstDeviation(name string, squares []float64, k, sigma float64, where func(i int) string) Test {
	at, p := extreme(squares, k, sigma)
	out := Test{Name: name, Measured: math.Sqrt(squares[at] / k), Expected: 1, PValue: p}
	if out.Meaning = where(at) + " has less noise than is charged"; out.Measured > 1 {
		out.Meaning = where(at) + " has more noise than is charged, so it is not made as is claimed"
	}
	return out
}

// amplitude is the noise in the direction of canaries, which has mean zero if they arrive
// with norm C.
func amplitude(name string, sums []float64, k float64, who func(i int) string) Test {
	at, z, p := farthest(sums, k)
	out := Test{Name: name, Measured: z, PValue: p, Meaning: who(at) + " larger than the bound: not clipped to it, or counted twice"}
	if z < 0 {
		out.Meaning = who(at) + " smaller than sent, or not at all, so that the attacks see less than they should"
	}
	return out
}

// span is the least and the most of n sums of squares, one of each release or contribution.
type span struct {
	n           int
	least, most float64
}

func (s *span) add(v float64) { s.merge(&span{1, v, v}) }

func (s *span) merge(o *span) {
	switch {
	case o.n == 0:
	case s.n == 0:
		*s = *o
	default:
		s.n, s.least, s.most = s.n+o.n, min(s.least, o.least), max(s.most, o.most)
	}
}

// test is worstDeviation of all of them, each of k squares.
func (s *span) test(name, one string, k, sigma float64) Test {
	out := worstDeviation(name, []float64{s.least, s.most}, k, sigma, func(int) string { return one })
	out.PValue = min(1, out.PValue/2*float64(s.n))
	return out
}

const (
	// leastShare of noise, in lattice units, that its deviation is held to: rounding adds
	// less than 4e-6 to its variance.
	leastShare = 1 << 8
	// mostCells of a table of devices by coordinates.
	mostCells = 1 << 20
)

// devices is what devices add, over the share that each is to add. The target of a device
// is the coordinate where its canary is. All rounds are taken together.
type devices struct {
	length int
	cells  []float64 // devices x length: sums of squares; nil beyond mostCells
	target []float64 // those at the target, of the devices that have one
	other  []float64 // those elsewhere, of all
	excess []float64 // sums of the noise in the direction of the canary, by device
	spread excess    // of what is loud in all coordinates at once
	kind   [2]excess // of canaries of norm C, and of loud ones
	each   span      // of contributions
	shares histogram // of what is added to the silent coordinates
	aimed  histogram // and at the target
}

// excess is the noise in the direction of n canaries.
type excess struct{ sum, n float64 }

func (e *excess) add(v float64) { e.sum, e.n = e.sum+v, e.n+1 }

func (e *excess) merge(o excess) { e.sum, e.n = e.sum+o.sum, e.n+o.n }

func newDevices(clients, canaries, length int) *devices {
	d := &devices{length: length, other: make([]float64, clients), target: make([]float64, canaries), excess: make([]float64, canaries)}
	if clients*length <= mostCells {
		d.cells = make([]float64, clients*length)
	}
	return d
}

// add takes a contribution with a share of so much noise, of a device whose canary is at
// target; there direction has the canary's sign. Shares of less than leastNoise have no
// shape.
func (d *devices) add(z []int64, client int, share, target, direction float64, loud bool) {
	shaped := share >= leastNoise
	total, other := 0.0, 0.0
	for j, v := range z {
		x := float64(v)
		aimed := j == client && j < len(d.target)
		if aimed {
			x -= direction * target
		}
		x /= share
		total += x * x
		if d.cells != nil {
			d.cells[client*d.length+j] += x * x
		}
		switch {
		case !aimed:
			other += x * x
			if shaped && j >= len(d.target) {
				d.shares.add(x)
			}
			continue
		case shaped:
			d.aimed.add(x)
		}
		d.target[client] += x * x
		d.excess[client] += x * direction
		d.kind[kindOf(loud)].add(x * direction)
	}
	d.other[client] += other
	d.each.add(total)
}

// kindOf is the index of a kind of canaries.
func kindOf(loud bool) int {
	if loud {
		return 1
	}
	return 0
}

// plus adds d to o, which may be nil, and returns the sum. Neither is to be used again.
func (d *devices) plus(o *devices) *devices {
	if o == nil {
		return d
	}
	o.merge(d)
	return o
}

func (d *devices) merge(o *devices) {
	for _, of := range []struct{ dst, src []float64 }{{d.cells, o.cells}, {d.target, o.target}, {d.other, o.other}, {d.excess, o.excess}} {
		for i, v := range of.src {
			of.dst[i] += v
		}
	}
	for i, e := range o.kind {
		d.kind[i].merge(e)
	}
	d.spread.merge(o.spread)
	d.each.merge(&o.each)
	d.shares.merge(&o.shares)
	d.aimed.merge(&o.aimed)
}

// tests are of devices that have sent something. sigma is the least share.
func (d *devices) tests(sigma float64) []Test {
	if d.each.n == 0 {
		return nil
	}
	device := func(i int) string { return fmt.Sprintf("device %d", i+1) }
	m := float64(d.each.n / len(d.other)) // contributions of each
	out := []Test{
		amplitude("excess of the worst device, in standard errors", d.excess, m, func(i int) string { return device(i) + "'s contributions leave it" }),
		worstDeviation("noise of the worst device where it contributes", d.target, m, sigma, func(i int) string { return device(i) + ", where it contributes," }),
	}
	for i, of := range kinds() {
		if e := d.kind[i]; e.n > 0 {
			out = append(out, amplitude("excess of "+of+" as sent, in standard errors", []float64{e.sum}, e.n, func(int) string { return "contributions are sent" }))
		}
	}
	out = append(out, amplitude("excess in all coordinates at once, in standard errors", []float64{d.spread.sum}, d.spread.n, func(int) string { return "contributions that lie along no coordinate are sent" }))
	// A device without a canary contributes zeros, and has a coordinate more: it is held to
	// no more than the others, but by itself.
	at := len(d.target)
	out = append(out, worstDeviation("noise of the worst device elsewhere", d.other[:at], m*float64(d.length-1), sigma, device))
	if at < len(d.other) {
		out = append(out, worstDeviation("noise of the worst device without a canary", d.other[at:], m*float64(d.length), sigma,
			func(i int) string { return device(at + i) }))
	}
	if d.cells != nil {
		out = append(out, worstDeviation("noise of the worst device and coordinate", d.cells, m, sigma, func(i int) string {
			return fmt.Sprintf("%s, in coordinate %d,", device(i/d.length), i%d.length+1)
		}))
	}
	out = append(out, d.each.test("noise of the worst contribution", "a contribution", float64(d.length), sigma))
	if d.shares.n > 0 {
		out = append(out, d.shares.tests("devices' noise")...)
		out = append(out, d.aimed.tests("devices' noise where they contribute")...)
	}
	return out
}

// field is what was seen less what was sent, over the noise that is claimed, in every round
// and coordinate by itself.
type field struct {
	length       int
	sum, squares []float64 // rounds x length
	each         span      // of views
}

func newField(rounds, length int) *field {
	return &field{length: length, sum: make([]float64, rounds*length), squares: make([]float64, rounds*length)}
}

func (f *field) add(round int, x []float64) {
	total := 0.0
	for j, v := range x {
		f.sum[round*f.length+j] += v
		f.squares[round*f.length+j] += v * v
		total += v * v
	}
	f.each.add(total)
}

// tests are of releases, or of views that are contributions, which devices.tests looks at.
// sigma is the least noise.
func (f *field) tests(sigma float64, released bool) []Test {
	m := float64(f.each.n * f.length / len(f.sum))
	where := func(i int) string { return fmt.Sprintf("coordinate %d in round %d", i%f.length+1, i/f.length+1) }
	at, z, p := farthest(f.sum, m)
	out := []Test{
		worstDeviation("noise of the worst coordinate", f.squares, m, sigma, where),
		{Name: "mean of the worst coordinate, in standard errors", Measured: z, PValue: p,
			Meaning: where(at) + " has noise with a mean, so it is not made as is claimed"},
	}
	if released {
		out = append(out, f.each.test("noise of the worst release", "a release", float64(f.length), sigma))
	}
	return out
}
