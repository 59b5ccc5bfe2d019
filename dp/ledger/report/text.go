package report

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/undertone-fl/undertone/dp"
)

// width of running text, in characters.
const width = 96

// WriteText writes the report for a terminal: the ledger, then a screen a job. Fails if
// an accountant cannot count a job's cost, or w does.
func (r *Report) WriteText(w io.Writer) error {
	r.reckon()
	b := bufio.NewWriter(w)
	p := &page{w: b}
	p.ledger(&r.Ledger)
	for i := range r.Jobs {
		if err := p.job(&r.Jobs[i]); err != nil {
			return err
		}
	}
	if t := &r.Together; t.Jobs > len(r.Jobs) {
		p.heading("All jobs together")
		p.text(fmt.Sprintf("Of one who took part in all %d jobs of this ledger: epsilon together %s (%s under replace-one), under zero-out, at delta %g.",
			t.Jobs, figure(t.Epsilon), figure(t.ReplaceOne), t.Delta))
	} else if len(r.Jobs) > 1 {
		p.heading("All jobs together")
		p.table(func(row func(cells ...string)) {
			row("", "rho", "mu", "epsilon", "replace-one")
			row(append([]string{"spent"}, privacyCells(r.Together.Privacy)...)...)
		})
		p.text(fmt.Sprintf("For a user who took part in every attempt of every job, under zero-out, at delta %g.", r.Together.Delta))
	}
	p.heading("Not covered")
	p.list(r.NotCovered)
	return b.Flush()
}

// page writes to a buffer, which keeps the first error.
type page struct{ w *bufio.Writer }

func (p *page) heading(text string) {
	fmt.Fprintf(p.w, "\n%s\n%s\n", text, strings.Repeat("=", len(text)))
}

// table writes rows of cells, aligned.
func (p *page) table(rows func(row func(cells ...string))) {
	t := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	rows(func(cells ...string) { fmt.Fprintln(t, strings.TrimRight("  "+strings.Join(cells, "\t"), "\t")) })
	t.Flush()
}

// text writes a paragraph.
func (p *page) text(s string) { p.wrap("  ", "  ", s) }

func (p *page) list(items []string) {
	for _, item := range items {
		p.wrap("  - ", "    ", item)
	}
}

// wrap breaks a paragraph into lines, the first of which is led in by first, the others
// by rest.
func (p *page) wrap(first, rest, s string) {
	line, empty := first, true
	for _, word := range strings.Fields(s) {
		if !empty && len(line)+1+len(word) > width {
			fmt.Fprintln(p.w, line)
			line, empty = rest, true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	fmt.Fprintln(p.w, line)
}

func (p *page) ledger(l *Ledger) {
	title := "Ledger of " + l.Origin
	fmt.Fprintf(p.w, "%s\n%s\n", title, strings.Repeat("=", len(title)))
	p.table(func(row func(cells ...string)) {
		row("records", fmt.Sprintf("%d, from %s to %s", l.Records, at(l.Began), at(l.Last)))
		if carried := l.CarriedMeans(); carried != "" {
			row("carried over", carried)
		}
		row("root", l.Root)
		row("signed with", l.Key+rotations(l.Rotations))
		for _, record := range l.Restored {
			row("restored", fmt.Sprintf("from a backup at record %d: what came between the two is not in this ledger", record))
		}
		if l.Ahead > 0 {
			row("WARNING", l.AheadMeans())
		}
		row("fetch with", l.Fetch)
		row("verify with", l.Command)
	})
}

func rotations(n int) string {
	switch n {
	case 0:
		return ""
	case 1:
		return ", to which 1 key before handed on"
	}
	return fmt.Sprintf(", to which %d keys before handed on", n)
}

func (p *page) job(j *Job) error {
	answers, err := j.Accountants.All()
	if err != nil {
		return err
	}
	p.heading(fmt.Sprintf("Job %s (%s), %s", j.Name, j.Method, j.Status))
	p.table(func(row func(cells ...string)) {
		if j.Carried {
			row("created", "before the ledger began; carried over, recorded at "+at(j.Created))
		} else {
			row("created", at(j.Created))
		}
		row("unit", j.Unit)
		row("adjacency", j.Adjacency+": "+j.AdjacencyMeans)
		row("delta", fmt.Sprintf("%g, %s", j.Delta, j.CompareDelta(few)))
		rounds := fmt.Sprintf("%d of %d released; attempts charged: %d, failed: %d", j.Released, j.Rounds, len(j.Attempts), j.FailedAttempts)
		if j.UnderWay() {
			rounds += ", under way: 1"
		}
		row("rounds", rounds)
	})
	p.section("Budget")
	p.table(func(row func(cells ...string)) {
		left, columns := "left", []string{"", "rho", "mu", "epsilon", "replace-one"}
		if j.Over() {
			left = "left, never to be spent"
		}
		if j.Adjacency == dp.ReplaceOne.String() { // the last two are one
			columns = columns[:4]
		}
		row(columns...)
		for _, amount := range []struct {
			name string
			Privacy
		}{{"promised", j.Cap}, {"spent", j.Spent}, {"of that, failed", j.FailedSpent}, {left, j.Left}} {
			row(append([]string{amount.name}, privacyCells(amount.Privacy)...)[:len(columns)]...)
		}
	})
	p.text("Only rho adds up. Each line's epsilon is what its rho comes to by itself.")
	p.section("Trust: " + j.Trust.Mode)
	p.text("Who sees what before all of the noise is in it:")
	p.list(j.Trust.SeesBefore)
	p.text("Who must not collude:")
	p.list(j.Trust.Collude)
	p.section("Attempts")
	p.attempts(j)
	p.section("Accountants, of what is spent")
	for _, a := range answers {
		p.wrap(fmt.Sprintf("  %-14s%-10s", a.Name, fmt.Sprintf("%.4f", a.Epsilon)), strings.Repeat(" ", 26), a.Note)
	}
	p.section("Measurements on record")
	p.canaries(j)
	p.section("Public parameters, and how each was chosen")
	p.parameters(j.Parameters)
	return nil
}

// parameters that were chosen alike are said together, in the order of the first of each.
func (p *page) parameters(all []Parameter) {
	var hows []string
	values := make(map[string][]string)
	for _, parameter := range all {
		if values[parameter.How] == nil {
			hows = append(hows, parameter.How)
		}
		values[parameter.How] = append(values[parameter.How], parameter.Name+" "+shorten(parameter.Value))
	}
	for _, how := range hows {
		p.wrap("  - ", "    ", how+": "+strings.Join(values[how], ", ")+".")
	}
}

func (p *page) section(title string) {
	fmt.Fprintf(p.w, "\n  %s\n  %s\n", title, strings.Repeat("-", len(title)))
}

func (p *page) attempts(j *Job) {
	if len(j.Attempts) == 0 {
		p.text("None yet: nothing is spent.")
		return
	}
	p.table(func(row func(cells ...string)) {
		row("round", "attempt", "kind", "status", "members", "n_min", "clip", "noise", "z", "sampler", "rho", "spent rho", "epsilon", "leaf")
		for _, a := range j.Attempts {
			leaf := fmt.Sprint(a.Leaf)
			if a.EndLeaf >= 0 {
				leaf += fmt.Sprintf("-%d", a.EndLeaf)
			}
			if a.Carried {
				leaf += ", carried over, recorded at " + at(a.Opened)
			}
			row(fmt.Sprint(a.Round), fmt.Sprint(a.Attempt), a.Kind, a.Status, members(&a), fmt.Sprint(a.NMin),
				figure(a.Clip), figure(a.Noise), figure(a.Multiplier), a.Sampler,
				figure(a.Charge.Rho), figure(a.Spent.Rho), figure(a.Spent.Epsilon), leaf)
		}
	})
	for _, a := range j.Attempts {
		if a.Why != "" {
			p.text(fmt.Sprintf("Round %d, attempt %d failed: %s.", a.Round, a.Attempt, a.Why))
		}
	}
}

func members(a *Attempt) string {
	if a.EndLeaf < 0 {
		return "-"
	}
	return fmt.Sprint(a.Members)
}

func (p *page) canaries(j *Job) {
	switch j.Canaries {
	case 0:
		p.text("None: the noise was never measured on record.")
		return
	case 1:
	default:
		p.text(fmt.Sprintf("There are %d. The last one:", j.Canaries))
	}
	p.canary(j.Canary)
	if j.CanaryFailed != nil && *j.CanaryFailed != *j.Canary {
		p.text("The last one that FAILED, or found more than is claimed, before that:")
		p.canary(j.CanaryFailed)
	}
}

func (p *page) canary(c *Canary) {
	verdict := "It passed every test."
	if !c.Passed {
		verdict = "It FAILED a test."
	}
	if c.Contradicts() {
		verdict += " ITS LOWER BOUND IS ABOVE THE CLAIM: by chance, with the probability that the confidence leaves, or because the claim is false."
	}
	if c.Misclaimed() {
		verdict += fmt.Sprintf(" THAT IS ANOTHER CLAIM than the ledger's, by which an attempt at every round costs %.4g.", c.Charged)
	}
	how := c.How
	if c.HowMeans != "" {
		how += ", " + c.HowMeans
	}
	p.text(fmt.Sprintf("By %s, dated %s, whose word this is. What was measured: %s. Epsilon is %s. That is at delta %s, with confidence %g %% in %d trials, where %.4g is claimed. %s",
		c.By, at(c.Date), how, c.Found(func(x float64) string { return fmt.Sprintf("%.4g", x) }), c.Delta, c.Confidence*100, c.Trials, c.Claimed, verdict))
}

func privacyCells(p Privacy) []string {
	mu := "-"
	if p.Mu > 0 || p.Rho == 0 {
		mu = figure(p.Mu)
	}
	return []string{figure(p.Rho), mu, figure(p.Epsilon), figure(p.ReplaceOne)}
}

// figure is a number to five digits.
func figure(x float64) string { return fmt.Sprintf("%.5g", x) }

// at is a time for people, who are told of one that no calendar has.
func at(rfc3339 string) string {
	if rfc3339 == "" {
		return "(a time beyond the year 9999)"
	}
	return rfc3339
}

// few is a number to three digits.
func few(x float64) string { return fmt.Sprintf("%.3g", x) }

// shorten keeps a digest from filling the line.
func shorten(s string) string {
	if len(s) == 64 && !strings.Contains(s, " ") {
		return s[:16] + "..."
	}
	return s
}
