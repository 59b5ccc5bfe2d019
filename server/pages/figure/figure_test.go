package figure_test

import (
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg/draw"

	"github.com/undertone-fl/undertone/server/pages/figure"
)

func TestTicks(t *testing.T) {
	labels := func(m plot.Ticker, low, high float64) string {
		var ls []string
		for _, tick := range m.Ticks(low, high) {
			if tick.Label != "" {
				ls = append(ls, tick.Label)
			}
		}
		return strings.Join(ls, " ")
	}
	for _, tt := range []struct {
		got, want string
	}{
		{labels(figure.EvenTicks{Room: 7, Whole: true}, 0, 8), "0 2 4 6 8"},
		{labels(figure.EvenTicks{Room: 7, Whole: true}, 0, 1), "0 1"},
		{labels(figure.EvenTicks{Room: 7, Whole: true}, 0, 30), "0 5 10 15 20 25 30"},
		{labels(figure.EvenTicks{Room: 5}, -0.1, 0.31), "-0.1 0.0 0.1 0.2 0.3"},
		{labels(figure.LogTicks{Room: 20}, 0.009, 1.2), "0.01 0.02 0.05 0.1 0.2 0.5 1"},
		{labels(figure.LogTicks{Room: 6}, 2.5, 330), "3 10 30 100 300"},
		{labels(figure.LogTicks{Room: 6}, 1e-6, 1), "1e-6 1e-5 0.0001 0.001 0.01 0.1 1"},
	} {
		if tt.got != tt.want {
			t.Errorf("labels %q, want %q", tt.got, tt.want)
		}
	}
}

// TestInline: an element that stands for itself in any page, whatever its policy, and is
// named for those who do not see it.
func TestInline(t *testing.T) {
	p := figure.NewPlot()
	figure.AddGrid(p)
	look := figure.Look{Paint: figure.Blue, Glyph: draw.CircleGlyph{}}
	points := plotter.XYs{{X: 0, Y: 1}, {X: 1, Y: 3}}
	figure.AddLine(p, points, look.Line(1))
	figure.AddMarkers(p, points, look.Marker(2))
	figure.AddLabels(p, plotter.XYLabels{XYs: points[1:], Labels: []string{"a < b"}})
	f := &figure.Figure{
		Name: "growth", Title: "Growth & more", Caption: "It <grows>.", X: "time", Y: "size",
		Panels: []figure.Panel{{Plot: p}}, Legend: []figure.Entry{{Text: "size", Line: look.Line(1), Marker: look.Marker(2)}},
	}
	inline, err := f.Inline()
	if err != nil {
		t.Fatal(err)
	}
	svg := string(inline)
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{
		`role="img" aria-labelledby="growth-title" aria-describedby="growth-desc"`,
		`<title id="growth-title">Growth &amp; more</title><desc id="growth-desc">It &lt;grows&gt;.</desc>`,
		`fill="var(--paint-blue)"`, `stroke="var(--paint-grid)"`, `>a &lt; b</text>`,
	} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %s in\n%s", want, svg)
		}
	}
	if found := regexp.MustCompile(`#[0-9A-Fa-f]{6}|style=`).FindString(svg); found != "" {
		t.Errorf("%s: neither follows the page", found)
	}
	for _, name := range regexp.MustCompile(`var\((--paint-[a-z]+)\)`).FindAllStringSubmatch(svg, -1) {
		for _, dark := range []bool{false, true} {
			if !strings.Contains(figure.Variables(dark), name[1]+": #") {
				t.Errorf("%s is not declared", name[1])
			}
		}
	}
}
