package report

import (
	"fmt"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
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

func addMarkers(p *plot.Plot, points plotter.XYs, style draw.GlyphStyle) {
	p.Add(&plotter.Scatter{XYs: points, GlyphStyle: style})
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
