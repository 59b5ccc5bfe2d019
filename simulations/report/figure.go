package report

import (
	"bytes"
	"math"
	"strings"

	"golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// figure is one or more plots side by side, under a title and a legend.
type figure struct {
	name    string // of its files, without extension
	title   string
	caption string // what to see in it
	x, y    string // labels of all horizontal and all vertical axes
	panels  []panel
	legend  []entry
}

// panel is a plot with its heading; its axes' labels are the figure's.
type panel struct {
	title string
	*plot.Plot
}

// entry is one line of a legend, which is laid out in a row.
type entry struct {
	text   string
	line   draw.LineStyle
	marker draw.GlyphStyle // none if its Shape is nil
}

const (
	figureWidth = 760 * vg.Length(0.75) // points; 760 px in a browser
	titleHeight = vg.Length(32)
	rowHeight   = vg.Length(17) // of the legend
	panelTitle  = vg.Length(22)
	panelGap    = vg.Length(14)
	labelWidth  = vg.Length(20) // of the axes
	pngScale    = 2             // pixels for each of a browser's
)

// columns is the number of panels in a row.
func (f *figure) columns() int {
	switch n := len(f.panels); n {
	case 4:
		return 2
	default:
		return min(n, 3)
	}
}

func (f *figure) rows() int { return (len(f.panels) + f.columns() - 1) / f.columns() }

func (f *figure) height() vg.Length {
	panel := vg.Length(300)
	switch f.columns() {
	case 2:
		panel = 220
	case 3:
		panel = 190
	}
	return titleHeight + rowHeight*vg.Length(len(f.legendRows())) + panel*vg.Length(f.rows()) + labelWidth + 6
}

func (f *figure) svg() ([]byte, error) {
	c := vgsvg.New(figureWidth, f.height())
	f.draw(draw.New(c))
	var buf bytes.Buffer
	if _, err := c.WriteTo(&buf); err != nil {
		return nil, err
	}
	svg := strings.ReplaceAll(buf.String(), "font-family:Liberation Sans;", "font-family:Liberation Sans,Arial,Helvetica,sans-serif;")
	return []byte(svg), nil
}

func (f *figure) png() ([]byte, error) {
	c := vgimg.NewWith(vgimg.UseWH(figureWidth, f.height()), vgimg.UseDPI(96*pngScale))
	f.draw(draw.New(c))
	var buf bytes.Buffer
	_, err := vgimg.PngCanvas{Canvas: c}.WriteTo(&buf)
	return buf.Bytes(), err
}

func (f *figure) draw(c draw.Canvas) {
	title := textStyle(13, ink)
	title.YAlign = draw.YTop
	title.Font.Weight = font.WeightBold
	c.FillText(title, vg.Point{X: c.Min.X + 6, Y: c.Max.Y - 8}, f.title)

	y := c.Max.Y - titleHeight
	for _, row := range f.legendRows() {
		drawLegend(c, row, y-rowHeight/2)
		y -= rowHeight
	}
	y -= 6

	label := textStyle(10, muted)
	label.XAlign, label.YAlign = draw.XCenter, draw.YTop
	panels := draw.Crop(c, labelWidth, -10, labelWidth, y-c.Max.Y)
	middle := panels.Center()
	c.FillText(label, vg.Point{X: middle.X, Y: c.Min.Y + labelWidth - 4}, f.x)
	label.Rotation = math.Pi / 2
	c.FillText(label, vg.Point{X: c.Min.X + 4, Y: middle.Y}, f.y)
	f.drawPanels(panels)
}

// drawPanels lays the panels out in equal tiles. They line up because all
// panels of a figure have the same vertical axis.
func (f *figure) drawPanels(c draw.Canvas) {
	tiles := draw.Tiles{Cols: f.columns(), Rows: f.rows(), PadX: panelGap, PadY: panelGap}
	heading := textStyle(11, ink)
	heading.XAlign, heading.YAlign = draw.XCenter, draw.YTop
	for i, p := range f.panels {
		tile := tiles.At(c, i%tiles.Cols, i/tiles.Cols)
		if p.title != "" {
			plot := p.DataCanvas(tile)
			c.FillText(heading, vg.Point{X: (plot.Min.X + plot.Max.X) / 2, Y: tile.Max.Y - 4}, p.title)
			tile = draw.Crop(tile, 0, 0, 0, -panelTitle)
		}
		p.Draw(tile)
	}
}

const (
	legendKey   = vg.Length(24) // length of the line of an entry
	legendSpace = vg.Length(16) // between entries
)

var legendStyle = func() draw.TextStyle {
	s := textStyle(10, ink)
	s.YAlign = yMiddle
	return s
}()

func (e entry) width() vg.Length { return legendKey + 5 + legendStyle.Width(e.text) + legendSpace }

// legendRows breaks the legend where it is wider than the figure.
func (f *figure) legendRows() [][]entry {
	var rows [][]entry
	width := vg.Length(0)
	for _, e := range f.legend {
		if len(rows) == 0 || width+e.width() > figureWidth {
			rows, width = append(rows, nil), 0
		}
		rows[len(rows)-1] = append(rows[len(rows)-1], e)
		width += e.width()
	}
	return rows
}

func drawLegend(c draw.Canvas, row []entry, y vg.Length) {
	x := c.Min.X + 6
	for _, e := range row {
		if e.line.Width > 0 {
			c.StrokeLine2(e.line, x, y, x+legendKey, y)
		}
		if e.marker.Shape != nil {
			c.DrawGlyph(e.marker, vg.Point{X: x + legendKey/2, Y: y})
		}
		c.FillText(legendStyle, vg.Point{X: x + legendKey + 5, Y: y}, e.text)
		x += e.width()
	}
}

// span draws a vertical or horizontal reference line across a plot.
type span struct {
	value    float64
	vertical bool
	style    draw.LineStyle
}

// Plot implements plot.Plotter.
func (s span) Plot(c draw.Canvas, p *plot.Plot) {
	trX, trY := p.Transforms(&c)
	if s.vertical {
		x := trX(s.value)
		c.StrokeLine2(s.style, x, c.Min.Y, x, c.Max.Y)
		return
	}
	y := trY(s.value)
	c.StrokeLine2(s.style, c.Min.X, y, c.Max.X, y)
}

// interval draws a vertical bar with caps.
type interval struct {
	x, low, high float64
	style        draw.LineStyle
}

// Plot implements plot.Plotter.
func (i interval) Plot(c draw.Canvas, p *plot.Plot) {
	const cap = vg.Length(2.5)
	trX, trY := p.Transforms(&c)
	x := trX(i.x)
	c.StrokeLine2(i.style, x, trY(i.low), x, trY(i.high))
	for _, end := range []float64{i.low, i.high} {
		c.StrokeLine2(i.style, x-cap, trY(end), x+cap, trY(end))
	}
}
