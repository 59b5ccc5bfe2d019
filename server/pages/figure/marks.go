package figure

import (
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// AddLine draws a line through points, if there are two.
func AddLine(p *plot.Plot, points plotter.XYs, style draw.LineStyle) {
	if len(points) > 1 {
		p.Add(&plotter.Line{XYs: points, LineStyle: style})
	}
}

// AddMarkers draws a marker at each point.
func AddMarkers(p *plot.Plot, points plotter.XYs, style draw.GlyphStyle) {
	p.Add(&plotter.Scatter{XYs: points, GlyphStyle: style})
}

// AddLabels writes to the right of points.
func AddLabels(p *plot.Plot, names plotter.XYLabels) {
	style := TextStyle(9.5, Ink)
	style.YAlign = YMiddle
	styles := make([]text.Style, len(names.Labels))
	for i := range styles {
		styles[i] = style
	}
	p.Add(&plotter.Labels{XYs: names.XYs, Labels: names.Labels, TextStyle: styles, Offset: vg.Point{X: 6}})
}

// Span draws a vertical or horizontal reference line across a plot.
type Span struct {
	Value    float64
	Vertical bool
	Style    draw.LineStyle
}

// Plot implements plot.Plotter.
func (s Span) Plot(c draw.Canvas, p *plot.Plot) {
	trX, trY := p.Transforms(&c)
	if s.Vertical {
		x := trX(s.Value)
		c.StrokeLine2(s.Style, x, c.Min.Y, x, c.Max.Y)
		return
	}
	y := trY(s.Value)
	c.StrokeLine2(s.Style, c.Min.X, y, c.Max.X, y)
}

// Interval draws a vertical bar with caps.
type Interval struct {
	X, Low, High float64
	Style        draw.LineStyle
}

// Plot implements plot.Plotter.
func (i Interval) Plot(c draw.Canvas, p *plot.Plot) {
	const cap = vg.Length(2.5)
	trX, trY := p.Transforms(&c)
	x := trX(i.X)
	c.StrokeLine2(i.Style, x, trY(i.Low), x, trY(i.High))
	for _, end := range []float64{i.Low, i.High} {
		c.StrokeLine2(i.Style, x-cap, trY(end), x+cap, trY(end))
	}
}

// Cross is a marker that is as bold as the others.
type Cross struct{}

// DrawGlyph implements draw.GlyphDrawer.
func (Cross) DrawGlyph(c *draw.Canvas, g draw.GlyphStyle, at vg.Point) {
	style := draw.LineStyle{Color: g.Color, Width: g.Radius / 1.6}
	r := g.Radius * 1.2
	c.StrokeLine2(style, at.X-r, at.Y-r, at.X+r, at.Y+r)
	c.StrokeLine2(style, at.X-r, at.Y+r, at.X+r, at.Y-r)
}
