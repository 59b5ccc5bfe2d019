// Package figure draws what a page shows: gonum plots side by side under a title and a
// legend, as SVG or PNG, in one style. An SVG inside of a page takes its colours from the
// page (Variables), dark or light, needs no inline styles, and has its text as text.
package figure

import (
	"bytes"
	"cmp"
	"math"
	"strings"

	"golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Figure is one or more plots side by side, under a title and a legend.
type Figure struct {
	Name    string // of its files, without extension
	Title   string
	Caption string // what to see in it
	X, Y    string // labels of all horizontal and all vertical axes
	Panels  []Panel
	Legend  []Entry

	Width, Height vg.Length // of all, and of a panel; 0: for a column of text
	Untitled      bool      // Title is not drawn: what is around the figure has it
}

// Panel is a plot with its heading; its axes' labels are the figure's.
type Panel struct {
	Title string
	*plot.Plot
}

// Entry is one line of a legend, which is laid out in a row.
type Entry struct {
	Text   string
	Line   draw.LineStyle
	Marker draw.GlyphStyle // none if its Shape is nil
}

const (
	columnWidth = 760 * vg.Length(0.75) // points; 760 px in a browser
	titleHeight = vg.Length(32)
	rowHeight   = vg.Length(17) // of the legend
	panelTitle  = vg.Length(22)
	panelGap    = vg.Length(14)
	labelWidth  = vg.Length(20) // of the axes
	pngScale    = 2             // pixels for each of a browser's
)

// columns is the number of panels in a row.
func (f *Figure) columns() int {
	switch n := len(f.Panels); n {
	case 4:
		return 2
	default:
		return min(n, 3)
	}
}

func (f *Figure) rows() int { return (len(f.Panels) + f.columns() - 1) / f.columns() }

func (f *Figure) width() vg.Length { return cmp.Or(f.Width, columnWidth) }

// top is the space above the legend.
func (f *Figure) top() vg.Length {
	if f.Untitled {
		return 2
	}
	return titleHeight
}

func (f *Figure) height() vg.Length {
	panel := vg.Length(300)
	switch f.columns() {
	case 2:
		panel = 220
	case 3:
		panel = 190
	}
	panel = cmp.Or(f.Height, panel)
	return f.top() + rowHeight*vg.Length(len(f.legendRows())) + panel*vg.Length(f.rows()) + labelWidth + 6
}

// SVG is the figure as a file.
func (f *Figure) SVG() ([]byte, error) {
	c := vgsvg.New(f.width(), f.height())
	f.draw(draw.New(c))
	var buf bytes.Buffer
	if _, err := c.WriteTo(&buf); err != nil {
		return nil, err
	}
	svg := strings.ReplaceAll(buf.String(), "font-family:Liberation Sans;", "font-family:Liberation Sans,Arial,Helvetica,sans-serif;")
	return []byte(svg), nil
}

// PNG is the figure as a file.
func (f *Figure) PNG() ([]byte, error) {
	c := vgimg.NewWith(vgimg.UseWH(f.width(), f.height()), vgimg.UseDPI(96*pngScale))
	f.draw(draw.New(c))
	var buf bytes.Buffer
	_, err := vgimg.PngCanvas{Canvas: c}.WriteTo(&buf)
	return buf.Bytes(), err
}

func (f *Figure) draw(c draw.Canvas) {
	if !f.Untitled {
		title := TextStyle(13, Ink)
		title.YAlign = draw.YTop
		title.Font.Weight = font.WeightBold
		c.FillText(title, vg.Point{X: c.Min.X + 6, Y: c.Max.Y - 8}, f.Title)
	}
	y := c.Max.Y - f.top()
	for _, row := range f.legendRows() {
		drawLegend(c, row, y-rowHeight/2)
		y -= rowHeight
	}
	y -= 6

	label := TextStyle(10, Muted)
	label.XAlign, label.YAlign = draw.XCenter, draw.YTop
	panels := draw.Crop(c, labelWidth, -10, labelWidth, y-c.Max.Y)
	middle := panels.Center()
	c.FillText(label, vg.Point{X: middle.X, Y: c.Min.Y + labelWidth - 4}, f.X)
	label.Rotation = math.Pi / 2
	c.FillText(label, vg.Point{X: c.Min.X + 4, Y: middle.Y}, f.Y)
	f.drawPanels(panels)
}

// drawPanels lays the panels out in equal tiles. They line up because all
// panels of a figure have the same vertical axis.
func (f *Figure) drawPanels(c draw.Canvas) {
	tiles := draw.Tiles{Cols: f.columns(), Rows: f.rows(), PadX: panelGap, PadY: panelGap}
	heading := TextStyle(11, Ink)
	heading.XAlign, heading.YAlign = draw.XCenter, draw.YTop
	for i, p := range f.Panels {
		tile := tiles.At(c, i%tiles.Cols, i/tiles.Cols)
		if p.Title != "" {
			plot := p.DataCanvas(tile)
			c.FillText(heading, vg.Point{X: (plot.Min.X + plot.Max.X) / 2, Y: tile.Max.Y - 4}, p.Title)
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
	s := TextStyle(10, Ink)
	s.YAlign = YMiddle
	return s
}()

func (e Entry) width() vg.Length { return legendKey + 5 + legendStyle.Width(e.Text) + legendSpace }

// legendRows breaks the legend where it is wider than the figure.
func (f *Figure) legendRows() [][]Entry {
	var rows [][]Entry
	width := vg.Length(0)
	for _, e := range f.Legend {
		if len(rows) == 0 || width+e.width() > f.width() {
			rows, width = append(rows, nil), 0
		}
		rows[len(rows)-1] = append(rows[len(rows)-1], e)
		width += e.width()
	}
	return rows
}

func drawLegend(c draw.Canvas, row []Entry, y vg.Length) {
	x := c.Min.X + 6
	for _, e := range row {
		if e.Line.Width > 0 {
			c.StrokeLine2(e.Line, x, y, x+legendKey, y)
		}
		if e.Marker.Shape != nil {
			c.DrawGlyph(e.Marker, vg.Point{X: x + legendKey/2, Y: y})
		}
		c.FillText(legendStyle, vg.Point{X: x + legendKey + 5, Y: y}, e.Text)
		x += e.width()
	}
}
