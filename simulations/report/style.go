package report

import (
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/undertone-fl/undertone/server/pages/figure"
	"github.com/undertone-fl/undertone/simulations"
)

// looks are how methods are drawn, in every figure.
var looks = map[string]figure.Look{
	simulations.AMHTLRS: {Paint: figure.Blue, Glyph: draw.CircleGlyph{}},
	simulations.LowRank: {Paint: figure.Orange, Glyph: draw.BoxGlyph{}},
	simulations.Global:  {Paint: figure.Green, Glyph: draw.PyramidGlyph{}},
	simulations.Local:   {Paint: figure.Vermilion, Dashes: []vg.Length{6, 3}},
	simulations.Oracle:  {Paint: figure.Grey, Dashes: []vg.Length{2, 2}},
}

func lookOf(method string) figure.Look {
	if l, ok := looks[method]; ok {
		return l
	}
	return figure.Look{Paint: figure.Purple, Glyph: draw.CrossGlyph{}}
}
