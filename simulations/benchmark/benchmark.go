// Package benchmark measures the service as its users meet it: server processes,
// client connections with certificates of their own, a disk. What depends on
// the machine is set in relation to a reference that is measured beside it, in
// turns, on the same machine.
package benchmark

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/undertone-fl/undertone/simulations/cluster"
)

// Options of a run.
type Options struct {
	// Only these parts, by name; nil is all.
	Only []string
	// Short measures less of everything: the figures are rough then.
	Short bool
	// Command starts a server, see cluster.Config.
	Command []string
	// Reference starts ServeReference with the directory of its identity as one
	// more argument.
	Reference []string
	// Progress is told what is being measured.
	Progress func(string)
}

// Result is what was measured.
type Result struct {
	Rows []Row `json:"rows"`
}

// Row is one figure.
type Row struct {
	Part  string  `json:"part"`
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Reference is what was measured beside it, in the same unit; 0 if the goal
	// is absolute.
	Reference float64 `json:"reference,omitempty"`
	Ratio     float64 `json:"ratio,omitempty"`
	Goal      string  `json:"goal"`
	Met       bool    `json:"met"`
	Detail    string  `json:"detail,omitempty"`
}

// part is a group of figures that are measured together.
type part struct {
	name  string
	about string
	run   func(context.Context, *run) ([]Row, error)
}

var parts = []part{
	{"updates", "acknowledged updates, three nodes", updates},
	{"bulk", "updates of 10 MiB, one node", bulk},
	{"failover", "the leader killed under load", failover},
	{"rounds", "1,000 rounds: memory, then a restart", manyRounds},
	{"million", "a round of a million participants", million},
}

// Parts are the names of what can be measured.
func Parts() []string {
	var out []string
	for _, p := range parts {
		out = append(out, p.name)
	}
	return out
}

// run is one part's surroundings.
type run struct {
	Options
	dir string
}

func (r *run) cluster(ctx context.Context, nodes int) (*cluster.Cluster, error) {
	return cluster.Start(ctx, cluster.Config{Nodes: nodes, Dir: r.dir, Command: r.Command})
}

// Run measures.
func Run(ctx context.Context, o Options) (*Result, error) {
	for _, name := range o.Only {
		if !slices.Contains(Parts(), name) {
			return nil, fmt.Errorf("no part %q; there are %s", name, strings.Join(Parts(), ", "))
		}
	}
	out := &Result{}
	for _, p := range parts {
		if o.Only != nil && !slices.Contains(o.Only, p.name) {
			continue
		}
		if o.Progress != nil {
			o.Progress(p.about)
		}
		dir, err := os.MkdirTemp("", "undertone-benchmark-")
		if err != nil {
			return out, err
		}
		rows, err := p.run(ctx, &run{o, filepath.Clean(dir)})
		os.RemoveAll(dir)
		if err != nil {
			return out, fmt.Errorf("%s: %w", p.name, err)
		}
		for _, row := range rows {
			row.Part = p.name
			out.Rows = append(out.Rows, row)
		}
	}
	return out, ctx.Err()
}

// ratio sets medians of measurements taken in turns into relation: the median
// of the pairs' ratios, which a slow minute of the machine moves little.
func ratio(what, unit string, measured, reference []float64, least float64) Row {
	ratios := make([]float64, len(measured))
	for i := range ratios {
		ratios[i] = measured[i] / reference[i]
	}
	r := median(ratios)
	return Row{What: what, Value: median(measured), Unit: unit, Reference: median(reference), Ratio: r,
		Goal: fmt.Sprintf("at least %g of the reference", least), Met: r >= least,
		Detail: fmt.Sprintf("%d turns, ratios %.2f to %.2f", len(ratios), slices.Min(ratios), slices.Max(ratios))}
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}

func seconds(d time.Duration) float64 { return d.Seconds() }
