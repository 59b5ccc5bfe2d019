package pages

import (
	"errors"
	"fmt"

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
		return t, "This job keeps no trace of its quality (undertone job create --trace), and servers keep the latest state alone: how that one is, is below."
	}
	return t, "How good the model is was released with it, from figures that are noised and paid for: to show it costs nothing more."
}

func (t trace) table() *table {
	out := &table{
		name: "quality", Caption: "Quality by release", Empty: "Nothing is released yet.",
		Note: "Residual variance: of a typical user's responses, after the user's own fit, as a share of the squared response scale. Change: how far the release turned the shared directions and moved the shared mean.",
		columns: []column{
			{key: "release", Head: "Release", Numeric: true}, {key: "kind", Head: "Kind"},
			{key: "residual_variance", Head: "Residual variance", Numeric: true}, {key: "response_scale", Head: "Response scale", Numeric: true}, {key: "change", Head: "Change", Numeric: true},
		},
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
			func(m lowrank.Measure) float64 { return m.NoiseVariance }),
		draw("change", "Change by release", "change of the shared model",
			"How far each release turned the shared directions and moved the mean. It levels off where noise is all that is left.",
			func(m lowrank.Measure) float64 { return m.Change }),
	}
}
