package pages

import (
	"fmt"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/undertone-fl/undertone/dp/ledger/report"
	"github.com/undertone-fl/undertone/server/pages/figure"
)

// Looks of what is drawn, the same in every figure. A failed attempt is a cross, so that
// nothing is told by colour alone.
var (
	released   = figure.Look{Paint: figure.Blue, Glyph: draw.CircleGlyph{}}
	failed     = figure.Look{Paint: figure.Vermilion, Glyph: figure.Cross{}}
	replaceOne = figure.Look{Paint: figure.Green, Glyph: draw.PyramidGlyph{}}
	clip       = figure.Look{Paint: figure.Orange, Glyph: draw.BoxGlyph{}}
	limit      = figure.Look{Paint: figure.Muted, Dashes: []vg.Length{5, 3}}
)

// Figures stand beside each other where there is room, and are read on a telephone.
const (
	chartWidth  = vg.Length(252) // three in a row of a full page, as large as drawn
	chartHeight = vg.Length(150)
	// mostPoints of a line that are drawn, and mostMarkers up to which each has one.
	mostPoints  = 400
	mostMarkers = 60
)

// drawAll draws the figures that there are.
func drawAll(figures ...*figure.Figure) ([]drawn, error) {
	var out []drawn
	for _, f := range figures {
		if f == nil {
			continue
		}
		f.Width, f.Height, f.Untitled = chartWidth, chartHeight, true
		svg, err := f.Inline()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		out = append(out, drawn{f.Name, f.Title, f.Caption, svg})
	}
	return out, nil
}

// series is a line with its look.
type series struct {
	look   figure.Look
	text   string // in the legend
	points plotter.XYs
}

// chart draws series over a common axis, the first on top, with the bound that they keep if
// there is one, and crosses.
func chart(f *figure.Figure, lines []series, most *bound, crosses *series) *figure.Figure {
	p := figure.NewPlot()
	figure.AddGrid(p)
	var values []float64
	var right float64
	all := lines
	if crosses != nil && len(crosses.points) > 0 {
		all = append(all[:len(all):len(all)], *crosses)
	}
	for _, s := range all {
		for _, q := range s.points {
			values = append(values, q.Y)
			right = max(right, q.X)
		}
	}
	if most != nil {
		values = append(values, most.value)
	}
	extent := figure.ExtentOf(values)
	if !extent.Log || most != nil {
		extent.Log, extent.Low = false, 0
		extent.High = max(extent.High, 1e-12)
	}
	if most != nil {
		extent.High = most.value * 1.1
		p.Add(figure.Span{Value: most.value, Style: limit.Line(1.2)})
		f.Legend = append(f.Legend, figure.Entry{Text: most.text, Line: limit.Line(1.2)})
	}
	for _, s := range slices.Backward(lines) {
		points := thin(s.points)
		figure.AddLine(p, points, s.look.Line(1.4))
		if s.look.Glyph != nil && len(points) <= mostMarkers {
			figure.AddMarkers(p, points, s.look.Marker(2.6))
		}
	}
	if len(all) > len(lines) {
		figure.AddMarkers(p, thin(crosses.points), crosses.look.Marker(3.4))
	}
	for i, s := range all {
		if len(all) == 1 && most == nil {
			break // the title says what it is
		}
		e := figure.Entry{Text: s.text, Marker: s.look.Marker(2.8)}
		if i < len(lines) {
			e.Line = s.look.Line(1.4)
		}
		f.Legend = append(f.Legend, e)
	}
	extent.Apply(&p.Y, 12)
	p.X.Min, p.X.Max = 0, right*1.03
	p.X.Tick.Marker = figure.EvenTicks{Room: 7, Whole: true}
	f.Panels = []figure.Panel{{Plot: p}}
	return f
}

// bound is a line that nothing may pass.
type bound struct {
	value float64
	text  string
}

// thin leaves the first and the last of points, and as many between as are drawn.
func thin(points plotter.XYs) plotter.XYs {
	if len(points) <= mostPoints {
		return points
	}
	some := make(plotter.XYs, mostPoints)
	for i := range some {
		some[i] = points[i*(len(points)-1)/(mostPoints-1)]
	}
	return some
}

// roundTicks label attempts, which are counted in order, by their rounds.
type roundTicks struct {
	attempts []report.Attempt
	room     int
}

// Ticks implements plot.Ticker.
func (t roundTicks) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	every := (len(t.attempts) + t.room - 1) / t.room
	last := -every
	for i := range t.attempts {
		tick := plot.Tick{Value: float64(i + 1)}
		first := i == 0 || t.attempts[i-1].Round != t.attempts[i].Round
		if first && i-last >= every {
			tick.Label, last = strconv.Itoa(t.attempts[i].Round), i
		} else if !first || every > 1 {
			continue
		}
		ticks = append(ticks, tick)
	}
	return ticks
}

// chartRoom is how many labels of rounds there is room for.
const chartRoom = 12

func budgetByRound(j *report.Job) *figure.Figure {
	if len(j.Attempts) == 0 {
		return nil
	}
	spent := series{look: released, text: "spent", points: plotter.XYs{{}}}
	crosses := series{look: failed, text: "failed attempt"}
	for i, a := range j.Attempts {
		at := plotter.XY{X: float64(i + 1), Y: a.Spent.Rho}
		spent.points = append(spent.points, at)
		if a.Status == "failed" {
			crosses.points = append(crosses.points, at)
		}
	}
	f := chart(&figure.Figure{
		Name: "budget-" + j.Name, Title: "Budget by round",
		X: "round, attempts in order", Y: "ρ spent",
	}, []series{spent}, &bound{j.Cap.Rho, "cap"}, &crosses)
	f.Panels[0].X.Tick.Marker = roundTicks{j.Attempts, chartRoom}
	f.Caption = fmt.Sprintf("ρ is spent when an attempt opens, released or not: %s of %s after %s, of which %s failed.",
		significant(j.Spent.Rho), significant(j.Cap.Rho), count(len(j.Attempts), "attempt", "attempts"), whole(j.FailedAttempts))
	return f
}

func epsilonByRelease(j *report.Job) *figure.Figure {
	one := series{look: released, text: j.Adjacency, points: plotter.XYs{{}}}
	other := series{look: replaceOne, text: "replace-one", points: plotter.XYs{{}}}
	for _, a := range j.Attempts {
		if a.Status == "released" {
			x := float64(len(one.points))
			one.points = append(one.points, plotter.XY{X: x, Y: a.Spent.Epsilon})
			other.points = append(other.points, plotter.XY{X: x, Y: a.Spent.ReplaceOne})
		}
	}
	if len(one.points) == 1 {
		return nil
	}
	lines := []series{one, other}
	highest := j.Cap.ReplaceOne
	if j.Adjacency == "replace-one" {
		lines, highest = lines[:1], j.Cap.Epsilon
	}
	f := chart(&figure.Figure{
		Name: "epsilon-" + j.Name, Title: "ε over releases", X: "release", Y: "ε so far",
	}, lines, nil, nil)
	f.Caption = fmt.Sprintf("Exact, at δ = %s, and failed attempts included. The cap is ε = %s, which is %s under replace-one.",
		significant(j.Delta), significant(j.Cap.Epsilon), significant(highest))
	return f
}

func noiseByRound(j *report.Job) *figure.Figure {
	noise := series{look: released, text: "noise of the sum"}
	norm := series{look: clip, text: "clip of one contribution"}
	for _, a := range j.Attempts {
		if a.Status == "released" {
			noise.points = append(noise.points, plotter.XY{X: float64(a.Round), Y: a.Noise})
			norm.points = append(norm.points, plotter.XY{X: float64(a.Round), Y: a.Clip})
		}
	}
	if len(noise.points) == 0 {
		return nil
	}
	f := chart(&figure.Figure{
		Name: "noise-" + j.Name, Title: "Noise and clip by round", X: "round", Y: "in the method's units",
	}, []series{noise, norm}, nil, nil)
	last := j.Attempts[len(j.Attempts)-1]
	f.Caption = fmt.Sprintf("Clip is the most that one user adds to the sum, as an L2 norm; noise is the standard deviation in each coordinate. Their ratio, %s at last, is the noise multiplier.",
		significant(last.Multiplier))
	return f
}
