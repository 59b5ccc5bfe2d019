package canary

import (
	"math"

	"github.com/undertone-fl/undertone/aggregation/rounds"
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
	sizes       [2]*dependence // of noise: rounds, coordinates. See size
	field       *field
	canaries    []float64 // noise in the direction of each canary
	kind        [2]excess // and of those of norm C, and of loud ones
	whole       int       // silent sums that n_min divides
	sums        int
	shapes      []histogram // of the noise in each round
	devices     *devices    // nil with TrustCentral
	wrong       int         // releases that are not the sum of what was sent
	prints      map[print]struct{}
	printed     int // how many there were
	bare        int // those of no noise
	repeated    int // those of the noise of one before
	refused     bool
}

func newTally(d *design) *tally {
	return &tally{
		d: d, squares: make([]float64, len(d.sigma)), values: make([]float64, len(d.sigma)),
		rounds: newDependence(len(d.sigma)), coordinates: newDependence(d.spec.Releases[0].Length),
		shapes: make([]histogram, len(d.sigma)),
		prints: map[print]struct{}{},
		field:  newField(len(d.sigma), d.spec.Releases[0].Length), canaries: make([]float64, d.canaries),
		sizes: [2]*dependence{newDependence(len(d.sigma)), newDependence(d.spec.Releases[0].Length)},
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
			t.canaries[i] += noise
			t.kind[kindOf(d.loud(t.jobs, i))].add(noise)
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
	if o.devices != nil {
		t.devices = o.devices.plus(t.devices)
	}
	t.wrong += o.wrong
	t.printed += len(o.prints)
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
	scratch := make([]float64, t.d.spec.Releases[0].Length)
	for l, views := range o.noise {
		for _, x := range views {
			t.field.add(l, x)
			t.coordinates.add(x)
			for j, v := range x {
				t.squares[l] += v * v
				t.shapes[l].add(v)
				scratch[j] = size(v)
			}
			t.sizes[1].add(scratch[:len(x)])
			t.values[l] += float64(len(x))
		}
	}
	across, sizes := make([]float64, len(o.noise)), make([]float64, len(o.noise))
	for v := range o.noise[0] {
		for j := range o.noise[0][v] {
			for l := range across {
				across[l] = o.noise[l][v][j]
				sizes[l] = size(across[l])
			}
			t.rounds.add(across)
			t.sizes[0].add(sizes)
		}
	}
}

// collision bounds the probability that any two of the noises that prints were made of are
// the same, or any one is none: two draws of a discrete Gaussian agree with probability
// 1 / (2 sqrt(pi) sigma), and one is zero with sqrt(2) times that.
func (t *tally) collision() float64 {
	n := float64(t.printed)
	p := 0.0
	for l, r := range t.d.spec.Releases {
		sigma := r.Sigma.Float64() // a contribution's
		if t.d.spec.Trust == rounds.TrustCentral {
			sigma = t.d.sigma[l]
		}
		p = max(p, n*n*math.Pow(1/(math.Sqrt(2*math.Pi)*sigma), silent))
	}
	return min(1, p)
}

// bare is the print of no noise.
var bare = printOf(make([]int64, silent))
