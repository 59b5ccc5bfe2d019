package report

import (
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"

	"github.com/undertone-fl/undertone/simulations"
)

// wide is the ratio of the largest to the smallest value from which on an
// axis is logarithmic.
const wide = 5

// extent is the range of an axis. Values that are not finite do not count.
type extent struct {
	low, high float64
	log       bool
}

func extentOf(values []float64) extent {
	e := extent{low: math.Inf(1), high: math.Inf(-1)}
	for _, v := range values {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			e.low, e.high = min(e.low, v), max(e.high, v)
		}
	}
	if e.low > e.high {
		return extent{low: 0, high: 1}
	}
	e.log = e.low > 0 && e.high/e.low > wide
	switch {
	case e.log:
		e.low, e.high = e.low/1.2, e.high*1.2
	case e.low == e.high:
		pad := max(math.Abs(e.low)/10, 1e-3)
		e.low, e.high = e.low-pad, e.high+pad
	default:
		pad := (e.high - e.low) * 0.08
		e.low, e.high = e.low-pad, e.high+pad
	}
	return e
}

func (e extent) clamp(v float64) float64 { return min(max(v, e.low), e.high) }

// apply sets the range and the ticks of an axis that has room for so many
// labels.
func (e extent) apply(a *plot.Axis, room int) {
	a.Min, a.Max = e.low, e.high
	if e.log {
		a.Scale = plot.LogScale{}
		a.Tick.Marker = logTicks{room}
	} else {
		a.Tick.Marker = evenTicks{room: room / 2}
	}
}

// logTicks labels as many of 1, 2 and 5 of each decade, or 1 and 3, as there
// is room for.
type logTicks struct {
	room int // how many labels fit the axis
}

func (t logTicks) Ticks(low, high float64) []plot.Tick {
	labels := "1"
	switch perDecade := float64(t.room) / math.Log10(high/low); {
	case perDecade > 4:
		labels = "125"
	case perDecade > 2.5:
		labels = "13"
	}
	var ticks []plot.Tick
	for exp := math.Floor(math.Log10(low)); exp <= math.Ceil(math.Log10(high)); exp++ {
		for digit := 1; digit < 10; digit++ {
			v := float64(digit) * math.Pow(10, exp)
			if v < low || v > high {
				continue
			}
			tick := plot.Tick{Value: v}
			if strings.Contains(labels, strconv.Itoa(digit)) {
				tick.Label = shortest(v)
			}
			ticks = append(ticks, tick)
		}
	}
	return ticks
}

// evenTicks labels multiples of 1, 2 or 5 times a power of ten, as many as
// there is room for.
type evenTicks struct {
	room  int  // how many labels fit the axis
	whole bool // only whole numbers
}

func (t evenTicks) Ticks(low, high float64) []plot.Tick {
	exp := math.Floor(math.Log10((high - low) / float64(t.room)))
	if t.whole {
		exp = max(exp, 0)
	}
	step := math.Pow(10, exp)
	for _, factor := range []float64{2, 2.5, 2} {
		if (high-low)/step > float64(t.room) {
			step *= factor
		}
	}
	decimals := max(0, int(-math.Floor(math.Log10(step))))
	var ticks []plot.Tick
	first := math.Ceil(low/step-1e-9) + 0 // not -0
	for n := first; n*step <= high+step*1e-9; n++ {
		ticks = append(ticks, plot.Tick{Value: n * step, Label: strconv.FormatFloat(n*step, 'f', decimals, 64)})
	}
	return ticks
}

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

// addGrid draws the lines that belong to the labelled ticks.
func addGrid(p *plot.Plot) {
	g := plotter.NewGrid()
	g.Vertical.Color = nil
	g.Horizontal = grid.line(0.5)
	p.Add(g)
}
