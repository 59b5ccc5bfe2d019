package pages

import (
	"fmt"
	"html/template"

	"github.com/undertone-fl/undertone/dp/ledger/report"
)

// account is a job's part of a report, ready to be shown.
type account struct {
	*report.Job
	Figures []drawn

	privacy, releases, accountants, parameters *table
}

// drawn is a figure in a page.
type drawn struct {
	Name, Title, Caption string
	SVG                  template.HTML
}

func newAccount(j *report.Job) (*account, error) {
	a := &account{
		Job:     j,
		privacy: privacyTable(j), releases: releasesTable(j),
		accountants: accountantsTable(j), parameters: parametersTable(j),
	}
	var err error
	a.Figures, err = drawAll(budgetByRound(j), epsilonByRelease(j), noiseByRound(j))
	return a, err
}

// tables are in the order of the page.
func (a *account) tables() []*table {
	return []*table{a.privacy, a.releases, a.accountants, a.parameters}
}

// Headline says in one sentence where the job stands.
func (a *account) Headline() string {
	s := fmt.Sprintf("ε = %s of %s is spent at δ = %s, on %s", significant(a.Spent.Epsilon), significant(a.Cap.Epsilon),
		significant(a.Delta), count(a.Released, "release", "releases"))
	if a.FailedAttempts > 0 {
		s += " and " + count(a.FailedAttempts, "failed attempt", "failed attempts")
	}
	return s + "."
}

// RoundsText says how far the job is.
func (a *account) RoundsText() string {
	return fmt.Sprintf("%s of %s released", whole(a.Released), count(a.Job.Rounds, "round", "rounds"))
}

// Share of the budget that is spent, in percent of rho.
func (a *account) Share() float64 {
	if a.Cap.NanoRho == 0 {
		return 0
	}
	return 100 * float64(a.Spent.NanoRho) / float64(a.Cap.NanoRho)
}

// DeltaText compares delta with one over the population.
func (a *account) DeltaText() string {
	text := fmt.Sprintf("%s; a round takes n = %s, 1/n = %s, so δ·n = %s", significant(a.Delta), whole(a.Population),
		significant(1/float64(max(a.Population, 1))), significant(a.DeltaTimesN))
	if a.DeltaTimesN >= 1 {
		text += ": δ allows for the whole contribution of one user to be published"
	}
	return text
}

// CanaryText is the measurement in a sentence.
func (a *account) CanaryText() string {
	c := a.Canary
	verdict := "every test of it passed"
	if !c.Passed {
		verdict = "a test of it failed"
	}
	return fmt.Sprintf("The noise was measured to allow no ε below %s, where %s is claimed, at δ = %s: a lower bound of %s %% confidence from %s; %s.",
		significant(c.Lower), significant(c.Claimed), c.Delta, significant(100*c.Confidence), count(c.Trials, "trial", "trials"), verdict)
}

func jobsTable(r *report.Report, link func(job string) string) *table {
	t := &table{
		name: "jobs", Caption: "Jobs", Empty: "There are no jobs yet.",
		Note: "ε is at each job's own δ, under its adjacency. Attempts that failed are spent all the same.",
		columns: []column{
			{"job", "Job", false}, {"status", "Status", false}, {"released", "Released", true}, {"rounds", "of rounds", true},
			{"epsilon_spent", "ε spent", true}, {"epsilon_left", "ε left", true}, {"epsilon_cap", "ε cap", true},
			{"delta", "δ", true}, {"failed_attempts", "Failed attempts", true},
		},
	}
	for i := range r.Jobs {
		j := &r.Jobs[i]
		t.add(cell{value: j.Name, Link: link(j.Name)}, cell{value: j.Status, Class: j.Status}, integer(j.Released), integer(j.Rounds),
			number(j.Spent.Epsilon), number(j.Left.Epsilon), number(j.Cap.Epsilon), number(j.Delta), integer(j.FailedAttempts))
	}
	return t
}

func privacyTable(j *report.Job) *table {
	t := &table{
		name: "privacy", Caption: "The budget in every unit",
		Note: "ρ of zCDP adds up, and is what is enforced. The ε, exact for Gaussian noise, do not add up: what is left buys the ε beside it only to somebody who had spent nothing.",
		columns: []column{
			{"amount", "Amount", false}, {"epsilon", "ε, " + j.Adjacency, true}, {"replace_one_epsilon", "ε, replace-one", true},
			{"rho", "ρ", true}, {"mu", "μ", true}, {"nano_rho", "nano-ρ", true},
		},
	}
	row := func(what string, p report.Privacy) {
		t.add(text(what), number(p.Epsilon), number(p.ReplaceOne), number(p.Rho), number(p.Mu), integer(p.NanoRho))
	}
	row("cap", j.Cap)
	row("spent", j.Spent)
	row("left", j.Left)
	row("spent on failed attempts", j.FailedSpent)
	return t
}

func releasesTable(j *report.Job) *table {
	t := &table{
		name: "releases", Caption: "Releases, and attempts at them",
		Note:  "Every attempt is charged before anybody is asked for data, and stays charged. Clip and noise are in the method's units: the largest L2 norm of one contribution, and the standard deviation that the charge pays for, in the sum.",
		Empty: "No round was opened yet.",
		columns: []column{
			{"round", "Round", true}, {"attempt", "Attempt", true}, {"status", "Status", false}, {"kind", "Kind", false},
			{"clip", "Clip", true}, {"noise", "Noise", true}, {"noise_multiplier", "Noise multiplier", true},
			{"n_min", "n min", true}, {"members", "Members", true}, {"sampler", "Sampler", false},
			{"charge_rho", "ρ", true}, {"spent_epsilon", "ε after", true}, {"spent_replace_one_epsilon", "ε after, replace-one", true},
			{"leaf", "Leaf", true}, {"end_leaf", "End leaf", true}, {"opened", "Opened (UTC)", false}, {"state", "State", false}, {"why", "Why it failed", false},
		},
	}
	for i := range j.Attempts {
		a := &j.Attempts[i]
		members, end := integer(a.Members), integer(a.EndLeaf)
		if a.EndLeaf < 0 {
			members, end = cell{}, cell{}
		}
		t.add(integer(a.Round), integer(a.Attempt), cell{value: a.Status, Class: a.Status}, text(a.Kind),
			number(a.Clip), number(a.Noise), number(a.Multiplier),
			integer(a.NMin), members, text(a.Sampler),
			number(a.Charge.Rho), number(a.Spent.Epsilon), number(a.Spent.ReplaceOne),
			integer(a.Leaf), end, when(a.Opened), digest(a.State), optional(a.Why))
	}
	return t
}

func optional(s string) cell {
	if s == "" {
		return cell{}
	}
	return text(s)
}

func accountantsTable(j *report.Job) *table {
	t := &table{
		name: "accountants", Caption: "The accountants' answers, side by side",
		Note:    "ε of what is spent, at the job's δ and under its adjacency.",
		columns: []column{{"accountant", "Accountant", false}, {"epsilon", "ε", true}, {"note", "Why it differs", false}},
	}
	for _, a := range j.Accountants {
		t.add(text(a.Name), number(a.Epsilon), text(a.Note))
	}
	return t
}

func parametersTable(j *report.Job) *table {
	t := &table{
		name: "parameters", Caption: "Public parameters, and how each was chosen",
		columns: []column{{"parameter", "Parameter", false}, {"value", "Value", false}, {"how", "How it was chosen", false}},
	}
	for _, p := range j.Parameters {
		t.add(text(p.Name), text(p.Value), text(p.How))
	}
	return t
}
