package report

import (
	"fmt"
	"slices"
	"strings"

	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg/draw"

	"github.com/undertone-fl/undertone/server/pages/figure"
	"github.com/undertone-fl/undertone/simulations"
)

// budgetByRound shows when the budget is spent. Methods whose schedules agree
// share a line.
func budgetByRound(res *simulations.Result) *figure.Figure {
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
	y := figure.ExtentOf(values)
	if !y.Log {
		y.Low = 0
	}
	p := figure.NewPlot()
	figure.AddGrid(p)
	f := &figure.Figure{
		Name:   "budget-by-round",
		Title:  "Privacy budget spent by round",
		X:      "round (0: initialisation)",
		Y:      "ε spent so far",
		Panels: []figure.Panel{{Plot: p}},
	}
	var names plotter.XYLabels
	legend := map[string]bool{}
	for _, c := range curves {
		l := lookOf(c.methods[0])
		key := joinMethods(c.methods)
		if len(c.methods) > 1 {
			l = figure.Look{Paint: figure.Ink, Glyph: draw.CircleGlyph{}}
		}
		points := xys(c.points)
		for i := range points {
			points[i].Y = y.Clamp(points[i].Y)
		}
		figure.AddLine(p, points, l.Line(1.3))
		figure.AddMarkers(p, points, l.Marker(2.2))
		if !legend[key] {
			legend[key] = true
			f.Legend = append(f.Legend, figure.Entry{Text: key, Line: l.Line(1.5), Marker: l.Marker(3)})
		}
		label := "ε = " + c.epsilon.String()
		if !slices.Contains(names.Labels, label) {
			names.XYs = append(names.XYs, points[len(points)-1])
			names.Labels = append(names.Labels, label)
		}
	}
	figure.AddLabels(p, names)
	p.X.Min, p.X.Max = 0, rounds*1.12
	p.X.Tick.Marker = figure.EvenTicks{Room: 7, Whole: true}
	y.Apply(&p.Y, 20)
	f.Caption = fmt.Sprintf("The exact cost at δ = %s under %s adjacency of everything released up to each round. "+
		"It never passes the budget at the line's end; what round 0 has spent went into the initialisation.",
		figure.Shortest(res.Config.Delta), res.Config.Adjacency)
	return f
}

func joinMethods(methods []string) string {
	names := make([]string, len(methods))
	for i, m := range methods {
		names[i] = methodName(m)
	}
	return strings.Join(names, ", ")
}
