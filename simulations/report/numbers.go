package report

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/gonum/stat"

	"github.com/undertone-fl/undertone/simulations"
)

// metrics in the order in which a report gives them.
var metrics = []struct{ name, label, meaning string }{
	{simulations.RelativeError, "relative error", "of the users' parameters: 0 is perfect, 1 is no better than zero"},
	{simulations.MSE, "mean squared error", "relative to predicting zero, which scores 1"},
	{simulations.SubspaceDistance, "subspace distance", "of the learned basis U from the true one: 0 is the same, 1 is orthogonal"},
	{simulations.RMSE, "RMSE", "root mean squared error of the predictions on held-out samples, in units of the response"},
	{simulations.ExplainedVariance, "explained variance", "share of the variance of held-out responses that is predicted: 1 is perfect"},
}

// mainMetric is the one that figures and sentences are about.
func mainMetric(res *simulations.Result) string {
	if res.Config.Data != nil {
		return simulations.RMSE
	}
	return simulations.RelativeError
}

func metricLabel(name string) string {
	for _, m := range metrics {
		if m.name == name {
			return m.label
		}
	}
	return name
}

// methodNames are how methods are called where people read.
var methodNames = map[string]string{
	simulations.AMHTLRS: "AMHT-LRS",
	simulations.LowRank: "low rank",
	simulations.Global:  "global",
	simulations.Local:   "local",
	simulations.Oracle:  "oracle",
}

func methodName(m string) string {
	if n, ok := methodNames[m]; ok {
		return n
	}
	return m
}

// releases reports whether a method publishes anything, and so has rounds and
// spends budget.
func releases(method string) bool {
	return method != simulations.Local && method != simulations.Oracle
}

// Table is one metric of the summary: a row for each method, a column for
// each epsilon.
type Table struct {
	Metric  string // as people call it
	Meaning string
	Columns []simulations.Epsilon
	Rows    []Row
}

// Row is one method's cells.
type Row struct {
	Method string
	Cells  []Cell
}

// Cell is a mean and the half-width of its 95 % interval, which is empty for
// a single seed. Both are empty where there is no figure.
type Cell struct{ Mean, CI95 string }

func (c Cell) String() string {
	switch {
	case c.Mean == "":
		return "-"
	case c.CI95 == "":
		return c.Mean
	}
	return c.Mean + " ± " + c.CI95
}

// Tables returns the summary of res, one table for each metric that it has.
func Tables(res *simulations.Result) []Table {
	epsilons := sortedEpsilons(res)
	var tables []Table
	for _, metric := range metrics {
		t := Table{Metric: metric.label, Meaning: metric.meaning, Columns: epsilons}
		for _, method := range res.Config.Methods {
			row := Row{Method: methodName(method)}
			filled := false
			for _, e := range epsilons {
				var cell Cell
				if s, ok := summary(res, method, e, metric.name); ok {
					cell, filled = newCell(s), true
				}
				row.Cells = append(row.Cells, cell)
			}
			if filled {
				t.Rows = append(t.Rows, row)
			}
		}
		if t.Rows != nil {
			tables = append(tables, t)
		}
	}
	return tables
}

// sortedEpsilons returns the budgets of the experiment in increasing order.
func sortedEpsilons(res *simulations.Result) []simulations.Epsilon {
	es := slices.Clone(res.Config.Epsilons)
	slices.Sort(es)
	return es
}

func summary(res *simulations.Result, method string, e simulations.Epsilon, metric string) (simulations.Summary, bool) {
	for _, s := range res.Summary {
		if s.Method == method && s.Epsilon == e && s.Metric == metric {
			return s, true
		}
	}
	return simulations.Summary{}, false
}

// newCell shows three significant digits of the mean, and the interval to as
// many decimals.
func newCell(s simulations.Summary) Cell {
	if m := math.Abs(s.Mean); m > 0 && m < 1e-3 {
		c := Cell{Mean: exponent(s.Mean, 2)}
		if s.CI95 > 0 {
			c.CI95 = exponent(s.CI95, 1)
		}
		return c
	}
	decimals := decimalsOf(s.Mean)
	fixed := func(x float64) string { return strconv.FormatFloat(x, 'f', decimals, 64) }
	c := Cell{Mean: fixed(s.Mean)}
	unit := math.Pow10(-decimals)
	switch {
	case s.CI95 >= unit/2:
		c.CI95 = fixed(s.CI95)
	case s.CI95 > 0:
		c.CI95 = "<" + fixed(unit)
	}
	return c
}

// exponent writes 1.23e-5.
func exponent(x float64, digits int) string {
	return strings.Replace(strconv.FormatFloat(x, 'e', digits, 64), "e-0", "e-", 1)
}

// decimalsOf shows three significant digits, and at least three decimals of
// what is less than a hundred.
func decimalsOf(x float64) int {
	x = math.Abs(x)
	switch {
	case x >= 100:
		return 0
	case x < 1e-9:
		return 3
	}
	return min(9, max(3, 2-int(math.Floor(math.Log10(x)))))
}

func format(x float64) string { return strconv.FormatFloat(x, 'f', decimalsOf(x), 64) }

// point is a mean over the seeds at x, with the range that they span.
type point struct{ x, y, low, high float64 }

// byRound returns value's mean over the seeds of a method's runs at e, for
// each round in order. Value reports false where a round has none. A run that
// stopped before others keeps its last value.
func byRound(res *simulations.Result, method string, e simulations.Epsilon, value func(simulations.Round) (float64, bool)) []point {
	var runs []map[int]float64
	rounds := map[int]bool{}
	for _, run := range res.Runs {
		if run.Method != method || run.Epsilon != e {
			continue
		}
		// What precedes the first update can be several releases, all of
		// round 0: the last one counts.
		values := map[int]float64{}
		for _, r := range run.Rounds {
			if v, ok := value(r); ok {
				values[r.Round] = v
				rounds[r.Round] = true
			}
		}
		runs = append(runs, values)
	}
	last := make([]float64, len(runs))
	begun := make([]bool, len(runs))
	var points []point
	for _, round := range slices.Sorted(maps.Keys(rounds)) {
		var at []float64
		for i, values := range runs {
			if v, ok := values[round]; ok {
				last[i], begun[i] = v, true
			}
			if begun[i] {
				at = append(at, last[i])
			}
		}
		points = append(points, point{float64(round), stat.Mean(at, nil), slices.Min(at), slices.Max(at)})
	}
	return points
}

func metricOf(name string) func(simulations.Round) (float64, bool) {
	return func(r simulations.Round) (float64, bool) {
		v, ok := r.Metrics[name]
		return v, ok
	}
}

func epsilonSpent(r simulations.Round) (float64, bool) { return r.EpsilonSpent, true }

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%s %ss", thousands(n), one)
}

// thousands writes 20000 as 20,000.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
