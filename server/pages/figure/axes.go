package figure

import (
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
)

// wide is the ratio of the largest to the smallest value from which on an axis is
// logarithmic.
const wide = 5

// Extent is the range of an axis.
type Extent struct {
	Low, High float64
	Log       bool
}

// ExtentOf is the range that shows values. Those that are not finite do not count.
func ExtentOf(values []float64) Extent {
	e := Extent{Low: math.Inf(1), High: math.Inf(-1)}
	for _, v := range values {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			e.Low, e.High = min(e.Low, v), max(e.High, v)
		}
	}
	if e.Low > e.High {
		return Extent{Low: 0, High: 1}
	}
	e.Log = e.Low > 0 && e.High/e.Low > wide
	switch {
	case e.Log:
		e.Low, e.High = e.Low/1.2, e.High*1.2
	case e.Low == e.High:
		pad := max(math.Abs(e.Low)/10, 1e-3)
		e.Low, e.High = e.Low-pad, e.High+pad
	default:
		pad := (e.High - e.Low) * 0.08
		e.Low, e.High = e.Low-pad, e.High+pad
	}
	return e
}

// Clamp is the value of the range that is nearest to v.
func (e Extent) Clamp(v float64) float64 { return min(max(v, e.Low), e.High) }

// Apply sets the range and the ticks of an axis that has room for so many labels.
func (e Extent) Apply(a *plot.Axis, room int) {
	a.Min, a.Max = e.Low, e.High
	if e.Log {
		a.Scale = plot.LogScale{}
		a.Tick.Marker = LogTicks{room}
	} else {
		a.Tick.Marker = EvenTicks{Room: room / 2}
	}
}

// LogTicks labels as many of 1, 2 and 5 of each decade, or 1 and 3, as there is room
// for.
type LogTicks struct {
	Room int // how many labels fit the axis
}

// Ticks implements plot.Ticker.
func (t LogTicks) Ticks(low, high float64) []plot.Tick {
	labels := "1"
	switch perDecade := float64(t.Room) / math.Log10(high/low); {
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
				tick.Label = Shortest(v)
			}
			ticks = append(ticks, tick)
		}
	}
	return ticks
}

// EvenTicks labels multiples of 1, 2 or 5 times a power of ten, as many as there is
// room for.
type EvenTicks struct {
	Room  int  // how many labels fit the axis
	Whole bool // only whole numbers
}

// Ticks implements plot.Ticker.
func (t EvenTicks) Ticks(low, high float64) []plot.Tick {
	exp := math.Floor(math.Log10((high - low) / float64(t.Room)))
	if t.Whole {
		exp = max(exp, 0)
	}
	step := math.Pow(10, exp)
	for _, factor := range []float64{2, 2.5, 2} {
		if (high-low)/step > float64(t.Room) {
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

// Shortest writes 1e-06 as 1e-6, and 0.1 or 1000 as they are.
func Shortest(x float64) string {
	if x == 0 || x >= 1e-4 && x < 1e7 {
		return strconv.FormatFloat(x, 'f', -1, 32)
	}
	return strings.Replace(strconv.FormatFloat(x, 'g', -1, 32), "e-0", "e-", 1)
}

// AddGrid draws the lines that belong to the labelled ticks.
func AddGrid(p *plot.Plot) {
	g := plotter.NewGrid()
	g.Vertical.Color = nil
	g.Horizontal = Grid.Line(0.5)
	p.Add(g)
}
