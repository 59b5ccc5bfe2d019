package canary

import (
	"math"

	"github.com/undertone-fl/undertone/dp/accounting"
)

// tally adds up what the test jobs gave.
type tally struct {
	d           *design
	jobs        int
	exact, loud accounting.Guesses

	squares     []float64 // of the noise in each round
	values      []float64 // how many
	rounds      *dependence
	coordinates *dependence
	aligned     float64 // noise in the direction of the canaries
	alignments  float64
	whole       int // silent sums that n_min divides
	sums        int
	shapes      []histogram // of the noise in each round
	shares      histogram   // of what devices add
	wrong       int         // releases that are not the sum of what was sent
	prints      map[print]struct{}
	bare        int // contributions without noise
	repeated    int // those with the noise of one before
	refused     bool
}

func newTally(d *design) *tally {
	return &tally{
		d: d, squares: make([]float64, len(d.sigma)), values: make([]float64, len(d.sigma)),
		rounds: newDependence(len(d.sigma)), coordinates: newDependence(d.spec.Releases[0].Length),
		shapes: make([]histogram, len(d.sigma)),
		prints: map[print]struct{}{},
	}
}

func (t *tally) add(o *observed) {
	d := t.d
	for i, sign := range o.sign {
		view := 0
		if d.views > 1 {
			view = i
		}
		var score float64 // sign T
		for l, views := range o.noise {
			noise := views[view][i] * sign * alternate(l)
			score += (noise + d.target[l]/d.sigma[l]) * d.target[l] / d.sigma[l]
			t.aligned += noise
			t.alignments++
		}
		g := &t.exact
		if d.loud(t.jobs, i) {
			g = &t.loud
		}
		g.Trials++
		if score > 0 {
			g.Correct++
		}
	}
	t.noise(o)
	t.shares.merge(o.shares)
	t.wrong += o.wrong
	for _, p := range o.prints {
		if p == bare {
			t.bare++
			continue
		}
		if _, seen := t.prints[p]; seen {
			t.repeated++
		}
		if len(t.prints) < mostPrints {
			t.prints[p] = struct{}{}
		}
	}
	for _, round := range o.silent {
		for _, v := range round {
			t.sums++
			if v%int64(d.spec.NMin) == 0 {
				t.whole++
			}
		}
	}
	t.jobs++
}

// noise adds up what was seen less what was sent.
func (t *tally) noise(o *observed) {
	across := make([]float64, len(o.noise))
	for l, views := range o.noise {
		for _, x := range views {
			t.coordinates.add(x)
			for _, v := range x {
				t.squares[l] += v * v
				t.shapes[l].add(v)
			}
			t.values[l] += float64(len(x))
		}
	}
	for v := range o.noise[0] {
		for j := range o.noise[0][v] {
			for l := range across {
				across[l] = o.noise[l][v][j]
			}
			t.rounds.add(across)
		}
	}
}

// collision bounds the probability that any two contributions carry the same noise
// in their silent coordinates, or any one none: two draws of a discrete Gaussian agree
// with probability 1 / (2 sqrt(pi) sigma), and one is zero with sqrt(2) times that.
func (t *tally) collision() float64 {
	n := float64(t.jobs * len(t.d.sigma) * t.d.spec.NMin) // contributions
	p := 0.0
	for _, r := range t.d.spec.Releases {
		each := 1 / (math.Sqrt(2*math.Pi) * r.Sigma.Float64())
		p = max(p, n*n*math.Pow(each, silent))
	}
	return min(1, p)
}

// bare is the print of no noise.
var bare = printOf(make([]int64, silent))
