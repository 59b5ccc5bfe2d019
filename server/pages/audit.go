package pages

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/undertone-fl/undertone/dp/ledger/report"
)

// mostAccounts is how many jobs' accounts one page holds; of more, each has its own.
const mostAccounts = 8

// auditBody is the auditor's page.
type auditBody struct {
	Report   *report.Report
	Job      string // the only one whose account this is; empty: of all
	Accounts []drawnLater
	Jobs     *shown
	Others   bool   // the ledger has jobs beside those that this is of
	Lag      string // why this node may not have all of the ledger; empty: it has
}

// drawnLater is an account that is drawn when a page comes to it: of thousands there is no
// room for all at once.
type drawnLater func() (*shownAccount, error)

// Show draws it.
func (d drawnLater) Show() (*shownAccount, error) { return d() }

// ready is an account that is drawn.
func ready(s *shownAccount) drawnLater { return func() (*shownAccount, error) { return s, nil } }

// shownAccount is an account with its tables as a page shows them.
type shownAccount struct {
	*account
	Privacy, Releases, Accountants, Parameters *shown
}

func (a *account) show(path string, query url.Values) *shownAccount {
	s := &shownAccount{account: a}
	for _, t := range a.tables() {
		shown := t.show(a.Name+"-"+t.name, 3, path, query)
		shown.of = "job." + a.Name
		switch t {
		case a.privacy:
			s.Privacy = shown
		case a.releases:
			s.Releases = shown
		case a.accountants:
			s.Accountants = shown
		case a.parameters:
			s.Parameters = shown
		}
	}
	return s
}

func (p *Pages) auditPage(r *http.Request) (*page, error) {
	a, err := p.books.audit()
	if err != nil {
		return nil, err
	}
	if job := r.PathValue("job"); job != "" {
		made, err := a.account(job)
		if err != nil {
			return nil, err
		}
		if made == nil {
			return nil, errNoPage
		}
		path := "/audit/" + job
		return &page{
			Name: "audit", Title: "Privacy account of " + job, Path: path, Tables: made.tables(),
			Body: auditBody{Report: a.Report, Job: job, Others: len(a.Jobs) > 1, Lag: p.lag(), Accounts: []drawnLater{ready(made.show(path, r.URL.Query()))}},
		}, nil
	}
	all := len(a.Jobs) <= mostAccounts
	jobs := jobsTable(a.Report, func(job string) string {
		if all {
			return "#job." + job
		}
		return "/audit/" + job
	})
	body := auditBody{Report: a.Report, Jobs: jobs.show(jobs.name, 2, "/audit", r.URL.Query()), Lag: p.lag()}
	for i := range a.Jobs {
		if !all {
			break
		}
		made, err := a.account(a.Jobs[i].Name)
		if err != nil {
			return nil, err
		}
		body.Accounts = append(body.Accounts, ready(made.show("/audit/"+made.Name, r.URL.Query())))
	}
	return &page{Name: "audit", Title: "Privacy account", Path: "/audit", Tables: []*table{jobs}, Body: body}, nil
}

// lag says why this node may not have all of the ledger, empty if it has.
func (p *Pages) lag() string {
	why := p.config.NotReady()
	switch {
	case len(why) == 0:
		return ""
	case slices.Contains(why, "no leader"):
		return "No leader is known: this node's ledger may lag."
	}
	return "This node is not ready (" + strings.Join(why, "; ") + "): its ledger may lag."
}

// IsReport reports whether a file that starts so is one that WriteReport wrote: has its mark.
func IsReport(start []byte) bool { return bytes.Contains(start, []byte(reportMark)) }

// reportMark is in the head of a report's page.
const reportMark = `<meta name="generator" content="undertone audit report">`

// WriteReport writes a report as the auditor's page: one HTML file that needs nothing
// else. An accountant that cannot count a job's cost fails it before anything is written.
func WriteReport(w io.Writer, r *report.Report) error {
	jobs := jobsTable(r, func(job string) string { return "#job." + job })
	title := "Privacy account"
	if len(r.Jobs) == 1 {
		title += " of " + r.Jobs[0].Name
	}
	body := auditBody{Report: r, Jobs: jobs.show(jobs.name, 2, "", nil), Others: r.Together.Jobs > len(r.Jobs)}
	for i := range r.Jobs {
		j := &r.Jobs[i]
		if _, err := j.Accountants.All(); err != nil {
			return err
		}
		body.Accounts = append(body.Accounts, func() (*shownAccount, error) {
			a, err := newAccount(j)
			if err != nil {
				return nil, err
			}
			return a.show("", nil), nil
		})
	}
	b := bufio.NewWriterSize(w, 64<<10)
	if err := templates.ExecuteTemplate(b, "audit.tmpl", view{Title: title, Style: style, Body: body}); err != nil {
		return err
	}
	return b.Flush()
}
