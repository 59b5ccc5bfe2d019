package report

import (
	"math"

	"gonum.org/v1/plot"

	"github.com/undertone-fl/undertone/simulations"
)

// epsilonAxis places budgets evenly in their logarithm, and no privacy at a
// place of its own at the right.
type epsilonAxis struct {
	epsilons []simulations.Epsilon // increasing
	inf      float64               // where inf is
	low      float64
	high     float64
}

func newEpsilonAxis(epsilons []simulations.Epsilon) epsilonAxis {
	a := epsilonAxis{epsilons: epsilons}
	first, last := math.Inf(1), math.Inf(-1)
	for _, e := range epsilons {
		if e.Private() {
			first, last = min(first, math.Log2(float64(e))), max(last, math.Log2(float64(e)))
		}
	}
	if first > last { // inf alone
		first, last = -0.5, -0.5
	}
	gap := max(0.6, (last-first)/5)
	a.inf = last + gap
	a.low, a.high = first-gap/3, a.inf+gap/3
	if epsilons[len(epsilons)-1].Private() {
		a.high = last + gap/3
	}
	return a
}

func (a epsilonAxis) at(e simulations.Epsilon) float64 {
	if !e.Private() {
		return a.inf
	}
	return math.Log2(float64(e))
}

// Ticks labels each budget that was run, less those that stand too near to
// their left neighbour.
func (a epsilonAxis) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	labelled := math.Inf(-1)
	for _, e := range a.epsilons {
		t := plot.Tick{Value: a.at(e)}
		if t.Value-labelled > (high-low)/18 {
			t.Label = e.String()
			labelled = t.Value
		}
		if !e.Private() {
			t.Label = "∞"
		}
		ticks = append(ticks, t)
	}
	return ticks
}
