package figure

import (
	"fmt"
	"image/color"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Paint is a colour, and the one that replaces it on a dark page.
type Paint struct{ Name, Light, Dark string }

// Paints. Those of data are Okabe and Ito's ("Color Universal Design", 2008), which
// people tell apart whatever their colour vision; give each a marker of its own as well.
var (
	Ink       = Paint{"ink", "#1f2328", "#e6edf3"}
	Muted     = Paint{"muted", "#59636e", "#9198a1"}
	Grid      = Paint{"grid", "#dfe3e8", "#30363d"}
	Blue      = Paint{"blue", "#0072b2", "#58b4f0"}
	Orange    = Paint{"orange", "#e69f00", "#f2b632"}
	Green     = Paint{"green", "#009e73", "#2fc79b"}
	Vermilion = Paint{"vermilion", "#d55e00", "#ff8b47"}
	Purple    = Paint{"purple", "#cc79a7", "#e3a3c8"}
	Grey      = Paint{"grey", "#6f7780", "#a5adb6"}
)

var paints = []Paint{Ink, Muted, Grid, Blue, Orange, Green, Vermilion, Purple, Grey}

func (p Paint) variable() string { return "--paint-" + p.Name }

// Variables are the declarations that a page's style sheet needs for its figures, for a
// light page or a dark one.
func Variables(dark bool) string {
	var b strings.Builder
	for _, p := range paints {
		value := p.Light
		if dark {
			value = p.Dark
		}
		fmt.Fprintf(&b, " %s: %s;", p.variable(), value)
	}
	return b.String()[1:]
}

func (p Paint) rgb() color.NRGBA {
	var c [3]uint8
	for i := range c {
		c[i] = hexDigit(p.Light[1+2*i])<<4 | hexDigit(p.Light[2+2*i])
	}
	return color.NRGBA{c[0], c[1], c[2], 255}
}

// Faint is the paint, translucent.
func (p Paint) Faint(alpha uint8) color.Color {
	c := p.rgb()
	c.A = alpha
	return translucent{c}
}

// translucent rounds up where color.NRGBA rounds down, so that vgsvg, which rounds down
// once more, writes the very colour that Inline looks for.
type translucent struct{ color.NRGBA }

func (t translucent) RGBA() (r, g, b, a uint32) {
	part := func(v uint8) uint32 { return (uint32(v)*0x101*uint32(t.A) + 0xfe) / 0xff }
	return part(t.R), part(t.G), part(t.B), uint32(t.A) * 0x101
}

func hexDigit(b byte) uint8 {
	if b >= 'a' {
		return b - 'a' + 10
	}
	return b - '0'
}

// Line is a solid line in the paint.
func (p Paint) Line(width vg.Length) draw.LineStyle {
	return draw.LineStyle{Color: p.rgb(), Width: width}
}

// Look is how a series is drawn, in every figure.
type Look struct {
	Paint  Paint
	Glyph  draw.GlyphDrawer // nil: no markers
	Dashes []vg.Length      // nil: solid
}

// Line is the series' line.
func (l Look) Line(width vg.Length) draw.LineStyle {
	s := l.Paint.Line(width)
	s.Dashes = l.Dashes
	return s
}

// Marker is the series' marker.
func (l Look) Marker(radius vg.Length) draw.GlyphStyle {
	return draw.GlyphStyle{Color: l.Paint.rgb(), Radius: radius, Shape: l.Glyph}
}

// typeface is metric-compatible with Arial and Helvetica, so that an SVG shows as
// measured where Liberation is not installed.
func typeface(size vg.Length) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
}

// TextStyle of so many points.
func TextStyle(size vg.Length, p Paint) text.Style {
	return text.Style{Color: p.rgb(), Font: typeface(size), Handler: plot.DefaultTextHandler}
}

// YMiddle puts the middle of lower-case letters, not that of the line of text, at a
// point.
const YMiddle draw.YAlignment = -0.38

// NewPlot returns an empty plot in this package's style.
func NewPlot() *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.LineStyle = Muted.Line(0.6)
		a.Tick.Label.Font = typeface(9)
		a.Tick.Label.Color = Muted.rgb()
		a.Tick.LineStyle = Muted.Line(0.6)
		a.Tick.Length = 3
		a.Padding = 4
	}
	return p
}
