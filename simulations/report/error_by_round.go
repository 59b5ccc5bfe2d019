package report

import (
	"fmt"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg/draw"

	"github.com/undertone-fl/undertone/server/pages/figure"
	"github.com/undertone-fl/undertone/simulations"
)

// maxPanels bounds the budgets that a figure shows side by side.
const maxPanels = 6

// errorByRound shows how fast each method learns, in one panel for each
// epsilon.
func errorByRound(res *simulations.Result) *figure.Figure {
	metric := mainMetric(res)
	f := &figure.Figure{
		Name:  "error-by-round",
		Title: fmt.Sprintf("%s by round", sentence(metricLabel(metric))),
		X:     "round (0: initialisation)",
		Y:     metricLabel(metric),
	}
	type curve struct {
		method string
		points []point
	}
	epsilons := spread(sortedEpsilons(res), maxPanels)
	curves := make([][]curve, len(epsilons))
	var values []float64
	drawn := map[string]bool{}
	for i, e := range epsilons {
		for _, method := range res.Config.Methods {
			points := byRound(res, method, e, metricOf(metric))
			if !releases(method) {
				points = byRound(res, method, unlimited, metricOf(metric))
			}
			if len(points) == 0 {
				continue
			}
			curves[i] = append(curves[i], curve{method, points})
			drawn[method] = true
			for _, q := range points {
				values = append(values, q.y)
			}
		}
	}
	if !slices.ContainsFunc(res.Config.Methods, func(m string) bool { return drawn[m] && releases(m) }) {
		return nil
	}
	y := figure.ExtentOf(values)
	for i, e := range epsilons {
		p := figure.NewPlot()
		figure.AddGrid(p)
		rounds := 1.0
		for _, c := range curves[i] {
			rounds = max(rounds, c.points[len(c.points)-1].x)
		}
		for _, c := range slices.Backward(curves[i]) {
			l := lookOf(c.method)
			if !releases(c.method) {
				last := c.points[len(c.points)-1].y
				figure.AddLine(p, plotter.XYs{{X: 0, Y: last}, {X: rounds, Y: last}}, l.Line(1.2))
				continue
			}
			addBand(p, c.points, y, l.Paint)
			figure.AddLine(p, xys(c.points), l.Line(1.5))
			figure.AddMarkers(p, xys(c.points), l.Marker(2))
		}
		p.X.Min, p.X.Max = 0, rounds
		p.X.Tick.Marker = figure.EvenTicks{Room: 7, Whole: true}
		y.Apply(&p.Y, 10)
		f.Panels = append(f.Panels, figure.Panel{Title: epsilonTitle(e), Plot: p})
	}
	for _, m := range res.Config.Methods {
		if drawn[m] {
			f.Legend = append(f.Legend, legendEntry(m))
		}
	}
	f.Caption = "Lines are means over the seeds, bands span all of them. " +
		"A line that turns up again at a small ε has run longer than its budget allows: each round then adds more noise than it learns."
	if len(epsilons) < len(res.Config.Epsilons) {
		f.Caption += fmt.Sprintf(" %d of %d budgets are shown.", len(epsilons), len(res.Config.Epsilons))
	}
	return f
}

// spread returns at most n of the values, evenly, with the first and the last.
func spread(es []simulations.Epsilon, n int) []simulations.Epsilon {
	if len(es) <= n {
		return es
	}
	var some []simulations.Epsilon
	for i := range n {
		some = append(some, es[i*(len(es)-1)/(n-1)])
	}
	return some
}

// addBand shades what the seeds span, where they differ.
func addBand(p *plot.Plot, points []point, y figure.Extent, paint figure.Paint) {
	var outline plotter.XYs
	for _, q := range points {
		outline = append(outline, plotter.XY{X: q.x, Y: y.Clamp(q.high)})
	}
	for _, q := range slices.Backward(points) {
		outline = append(outline, plotter.XY{X: q.x, Y: y.Clamp(q.low)})
	}
	if len(points) > 1 {
		p.Add(&plotter.Polygon{XYs: []plotter.XYs{outline}, Color: paint.Faint(51), LineStyle: draw.LineStyle{Color: color.Transparent}})
	}
}
