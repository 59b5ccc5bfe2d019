package pages

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"gonum.org/v1/plot/plotter"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/server/pages/figure"
)

// jobBody is a job's page.
type jobBody struct {
	Job     string
	State   string
	Now     string // how far it is, and what goes on
	Figures []drawn
	// Quality says what the job tells of how good its model is.
	Quality string
	// Measured is whether any release was measured.
	Measured bool
	// Account is whether the ledger has one.
	Account bool
}

func (p *Pages) jobPage(r *http.Request) (*page, error) {
	name := r.PathValue("job")
	var (
		job   rounds.JobView
		found bool
	)
	p.config.Node.View(func(m *rounds.Machine, _ uint64) {
		if job, found = m.Job(name); found {
			job.Attempts = slices.Clone(job.Attempts)
		}
	})
	if !found {
		return nil, errNoPage
	}
	edition, _ := p.config.Board.At(0)
	b := edition.Job(name)
	var silent string
	if n := len(job.Attempts); job.State == rounds.Running && (n == 0 || job.Attempts[n-1].Phase != rounds.Collecting) {
		members, err := p.config.Node.Members(r.Context())
		if err != nil {
			return nil, err
		}
		silent = unsigned(members)
	}
	body := jobBody{Job: name, State: job.State.String(), Now: progress(&job)}
	if job.State != rounds.Finished {
		body.Now += " " + sentence(next(jobLook{job, name}, b, silent))
	}
	if n := len(job.Attempts); n > 0 && job.Attempts[n-1].Phase == rounds.Collecting {
		body.Now += fmt.Sprintf(": %s of at most %s", count(job.Attempts[n-1].Members, "contribution", "contributions"), whole(job.Spec.RoundSize))
		if b != nil && b.Collecting() {
			body.Now += ", " + span(b.Remaining(time.Now())) + " left"
		}
	}
	if !strings.HasSuffix(body.Now, ".") {
		body.Now += "."
	}

	trace, words := qualityOf(&job)
	body.Quality, body.Measured = words, trace.measured()
	var err error
	if body.Figures, err = drawAll(append(trace.figures(name), membersByRound(&job))...); err != nil {
		return nil, err
	}
	tables := []*table{roundsTable(&job, p.times()), trace.table()}
	if a, err := p.books.audit(); err == nil {
		if account, err := a.account(name); err == nil && account != nil {
			tables = append(tables, account.parameters)
			body.Account = true
		}
	}
	return &page{Name: "job", Title: "Job " + name, Path: "/jobs/" + name, Live: true, Tables: tables, Body: body}, nil
}

// progress says how far a job is, in a sentence.
func progress(job *rounds.JobView) string {
	all := len(job.Spec.Releases)
	switch {
	case job.Released < all:
		return fmt.Sprintf("%s of %s released.", whole(job.Released), count(all, "round is", "rounds are"))
	case all == 1:
		return "The only round is released."
	}
	return fmt.Sprintf("All %s rounds are released.", whole(all))
}

func roundsTable(job *rounds.JobView, times ended) *table {
	t := &table{
		name: "rounds", Caption: "Rounds, and attempts at them", Empty: "No round was opened yet.",
		columns: []column{
			{key: "round", Head: "Round", Numeric: true}, {key: "attempt", Head: "Attempt", Numeric: true}, {key: "phase", Head: "Phase"}, {key: "kind", Head: "Kind"},
			{key: "members", Head: "Members", Numeric: true}, {key: "round_size", Head: "of at most", Numeric: true}, {key: "charge_rho", Head: "ρ", Numeric: true},
			{key: "ended", Head: "Ended (UTC)"}, {key: "state", Head: "State"}, {key: "why", Head: "Why it failed"},
		},
	}
	for _, a := range job.Attempts {
		state := cell{}
		if a.Phase == rounds.Released {
			state = digest(fmt.Sprintf("%x", a.State))
		}
		t.add(integer(a.Round), integer(a.Attempt), cell{value: a.Phase.String(), Class: a.Phase.String()}, text(job.Spec.Releases[a.Round-1].Kind),
			integer(a.Members), integer(job.Spec.RoundSize), number(a.Charge.Rho()),
			when(times(job.Spec.Job, a.Round, a.Attempt)), state, optional(a.Why))
	}
	return t
}

func membersByRound(job *rounds.JobView) *figure.Figure {
	all := series{look: released, text: "members"}
	crosses := series{look: failed, text: "failed"}
	for i, a := range job.Attempts {
		at := plotter.XY{X: float64(i + 1), Y: float64(a.Members)}
		if a.Phase == rounds.Failed {
			crosses.points = append(crosses.points, at)
		} else {
			all.points = append(all.points, at)
		}
	}
	if len(job.Attempts) == 0 {
		return nil
	}
	return chart(&figure.Figure{
		Name: "members-" + job.Spec.Job, Title: "Members by attempt", X: "attempt, in order", Y: "contributions",
		Caption: fmt.Sprintf("A round closes with %s contributions, and fails with fewer than %s.", whole(job.Spec.RoundSize), whole(job.Spec.NMin)),
	}, []series{all}, &bound{float64(job.Spec.RoundSize), "round size"}, &crosses)
}
