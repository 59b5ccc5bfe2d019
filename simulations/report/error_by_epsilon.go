package report

import (
	"fmt"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/undertone-fl/undertone/simulations"
)

// errorByEpsilon is the price of privacy: a line for each method, with the
// 95 % intervals over the seeds.
func errorByEpsilon(res *simulations.Result) *figure {
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
	x, y := newEpsilonAxis(epsilons), extentOf(values)
	p := newPlot()
	addGrid(p)
	if epsilons[0].Private() && !epsilons[len(epsilons)-1].Private() {
		last := x.at(epsilons[len(epsilons)-2])
		p.Add(span{value: (last + x.inf) / 2, vertical: true, style: grid.line(1)})
	}
	f := &figure{
		name:   "error-by-epsilon",
		title:  fmt.Sprintf("%s by privacy budget", sentence(metricLabel(metric))),
		x:      "privacy budget ε (∞: no privacy)",
		y:      metricLabel(metric),
		panels: []panel{{"", p}},
	}
	// The first method is drawn last, over the others.
	for i, method := range slices.Backward(res.Config.Methods) {
		l := lookOf(method)
		if !releases(method) {
			if s, ok := summary(res, method, epsilons[0], metric); ok {
				addLevel(p, x.low, x.high, s, l, y)
				f.legend = append(f.legend, legendEntry(method))
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
			p.Add(interval{at.X, y.clamp(s.Mean - s.CI95), y.clamp(s.Mean + s.CI95), l.paint.line(1)})
		}
		if len(all) == 0 {
			continue
		}
		if len(line) > 0 && len(free) > 0 {
			to := l.line(1)
			to.Dashes = []vg.Length{1.5, 2.5}
			addLine(p, plotter.XYs{line[len(line)-1], free[0]}, to)
		}
		addLine(p, line, l.line(1.5))
		addMarkers(p, all, l.marker(3))
		f.legend = append(f.legend, legendEntry(method))
	}
	slices.Reverse(f.legend)
	p.X.Min, p.X.Max = x.low, x.high
	p.X.Tick.Marker = x
	y.apply(&p.Y, 20)
	f.caption = "Lower is better. Every point is the mean over the seeds at the end of the run, with its 95 % interval. " +
		"Where a line is flat, privacy costs nothing; where it rises to the left, the noise of a smaller budget begins to show."
	if slices.ContainsFunc(res.Config.Methods, func(m string) bool { return !releases(m) }) {
		f.caption += " Broken lines release nothing, and so do not depend on ε."
	}
	return f
}

// addLevel draws a method that releases nothing, and so has one figure for
// every epsilon: a line with its interval as a band.
func addLevel(p *plot.Plot, from, to float64, s simulations.Summary, l look, y extent) {
	ends := []point{{from, s.Mean, s.Mean - s.CI95, s.Mean + s.CI95}, {to, s.Mean, s.Mean - s.CI95, s.Mean + s.CI95}}
	addBand(p, ends, y, l.paint)
	addLine(p, xys(ends), l.line(1.3))
}
