package pages

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"html/template"
	"strconv"

	"github.com/undertone-fl/undertone/dp"
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
	answers, err := j.Accountants.All()
	if err != nil {
		return nil, err
	}
	a := &account{
		Job:     j,
		privacy: privacyTable(j), releases: releasesTable(j),
		accountants: accountantsTable(answers), parameters: parametersTable(j),
	}
	a.Figures, err = drawAll(budgetByRound(j), epsilonByRelease(j), noiseByRound(j))
	return a, err
}

// tables are in the order of the page.
func (a *account) tables() []*table {
	return []*table{a.privacy, a.releases, a.accountants, a.parameters}
}

// Headline says in one sentence where the job stands.
func (a *account) Headline() string {
	on := count(a.Released, "release", "releases")
	if a.FailedAttempts > 0 {
		and := " and "
		if a.UnderWay() {
			and = ", "
		}
		on += and + count(a.FailedAttempts, "failed attempt", "failed attempts")
	}
	if a.UnderWay() {
		on += " and 1 attempt under way"
	}
	return fmt.Sprintf("ε = %s of %s is spent at δ = %s, on %s.", significant(a.Spent.Epsilon), significant(a.Cap.Epsilon),
		significant(a.Delta), on)
}

// DeltaText compares δ with 1/n.
func (a *account) DeltaText() string { return a.CompareDelta(significant) }

// RoundsText says how far the job is.
func (a *account) RoundsText() string {
	return fmt.Sprintf("%s of %s released", whole(a.Released), count(a.Job.Rounds, "round", "rounds"))
}

// Share of the budget that is spent, in percent of ρ.
func (a *account) Share() float64 {
	if a.Cap.NanoRho == 0 {
		return 0
	}
	return 100 * float64(a.Spent.NanoRho) / float64(a.Cap.NanoRho)
}

// CreatedText says when the job was made, as far as the ledger knows.
func (a *account) CreatedText() string {
	if a.Carried {
		return "older than the ledger; carried over, recorded at " + moment(a.Created) + " UTC"
	}
	return "created " + moment(a.Created) + " UTC"
}

// measurement is one on record, ready to be shown.
type measurement struct{ *report.Canary }

// Last is the last measurement on record, FailedBefore the last that failed or found more
// than is claimed, if it is another: a better one does not hide it.
func (a *account) Last() measurement { return measurement{a.Canary} }

func (a *account) FailedBefore() *measurement {
	if a.CanaryFailed == nil || *a.CanaryFailed == *a.Canary {
		return nil
	}
	return &measurement{a.CanaryFailed}
}

// Found is what was found, in a sentence.
func (m measurement) Found() string {
	verdict := "Every test of it passed."
	if !m.Passed {
		verdict = "A test of it failed."
	}
	if m.Contradicts() {
		verdict += " The lower bound is above the claim: by chance, with the probability that the confidence leaves, or because the claim is false."
	}
	delta := m.Delta
	if d, err := strconv.ParseFloat(delta, 64); err == nil {
		delta = significant(d)
	}
	return fmt.Sprintf("ε is %s. That is at δ = %s, with %g %% confidence, from %s. %s", m.Canary.Found(significant), delta, 100*m.Confidence, count(m.Trials, "trial", "trials"), verdict)
}

// Claim is what the measurement was held against.
func (m measurement) Claim() string {
	if m.Misclaimed() {
		return fmt.Sprintf("ε = %s, which is another claim than the ledger's, by which an attempt at every round costs %s", significant(m.Claimed), significant(m.Charged))
	}
	return fmt.Sprintf("ε = %s, of an attempt at every round: a lower bound above it speaks against it, with the confidence given", significant(m.Claimed))
}

func jobsTable(r *report.Report, link func(job string) string) *table {
	t := &table{
		name: "jobs", Caption: "Jobs", Empty: "There are no jobs yet.",
		Note: "ε is at each job's own δ, under its adjacency. Attempts that failed are spent all the same. ε does not add up: what is left buys the ε beside it only to somebody who had spent nothing, and of jobs that are closed or finished nothing is spent any more.",
		columns: []column{
			{key: "job", Head: "Job"}, {key: "status", Head: "Status"}, {key: "released", Head: "Released", Numeric: true}, {key: "rounds", Head: "of rounds", Numeric: true},
			{key: "epsilon_spent", Head: "ε spent", Numeric: true}, {key: "epsilon_left", Head: "ε left", Numeric: true}, {key: "epsilon_cap", Head: "ε cap", Numeric: true},
			{key: "delta", Head: "δ", Numeric: true}, {key: "failed_attempts", Head: "Failed attempts", Numeric: true},
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
			{key: "amount", Head: "Amount"}, {key: "epsilon", Head: "ε, " + j.Adjacency, Numeric: true}, {key: "replace_one_epsilon", Head: "ε, replace-one", Numeric: true, inFiles: j.Adjacency == dp.ReplaceOne.String()},
			{key: "rho", Head: "ρ", Numeric: true}, {key: "mu", Head: "μ", Numeric: true}, {key: "nano_rho", Head: "nano-ρ", Numeric: true},
		},
	}
	row := func(what cell, p report.Privacy) {
		t.add(what, number(p.Epsilon), number(p.ReplaceOne), number(p.Rho), mu(p), integer(p.NanoRho))
	}
	left := text("left")
	if j.Over() {
		left.text = "left, never to be spent"
	}
	row(text("cap"), j.Cap)
	row(text("spent"), j.Spent)
	row(left, j.Left)
	row(text("spent on failed attempts"), j.FailedSpent)
	return t
}

// mu is a cell of an amount in Gaussian DP, unless the lattice is too coarse for that.
func mu(p report.Privacy) cell {
	if p.Mu == 0 && p.NanoRho > 0 {
		return cell{}
	}
	return number(p.Mu)
}

func releasesTable(j *report.Job) *table {
	t := &table{
		name: "releases", Caption: "Releases, and attempts at them",
		Note:  "Every attempt is charged before anybody is asked for data, and stays charged. Clip and noise are in the method's units: the largest L2 norm of one contribution, and the standard deviation that the charge pays for, in the sum.",
		Empty: "No round was opened yet.",
		columns: []column{
			{key: "round", Head: "Round", Numeric: true}, {key: "attempt", Head: "Attempt", Numeric: true}, {key: "status", Head: "Status"}, {key: "kind", Head: "Kind"},
			{key: "clip", Head: "Clip", Numeric: true}, {key: "noise", Head: "Noise", Numeric: true}, {key: "noise_multiplier", Head: "Noise multiplier", Numeric: true},
			{key: "n_min", Head: "n min", Numeric: true}, {key: "members", Head: "Members", Numeric: true}, {key: "sampler", Head: "Sampler"},
			{key: "charge_rho", Head: "ρ", Numeric: true}, {key: "spent_epsilon", Head: "ε after", Numeric: true}, {key: "spent_replace_one_epsilon", Head: "ε after, replace-one", Numeric: true, inFiles: true},
			{key: "leaf", Head: "Leaf", Numeric: true}, {key: "end_leaf", Head: "End leaf", Numeric: true, inFiles: true}, {key: "opened", Head: "Opened (UTC)", inFiles: true}, {key: "ended", Head: "Ended (UTC)", inFiles: true}, {key: "carried_over", Head: "Carried over", inFiles: true}, {key: "state", Head: "State"}, {key: "why", Head: "Why it failed"},
		},
	}
	carried := ""
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
			integer(a.Leaf), end, when(a.Opened), when(a.Ended), cell{value: a.Carried}, digest(a.State), optional(a.Why))
		if a.Carried {
			carried = " Those up to leaf " + whole(a.Leaf) + " are older than the ledger: carried over, recorded at " + moment(a.Opened) + " UTC."
		}
	}
	t.Note += carried
	return t
}

func optional(s string) cell {
	if s == "" {
		return cell{}
	}
	return text(s)
}

func accountantsTable(answers []report.Accountant) *table {
	t := &table{
		name: "accountants", Caption: "The accountants' answers, side by side", Explains: true,
		Note:    "ε of what is spent, at the job's δ and under its adjacency.",
		columns: []column{{key: "accountant", Head: "Accountant"}, {key: "epsilon", Head: "ε", Numeric: true}, {key: "note", Head: "Why it differs"}},
	}
	for _, a := range answers {
		t.add(text(a.Name), number(a.Epsilon), text(a.Note))
	}
	return t
}

func parametersTable(j *report.Job) *table {
	t := &table{
		name: "parameters", Caption: "Public parameters, and how each was chosen", Explains: true,
		columns: []column{{key: "parameter", Head: "Parameter"}, {key: "value", Head: "Value"}, {key: "how", Head: "How it was chosen"}},
	}
	for _, p := range j.Parameters {
		value := text(p.Value)
		if _, err := hex.DecodeString(p.Value); err == nil && len(p.Value) == hex.EncodedLen(sha256.Size) {
			value = digest(p.Value)
		}
		t.add(text(p.Name), value, text(p.How))
	}
	return t
}
