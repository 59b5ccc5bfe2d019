package report

import (
	"fmt"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/undertone-fl/undertone/simulations"
)

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

func addLabels(p *plot.Plot, names plotter.XYLabels) {
	style := textStyle(9.5, ink)
	style.YAlign = yMiddle
	styles := make([]text.Style, len(names.Labels))
	for i := range styles {
		styles[i] = style
	}
	p.Add(&plotter.Labels{XYs: names.XYs, Labels: names.Labels, TextStyle: styles, Offset: vg.Point{X: 6}})
}

func joinMethods(methods []string) string {
	names := make([]string, len(methods))
	for i, m := range methods {
		names[i] = methodName(m)
	}
	return strings.Join(names, ", ")
}
