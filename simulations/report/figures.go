package report

import (
	"cmp"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/undertone-fl/undertone/simulations"
)

// newFigures draws what res has figures for, the most telling first.
func newFigures(res *simulations.Result) []*figure {
	var figures []*figure
	for _, f := range []*figure{
		errorByEpsilon(res), errorByRound(res), gainBySamples(res), budgetByRound(res),
	} {
		if f != nil {
			figures = append(figures, f)
		}
	}
	return figures
}

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

// maxPanels bounds the budgets that a figure shows side by side.
const maxPanels = 6

// errorByRound shows how fast each method learns, in one panel for each
// epsilon.
func errorByRound(res *simulations.Result) *figure {
	metric := mainMetric(res)
	f := &figure{
		name:  "error-by-round",
		title: fmt.Sprintf("%s by round", sentence(metricLabel(metric))),
		x:     "round (0: initialisation)",
		y:     metricLabel(metric),
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
	y := extentOf(values)
	for i, e := range epsilons {
		p := newPlot()
		addGrid(p)
		rounds := 1.0
		for _, c := range curves[i] {
			rounds = max(rounds, c.points[len(c.points)-1].x)
		}
		for _, c := range slices.Backward(curves[i]) {
			l := lookOf(c.method)
			if !releases(c.method) {
				last := c.points[len(c.points)-1].y
				addLine(p, plotter.XYs{{X: 0, Y: last}, {X: rounds, Y: last}}, l.line(1.2))
				continue
			}
			addBand(p, c.points, y, l.paint)
			addLine(p, xys(c.points), l.line(1.5))
			addMarkers(p, xys(c.points), l.marker(2))
		}
		p.X.Min, p.X.Max = 0, rounds
		p.X.Tick.Marker = evenTicks{room: 7, whole: true}
		y.apply(&p.Y, 10)
		f.panels = append(f.panels, panel{epsilonTitle(e), p})
	}
	for _, m := range res.Config.Methods {
		if drawn[m] {
			f.legend = append(f.legend, legendEntry(m))
		}
	}
	f.caption = "Lines are means over the seeds, bands span all of them. " +
		"A line that turns up again at a small ε has run longer than its budget allows: each round then adds more noise than it learns."
	if len(epsilons) < len(res.Config.Epsilons) {
		f.caption += fmt.Sprintf(" %d of %d budgets are shown.", len(epsilons), len(res.Config.Epsilons))
	}
	return f
}

// budgetByRound shows when the budget is spent. Methods whose schedules agree
// share a line.
func budgetByRound(res *simulations.Result) *figure {
	type curve struct {
		methods []string
		epsilon simulations.Epsilon
		points  []point
	}
	var curves []curve
	var values []float64
	rounds := 1.0
	for _, e := range sortedEpsilons(res) {
		first := len(curves)
		for _, method := range res.Config.Methods {
			points := byRound(res, method, e, epsilonSpent)
			if !e.Private() || !releases(method) || len(points) == 0 {
				continue
			}
			same := slices.IndexFunc(curves[first:], func(c curve) bool { return slices.Equal(c.points, points) })
			if same >= 0 {
				curves[first+same].methods = append(curves[first+same].methods, method)
				continue
			}
			curves = append(curves, curve{[]string{method}, e, points})
			rounds = max(rounds, points[len(points)-1].x)
			for _, q := range points {
				if q.y > 0 {
					values = append(values, q.y)
				}
			}
		}
	}
	if len(curves) == 0 {
		return nil
	}
	y := extentOf(values)
	if !y.log {
		y.low = 0
	}
	p := newPlot()
	addGrid(p)
	f := &figure{
		name:   "budget-by-round",
		title:  "Privacy budget spent by round",
		x:      "round (0: initialisation)",
		y:      "ε spent so far",
		panels: []panel{{"", p}},
	}
	var names plotter.XYLabels
	legend := map[string]bool{}
	for _, c := range curves {
		l := lookOf(c.methods[0])
		key := joinMethods(c.methods)
		if len(c.methods) > 1 {
			l = look{ink, draw.CircleGlyph{}, nil}
		}
		points := xys(c.points)
		for i := range points {
			points[i].Y = y.clamp(points[i].Y)
		}
		addLine(p, points, l.line(1.3))
		addMarkers(p, points, l.marker(2.2))
		if !legend[key] {
			legend[key] = true
			f.legend = append(f.legend, entry{key, l.line(1.5), l.marker(3)})
		}
		label := "ε = " + c.epsilon.String()
		if !slices.Contains(names.Labels, label) {
			names.XYs = append(names.XYs, points[len(points)-1])
			names.Labels = append(names.Labels, label)
		}
	}
	addLabels(p, names)
	p.X.Min, p.X.Max = 0, rounds*1.12
	p.X.Tick.Marker = evenTicks{room: 7, whole: true}
	y.apply(&p.Y, 20)
	f.caption = fmt.Sprintf("The exact cost at δ = %s under %s adjacency of everything released up to each round. "+
		"It never passes the budget at the line's end; what round 0 has spent went into the initialisation.",
		shortest(res.Config.Delta), res.Config.Adjacency)
	return f
}

// gainBySamples shows which users gain over learning alone: by their number
// of samples, or where all have the same number, as a distribution.
func gainBySamples(res *simulations.Result) *figure {
	epsilons := gainEpsilons(res)
	var all []gain
	type curve struct {
		method string
		gains  []gain
	}
	curves := make([][]curve, len(epsilons))
	var drawn []string
	for i, e := range epsilons {
		for _, method := range res.Config.Methods {
			if !releases(method) {
				continue
			}
			if gs := gains(res, method, e); len(gs) > 0 {
				curves[i] = append(curves[i], curve{method, gs})
				all = append(all, gs...)
				if !slices.Contains(drawn, method) {
					drawn = append(drawn, method)
				}
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	var samples, ratios []float64
	for _, g := range all {
		samples, ratios = append(samples, float64(g.samples)), append(ratios, g.ratio)
	}
	ratios = append(ratios, 1) // keep "as good as alone" in sight
	scatter := slices.Min(samples) < slices.Max(samples)
	ratio := extentOf(ratios)

	f := &figure{name: "gain-by-samples"}
	for i, e := range epsilons {
		var p *plot.Plot
		if scatter {
			p = newPlot()
			addGrid(p)
			p.Add(span{value: 1, style: muted.line(1)})
			for _, c := range curves[i][:min(1, len(curves[i]))] {
				var dots plotter.XYs
				for _, g := range c.gains {
					dots = append(dots, plotter.XY{X: float64(g.samples), Y: g.ratio})
				}
				addMarkers(p, dots, draw.GlyphStyle{Color: lookOf(c.method).paint.faint(85), Radius: 1.6, Shape: draw.CircleGlyph{}})
			}
			for _, c := range slices.Backward(curves[i]) {
				l := lookOf(c.method)
				median := medianBySamples(c.gains)
				addLine(p, xys(median), l.line(1.8))
				addMarkers(p, xys(median), l.marker(2.4))
			}
			extentOf(samples).apply(&p.X, 6)
			ratio.apply(&p.Y, 10)
		} else {
			p = newPlot()
			addGrid(p)
			p.Add(span{value: 1, vertical: true, style: muted.line(1)})
			for _, c := range slices.Backward(curves[i]) {
				addLine(p, cumulative(c.gains), lookOf(c.method).line(1.6))
			}
			ratio.apply(&p.X, 6)
			p.Y.Min, p.Y.Max = 0, 1
			p.Y.Tick.Marker = percentTicks{}
		}
		f.panels = append(f.panels, panel{epsilonTitle(e), p})
	}
	for _, m := range drawn {
		e := legendEntry(m)
		if !scatter {
			e.marker.Shape = nil
		}
		f.legend = append(f.legend, e)
	}

	best := curves[len(curves)-1]
	e := epsilons[len(epsilons)-1]
	if len(best) == 0 { // a budget whose runs are not complete
		best, e = curves[0], epsilons[0]
	}
	median, winners := medianGain(best[0].gains)
	said := fmt.Sprintf("With %s and %s, the median user's error is %s of what it is alone, and %.0f %% of users gain.",
		methodName(best[0].method), epsilonWords(e), percent(1/median), 100*winners)
	if scatter {
		f.title = "Gain over learning alone, by number of samples"
		f.x, f.y = "training samples of the user", "error alone / error"
		f.caption = fmt.Sprintf("How many times smaller a user's error is than with a model of their own data only; above 1 the user gains. "+
			"Dots are users (%s), lines medians of users with about as many samples. %s", methodName(drawn[0]), said)
	} else {
		f.title = "Gain over learning alone"
		f.x, f.y = "error alone / error", "share of users"
		f.caption = fmt.Sprintf("How many times smaller a user's error is than with a model of their own data only, as a cumulative distribution: "+
			"users left of 1 lose, and the further right a line, the better. All users have %s. %s",
			plural(int(samples[0]), "training sample"), said)
	}
	return f
}

// gainEpsilons picks at most three budgets: the smallest, the one nearest to
// 1, and none.
func gainEpsilons(res *simulations.Result) []simulations.Epsilon {
	epsilons := sortedEpsilons(res)
	if len(epsilons) <= 3 {
		return epsilons
	}
	middle := slices.MinFunc(epsilons[1:len(epsilons)-1], func(a, b simulations.Epsilon) int {
		return cmp.Compare(math.Abs(math.Log(float64(a))), math.Abs(math.Log(float64(b))))
	})
	return []simulations.Epsilon{epsilons[0], middle, epsilons[len(epsilons)-1]}
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

// cumulative is the share of users with at most each ratio, as a step line.
func cumulative(gs []gain) plotter.XYs {
	gs = slices.Clone(gs)
	slices.SortFunc(gs, func(a, b gain) int { return cmp.Compare(a.ratio, b.ratio) })
	var line plotter.XYs
	for i, g := range gs {
		below, at := float64(i)/float64(len(gs)), float64(i+1)/float64(len(gs))
		line = append(line, plotter.XY{X: g.ratio, Y: below}, plotter.XY{X: g.ratio, Y: at})
	}
	return line
}

// percentTicks labels shares.
type percentTicks struct{}

func (percentTicks) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for v := 0.0; v <= 1; v += 0.25 {
		ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprintf("%.0f %%", 100*v)})
	}
	return ticks
}

func xys(points []point) plotter.XYs {
	line := make(plotter.XYs, len(points))
	for i, q := range points {
		line[i] = plotter.XY{X: q.x, Y: q.y}
	}
	return line
}

func addLine(p *plot.Plot, points plotter.XYs, style draw.LineStyle) {
	if len(points) > 1 {
		p.Add(&plotter.Line{XYs: points, LineStyle: style})
	}
}

// addLevel draws a method that releases nothing, and so has one figure for
// every epsilon: a line with its interval as a band.
func addLevel(p *plot.Plot, from, to float64, s simulations.Summary, l look, y extent) {
	ends := []point{{from, s.Mean, s.Mean - s.CI95, s.Mean + s.CI95}, {to, s.Mean, s.Mean - s.CI95, s.Mean + s.CI95}}
	addBand(p, ends, y, l.paint)
	addLine(p, xys(ends), l.line(1.3))
}

func addMarkers(p *plot.Plot, points plotter.XYs, style draw.GlyphStyle) {
	p.Add(&plotter.Scatter{XYs: points, GlyphStyle: style})
}

// addBand shades what the seeds span, where they differ.
func addBand(p *plot.Plot, points []point, y extent, paint paint) {
	var outline plotter.XYs
	for _, q := range points {
		outline = append(outline, plotter.XY{X: q.x, Y: y.clamp(q.high)})
	}
	for _, q := range slices.Backward(points) {
		outline = append(outline, plotter.XY{X: q.x, Y: y.clamp(q.low)})
	}
	if len(points) > 1 {
		p.Add(&plotter.Polygon{XYs: []plotter.XYs{outline}, Color: paint.faint(51), LineStyle: draw.LineStyle{Color: color.Transparent}})
	}
}

func addLabels(p *plot.Plot, names plotter.XYLabels) {
	style := textStyle(9.5, ink)
	style.YAlign = yMiddle
	styles := make([]text.Style, len(names.Labels))
	for i := range styles {
		styles[i] = style
	}
	p.Add(&plotter.Labels{XYs: names.XYs, Labels: names.Labels, TextStyle: styles, Offset: vg.Point{X: 6}})
}

func legendEntry(method string) entry {
	l := lookOf(method)
	e := entry{text: methodName(method), line: l.line(1.5)}
	if releases(method) {
		e.marker = l.marker(3)
	} else {
		e.text += map[string]string{
			simulations.Local:  " (each alone)",
			simulations.Oracle: " (knows U and supports)",
		}[method]
	}
	return e
}

func joinMethods(methods []string) string {
	names := make([]string, len(methods))
	for i, m := range methods {
		names[i] = methodName(m)
	}
	return strings.Join(names, ", ")
}

func epsilonTitle(e simulations.Epsilon) string {
	if !e.Private() {
		return "no privacy (ε = ∞)"
	}
	return "ε = " + e.String()
}

func epsilonWords(e simulations.Epsilon) string {
	if !e.Private() {
		return "no privacy"
	}
	return "ε = " + e.String()
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
