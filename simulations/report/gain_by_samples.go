package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg/draw"

	"github.com/undertone-fl/undertone/server/pages/figure"
	"github.com/undertone-fl/undertone/simulations"
)

// gainBySamples shows which users gain over learning alone: by their number
// of samples, or where all have the same number, as a distribution.
func gainBySamples(res *simulations.Result) *figure.Figure {
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
	ratio := figure.ExtentOf(ratios)

	f := &figure.Figure{Name: "gain-by-samples"}
	for i, e := range epsilons {
		var p *plot.Plot
		if scatter {
			p = figure.NewPlot()
			figure.AddGrid(p)
			p.Add(figure.Span{Value: 1, Style: figure.Muted.Line(1)})
			for _, c := range curves[i][:min(1, len(curves[i]))] {
				var dots plotter.XYs
				for _, g := range c.gains {
					dots = append(dots, plotter.XY{X: float64(g.samples), Y: g.ratio})
				}
				figure.AddMarkers(p, dots, draw.GlyphStyle{Color: lookOf(c.method).Paint.Faint(85), Radius: 1.6, Shape: draw.CircleGlyph{}})
			}
			for _, c := range slices.Backward(curves[i]) {
				l := lookOf(c.method)
				median := medianBySamples(c.gains)
				figure.AddLine(p, xys(median), l.Line(1.8))
				figure.AddMarkers(p, xys(median), l.Marker(2.4))
			}
			figure.ExtentOf(samples).Apply(&p.X, 6)
			ratio.Apply(&p.Y, 10)
		} else {
			p = figure.NewPlot()
			figure.AddGrid(p)
			p.Add(figure.Span{Value: 1, Vertical: true, Style: figure.Muted.Line(1)})
			for _, c := range slices.Backward(curves[i]) {
				figure.AddLine(p, cumulative(c.gains), lookOf(c.method).Line(1.6))
			}
			ratio.Apply(&p.X, 6)
			p.Y.Min, p.Y.Max = 0, 1
			p.Y.Tick.Marker = percentTicks{}
		}
		f.Panels = append(f.Panels, figure.Panel{Title: epsilonTitle(e), Plot: p})
	}
	for _, m := range drawn {
		e := legendEntry(m)
		if !scatter {
			e.Marker.Shape = nil
		}
		f.Legend = append(f.Legend, e)
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
		f.Title = "Gain over learning alone, by number of samples"
		f.X, f.Y = "training samples of the user", "error alone / error"
		f.Caption = fmt.Sprintf("How many times smaller a user's error is than with a model of their own data only; above 1 the user gains. "+
			"Dots are users (%s), lines medians of users with about as many samples. %s", methodName(drawn[0]), said)
	} else {
		f.Title = "Gain over learning alone"
		f.X, f.Y = "error alone / error", "share of users"
		f.Caption = fmt.Sprintf("How many times smaller a user's error is than with a model of their own data only, as a cumulative distribution: "+
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
