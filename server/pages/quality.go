package pages

import (
	"errors"
	"fmt"
	"slices"

	"gonum.org/v1/plot/plotter"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/server/pages/figure"
)

// trace is how good a job's model was, release by release: what the latest released state
// carries of the states before it. All of that was released, so to show it costs nothing.
type trace struct {
	measures []lowrank.Measure
	kinds    []lowrank.Phase
}

// qualityOf reads a job's trace, and says what is in it.
func qualityOf(job *rounds.JobView) (t trace, words string) {
	state, err := jobs.State(job.Spec, job.Released, job.Latest.Bytes)
	var spec *rounds.SpecError
	switch {
	case errors.As(err, &spec) || errors.Is(err, jobs.ErrState):
		return t, fmt.Sprintf("Jobs of method %s release no figure of how good their model is.", job.Spec.Method)
	case err != nil:
		return t, "The latest state cannot be read: " + err.Error() + "."
	case job.Released == 0:
		return t, "Nothing is released yet."
	}
	t.measures, t.kinds = state.Trace, state.Config.Phases()
	if t.measures == nil {
		last := lowrank.Measure{Step: state.Step, Scale: state.Model.Scale}
		if t.kinds[state.Step-1].Kind == lowrank.Refine { // before, they are what the method assumes
			last.NoiseVariance, last.Change = state.Model.NoiseVariance, state.Change
		}
		t.measures = []lowrank.Measure{last}
		words = "This job keeps no trace of its quality (undertone job create --trace), and servers keep the latest state alone"
		if t.measured() {
			words += ": how that one is, is below"
		}
		return t, words + "."
	}
	const free = " was released with it, from figures that are noised and paid for: to show it costs nothing more."
	switch {
	case t.has(residual):
		return t, "How good the model is" + free
	case t.measured():
		return t, "How the model changed" + free
	}
	return t, "No figure of how good the model is was released yet."
}

// What may be measured of a release; zero is that it was not.
func residual(m lowrank.Measure) float64 { return m.NoiseVariance }
func scale(m lowrank.Measure) float64    { return m.Scale }
func change(m lowrank.Measure) float64   { return m.Change }

// has reports whether some release was measured so, and measured whether any was at all.
func (t trace) has(of func(lowrank.Measure) float64) bool {
	return slices.ContainsFunc(t.measures, func(m lowrank.Measure) bool { return of(m) != 0 })
}

func (t trace) measured() bool { return t.has(residual) || t.has(scale) || t.has(change) }

func (t trace) table() *table {
	out := &table{
		name: "quality", Caption: "Quality by release", Empty: "Nothing is released yet.",
		Note: "Change: how far the release turned the shared directions and moved the shared mean.",
		columns: []column{
			{key: "release", Head: "Release", Numeric: true}, {key: "kind", Head: "Kind"},
			{key: "residual_variance", Head: "Residual variance", Numeric: true}, {key: "response_scale", Head: "Response scale", Numeric: true}, {key: "change", Head: "Change", Numeric: true},
		},
	}
	if t.has(residual) {
		out.Note = "Residual variance: of a typical user's responses, after the user's own fit, as a share of the squared response scale. " + out.Note
	}
	known := func(x float64) cell {
		if x == 0 {
			return cell{}
		}
		return number(x)
	}
	for _, m := range t.measures {
		kind := cell{}
		if m.Step >= 1 && m.Step <= len(t.kinds) {
			kind = text(string(t.kinds[m.Step-1].Kind))
		}
		out.add(integer(m.Step), kind, known(m.NoiseVariance), known(m.Scale), known(m.Change))
	}
	out.dropEmpty()
	return out
}

func (t trace) figures(job string) []*figure.Figure {
	draw := func(name, title, y, caption string, of func(lowrank.Measure) float64) *figure.Figure {
		line := series{look: released}
		for _, m := range t.measures {
			if v := of(m); v != 0 {
				line.points = append(line.points, plotter.XY{X: float64(m.Step), Y: v})
			}
		}
		if len(line.points) < 2 {
			return nil
		}
		return chart(&figure.Figure{Name: name + "-" + job, Title: title, X: "release", Y: y, Caption: caption}, []series{line}, nil, nil)
	}
	return []*figure.Figure{
		draw("residual", "Residual variance by release", "share of the squared scale",
			"Of a typical user's responses, what the user's own model leaves unexplained, noise of the responses included. Lower is better.",
			residual),
		draw("change", "Change by release", "change of the shared model",
			"How far each release turned the shared directions and moved the mean. It levels off where noise is all that is left.",
			change),
	}
}
