package report

import (
	"fmt"
	"strings"

	"gonum.org/v1/plot/plotter"

	"github.com/undertone-fl/undertone/server/pages/figure"
	"github.com/undertone-fl/undertone/simulations"
)

// newFigures draws what res has figures for, the most telling first.
func newFigures(res *simulations.Result) []*figure.Figure {
	var figures []*figure.Figure
	for _, f := range []*figure.Figure{
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

func legendEntry(method string) figure.Entry {
	l := lookOf(method)
	e := figure.Entry{Text: methodName(method), Line: l.Line(1.5)}
	if releases(method) {
		e.Marker = l.Marker(3)
	} else {
		e.Text += map[string]string{
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
