package report

import (
	"fmt"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/undertone-fl/undertone/server/pages/figure"
	"github.com/undertone-fl/undertone/simulations"
)

// errorByEpsilon is the price of privacy: a line for each method, with the
// 95 % intervals over the seeds.
func errorByEpsilon(res *simulations.Result) *figure.Figure {
	metric := mainMetric(res)
	epsilons := sortedEpsilons(res)
	if len(epsilons) == 0 {
		return nil
	}
	var values []float64
	for _, s := range res.Summary {
		if s.Metric == metric {
			values = append(values, s.Mean)
		}
	}
	if len(values) == 0 {
		return nil
	}
	x, y := newEpsilonAxis(epsilons), figure.ExtentOf(values)
	p := figure.NewPlot()
	figure.AddGrid(p)
	if epsilons[0].Private() && !epsilons[len(epsilons)-1].Private() {
		last := x.at(epsilons[len(epsilons)-2])
		p.Add(figure.Span{Value: (last + x.inf) / 2, Vertical: true, Style: figure.Grid.Line(1)})
	}
	f := &figure.Figure{
		Name:   "error-by-epsilon",
		Title:  fmt.Sprintf("%s by privacy budget", sentence(metricLabel(metric))),
		X:      "privacy budget ε (∞: no privacy)",
		Y:      metricLabel(metric),
		Panels: []figure.Panel{{Plot: p}},
	}
	// The first method is drawn last, over the figure.Purple.
	for i, method := range slices.Backward(res.Config.Methods) {
		l := lookOf(method)
		if !releases(method) {
			if s, ok := summary(res, method, epsilons[0], metric); ok {
				addLevel(p, x.low, x.high, s, l, y)
				f.Legend = append(f.Legend, legendEntry(method))
			}
			continue
		}
		// Methods stand a little apart so that their intervals do not cover
		// one another.
		shift := (x.high - x.low) * 0.006 * (float64(i) - float64(len(res.Config.Methods)-1)/2)
		var line, free, all plotter.XYs
		for _, e := range epsilons {
			s, ok := summary(res, method, e, metric)
			if !ok {
				continue
			}
			at := plotter.XY{X: x.at(e) + shift, Y: s.Mean}
			if e.Private() {
				line = append(line, at)
			} else {
				free = append(free, at)
			}
			all = append(all, at)
			p.Add(figure.Interval{X: at.X, Low: y.Clamp(s.Mean - s.CI95), High: y.Clamp(s.Mean + s.CI95), Style: l.Paint.Line(1)})
		}
		if len(all) == 0 {
			continue
		}
		if len(line) > 0 && len(free) > 0 {
			to := l.Line(1)
			to.Dashes = []vg.Length{1.5, 2.5}
			figure.AddLine(p, plotter.XYs{line[len(line)-1], free[0]}, to)
		}
		figure.AddLine(p, line, l.Line(1.5))
		figure.AddMarkers(p, all, l.Marker(3))
		f.Legend = append(f.Legend, legendEntry(method))
	}
	slices.Reverse(f.Legend)
	p.X.Min, p.X.Max = x.low, x.high
	p.X.Tick.Marker = x
	y.Apply(&p.Y, 20)
	f.Caption = "Lower is better. Every point is the mean over the seeds at the end of the run, with its 95 % interval. " +
		"Where a line is flat, privacy costs nothing; where it rises to the left, the noise of a smaller budget begins to show."
	if slices.ContainsFunc(res.Config.Methods, func(m string) bool { return !releases(m) }) {
		f.Caption += " Broken lines release nothing, and so do not depend on ε."
	}
	return f
}

// addLevel draws a method that releases nothing, and so has one figure for
// every epsilon: a line with its interval as a band.
func addLevel(p *plot.Plot, from, to float64, s simulations.Summary, l figure.Look, y figure.Extent) {
	ends := []point{{from, s.Mean, s.Mean - s.CI95, s.Mean + s.CI95}, {to, s.Mean, s.Mean - s.CI95, s.Mean + s.CI95}}
	addBand(p, ends, y, l.Paint)
	figure.AddLine(p, xys(ends), l.Line(1.3))
}
