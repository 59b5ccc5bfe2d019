package report

import (
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/undertone-fl/undertone/simulations"
)

// Colours of methods are those of Okabe and Ito ("Color Universal Design",
// 2008), which people tell apart whatever their colour vision; each method
// has a marker of its own as well. The dark ones replace them in report.html
// where the reader prefers a dark page.
type paint struct{ light, dark string }

var (
	ink    = paint{"#1f2328", "#e6edf3"}
	muted  = paint{"#59636e", "#9198a1"}
	grid   = paint{"#dfe3e8", "#30363d"}
	others = paint{"#cc79a7", "#e3a3c8"}
)

// look is how a method is drawn, in every figure.
type look struct {
	paint  paint
	glyph  draw.GlyphDrawer
	dashes []vg.Length
}

var looks = map[string]look{
	simulations.AMHTLRS: {paint{"#0072b2", "#58b4f0"}, draw.CircleGlyph{}, nil},
	simulations.LowRank: {paint{"#e69f00", "#f2b632"}, draw.BoxGlyph{}, nil},
	simulations.Global:  {paint{"#009e73", "#2fc79b"}, draw.PyramidGlyph{}, nil},
	simulations.Local:   {paint{"#d55e00", "#ff8b47"}, nil, []vg.Length{6, 3}},
	simulations.Oracle:  {paint{"#6f7780", "#a5adb6"}, nil, []vg.Length{2, 2}},
}

func lookOf(method string) look {
	if l, ok := looks[method]; ok {
		return l
	}
	return look{others, draw.CrossGlyph{}, nil}
}

// paints lists every colour once, for report.html to name.
func paints() []paint {
	ps := []paint{ink, muted, grid, others}
	for _, m := range simulations.Choices("methods") {
		ps = append(ps, lookOf(m).paint)
	}
	return ps
}

func (p paint) rgb() color.Color {
	var c [3]uint8
	for i := range c {
		c[i] = hexDigit(p.light[1+2*i])<<4 | hexDigit(p.light[2+2*i])
	}
	return color.NRGBA{c[0], c[1], c[2], 255}
}

func (p paint) faint(alpha uint8) color.Color {
	c := p.rgb().(color.NRGBA)
	c.A = alpha
	return translucent{c}
}

// translucent rounds up where color.NRGBA rounds down, so that vgsvg, which
// rounds down once more, writes the very colour that report.html looks for.
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

func (p paint) line(width vg.Length) draw.LineStyle {
	return draw.LineStyle{Color: p.rgb(), Width: width}
}

func (l look) line(width vg.Length) draw.LineStyle {
	s := l.paint.line(width)
	s.Dashes = l.dashes
	return s
}

func (l look) marker(radius vg.Length) draw.GlyphStyle {
	return draw.GlyphStyle{Color: l.paint.rgb(), Radius: radius, Shape: l.glyph}
}

// typeface is metric-compatible with Arial and Helvetica, so that an SVG
// shows as measured where Liberation is not installed.
func typeface(size vg.Length) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
}

func textStyle(size vg.Length, p paint) text.Style {
	return text.Style{Color: p.rgb(), Font: typeface(size), Handler: plot.DefaultTextHandler}
}

// yMiddle puts the middle of lower-case letters, not that of the line of
// text, at a point.
const yMiddle draw.YAlignment = -0.38

// newPlot returns an empty plot in the report's style.
func newPlot() *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.LineStyle = muted.line(0.6)
		a.Tick.Label.Font = typeface(9)
		a.Tick.Label.Color = muted.rgb()
		a.Tick.LineStyle = muted.line(0.6)
		a.Tick.Length = 3
		a.Padding = 4
	}
	return p
}
