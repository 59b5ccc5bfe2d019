package report

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"strings"

	"github.com/undertone-fl/undertone/server/pages/figure"
	"github.com/undertone-fl/undertone/simulations"
)

//go:embed report.html.tmpl
var pageSource string

var page = template.Must(template.New(HTMLFile).Parse(pageSource))

type pageData struct {
	Headline    string
	Subtitle    string
	Interrupted bool
	Light, Dark template.CSS // the figures' colours
	Tables      []Table
	Figures     []pageFigure
	Command     string
	Facts       []fact
	Config      string
	Timing      string
}

type pageFigure struct {
	Name, Caption string
	SVG           template.HTML
}

// fact is one line of the description of an experiment.
type fact struct{ Name, Value string }

func renderHTML(res *simulations.Result, figures []*figure.Figure, command string) ([]byte, error) {
	config, err := json.MarshalIndent(res.Config, "", "  ")
	if err != nil {
		return nil, err
	}
	data := pageData{
		Headline:    strings.ReplaceAll(Headline(res), " ± ", "\u00a0±\u00a0"),
		Subtitle:    describePopulation(res),
		Interrupted: res.Interrupted,
		Tables:      Tables(res),
		Command:     command,
		Facts:       facts(res),
		Config:      string(config),
		Timing:      Timing(res),
		Light:       template.CSS(figure.Variables(false)),
		Dark:        template.CSS(figure.Variables(true)),
	}
	for _, f := range figures {
		svg, err := f.Inline()
		if err != nil {
			return nil, err
		}
		data.Figures = append(data.Figures, pageFigure{f.Name, f.Caption, svg})
	}
	var buf bytes.Buffer
	err = page.Execute(&buf, data)
	return buf.Bytes(), err
}

func describePopulation(res *simulations.Result) string {
	c := &res.Config
	if c.Data != nil {
		return fmt.Sprintf("%s (%s)", c.Data.Path, c.Data.Format)
	}
	s := c.Synthetic
	text := fmt.Sprintf("%s with %s of %s each",
		plural(s.Clients, "simulated user"), plural(s.Samples, "sample"), plural(s.Dim, "feature"))
	if s.UnequalSamples {
		text = strings.Replace(text, "each", "on average", 1)
	}
	return text
}

// facts describe the experiment in the order in which one would ask.
func facts(res *simulations.Result) []fact {
	c := &res.Config
	var fs []fact
	add := func(name, format string, args ...any) { fs = append(fs, fact{name, fmt.Sprintf(format, args...)}) }
	if c.Preset != "" {
		add("Preset", "%s", c.Preset)
	}
	if s := c.Synthetic; s != nil {
		add("Population", "%s; rank r = %d, sparsity k = %d, label noise %v", describePopulation(res), s.Rank, s.Sparsity, s.LabelNoise)
		if harder := harderThanTheory(res); harder != "" {
			add("Harder than the theory", "%s", harder)
		}
	} else if d := c.Data; d != nil {
		add("Data", "%s, as %s", d.Path, d.Format)
		if d.Train < 1 {
			add("Training samples", "%s of each user's; the others are held out", percent(d.Train))
		} else {
			add("Training samples", "%v of each user's; the others are held out", d.Train)
		}
	}
	add("Model", "θ = U w + b with rank %d and at most %d non-zeros in b", c.Rank, c.Sparsity)
	add("Methods", "%s", joinMethods(c.Methods))
	add("Shared part", "%s update, %s solver on the device", c.Update, c.Solver)
	if c.Rounds > 0 {
		add("Rounds", "%d", c.Rounds)
	}
	add("Privacy", "user level, %s adjacency, δ = %s", c.Adjacency, figure.Shortest(c.Delta))
	if dearer := replaceOne(res); dearer != "" {
		add("Under replace-one", "%s", dearer)
	}
	add("Trust", "%s", c.Trust)
	if c.NMin > 0 {
		add("Least updates a round", "%s", thousands(c.NMin))
	}
	add("Seeds", "%d, from %d", c.Seeds, c.Seed)
	return fs
}

func harderThanTheory(res *simulations.Result) string {
	s := res.Config.Synthetic
	var parts []string
	if s.UnequalSamples {
		parts = append(parts, "unequal numbers of samples")
	}
	if s.Correlation != 0 {
		parts = append(parts, fmt.Sprintf("features correlated (%v)", s.Correlation))
	}
	if s.HeavyTails {
		parts = append(parts, "heavy-tailed label noise")
	}
	if s.Outliers > 0 {
		parts = append(parts, fmt.Sprintf("%.3g %% of users are outliers", 100*s.Outliers))
	}
	return strings.Join(parts, ", ")
}

// replaceOne says what each budget amounts to under replace-one adjacency,
// for the first method that has one; empty where that was what was asked for.
func replaceOne(res *simulations.Result) string {
	if res.Config.Adjacency == "replace-one" {
		return ""
	}
	var pairs []string
	for _, e := range sortedEpsilons(res) {
		for _, run := range res.Runs {
			if run.Epsilon == e && run.EpsilonReplaceOne > 0 {
				pairs = append(pairs, fmt.Sprintf("ε = %v is %s", e, format(run.EpsilonReplaceOne)))
				break
			}
		}
	}
	return strings.Join(pairs, ", ")
}

// Timing says in one line what the experiment cost.
func Timing(res *simulations.Result) string {
	t := res.Timing
	return fmt.Sprintf("%.1f s, %s client-rounds/s, peak memory %.0f MB",
		t.Seconds, thousands(int(t.ClientRoundsPerSecond)), float64(t.PeakRSSBytes)/1e6)
}
