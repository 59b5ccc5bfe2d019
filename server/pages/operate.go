package pages

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/ledger/report"
	"github.com/undertone-fl/undertone/server/board"
	"github.com/undertone-fl/undertone/server/driver"
	"github.com/undertone-fl/undertone/server/notary"
	"github.com/undertone-fl/undertone/server/replication"
)

// operateBody is the operator's page.
type operateBody struct {
	Leader   string // empty: none is known
	NotReady []string
	Facts    []fact
	Figures  []drawn
}

// fact is a line of a list.
type fact struct{ Name, Value string }

// mostCohorts is how many attempts of a job, the latest ones, the operator's page looks
// at: a job's page has all.
const mostCohorts = 100

func (p *Pages) operatePage(r *http.Request) (*page, error) {
	members, err := p.config.Node.Members(r.Context())
	if err != nil {
		return nil, err
	}
	edition, _ := p.config.Board.At(0)
	views := p.look()
	nodes := nodesTable(members)
	figures, err := drawAll(p.meter.figure())
	if err != nil {
		return nil, err
	}
	body := operateBody{NotReady: p.config.NotReady(), Facts: p.facts(), Figures: figures}
	for _, m := range members {
		if m.Leader {
			body.Leader = m.Name
		}
	}
	times := p.times()
	return &page{
		Name: "operate", Title: "Operations", Path: "/operate", Live: true, Body: body,
		Tables: []*table{
			openTable(views, edition), stateTable(views, edition, unsigned(members)), nodes, cohortsTable(views), failuresTable(views, times),
		},
	}, nil
}

// jobLook is a job as its pages show it, copied from the replicated state.
type jobLook struct {
	rounds.JobView
	name string
}

// look copies what is shown of all jobs: of the attempts the latest.
func (p *Pages) look() (views []jobLook) {
	p.config.Node.View(func(m *rounds.Machine, _ uint64) {
		for _, name := range m.Jobs() {
			j, _ := m.Job(name)
			j.Attempts = slices.Clone(j.Attempts[max(0, len(j.Attempts)-mostCohorts):])
			views = append(views, jobLook{j, name})
		}
	})
	return views
}

func (p *Pages) facts() []fact {
	s := p.config.Stats()
	facts := []fact{
		{"This node", p.config.Name},
		{"Term", whole(s.Term)},
		{"Last command applied", whole(s.Applied)},
	}
	if s.FirstEntry > 0 && s.LastEntry >= s.FirstEntry {
		facts = append(facts, fact{"Log", count(s.LastEntry-s.FirstEntry+1, "entry", "entries") + " kept, " + size(int64(s.LogBytes)) + " appended since it started"})
	}
	if p.config.Disk != nil {
		if bytes, err := p.config.Disk(); err == nil {
			facts = append(facts, fact{"Data directory", size(bytes)})
		}
	}
	if !s.Leading {
		facts = append(facts, fact{"Leader heard of", span(s.LastContact) + " ago"})
	}
	if s.Proposals > 0 {
		facts = append(facts, fact{"Commands through this node", whole(s.Proposals) + ", in " + span(s.ProposeTime/time.Duration(s.Proposals)) + " each"})
	}
	if rate, ok := p.meter.rate(time.Minute); ok {
		facts = append(facts, fact{"Contributions", significant(rate) + "/s over the last minute, all nodes together"})
	}
	if head, err := p.config.Ledger.Head(); err == nil {
		facts = append(facts, fact{"Ledger", count(head.Checkpoint.Size, "record", "records")})
	} else if older := p.config.Older(); errors.Is(err, notary.ErrNoLedger) && len(older) > 0 {
		facts = append(facts, fact{"Ledger", "begins when all members read it: upgrade " + strings.Join(older, ", ")})
	}
	var clients uint64
	p.config.Node.View(func(m *rounds.Machine, _ uint64) { clients = uint64(m.Clients()) })
	return append(facts, fact{"Clients that ever took part", whole(clients)})
}

// openTable is of rounds that collect, or are computed.
func openTable(views []jobLook, edition *board.Edition) *table {
	t := &table{
		name: "open", Caption: "Rounds under way", Empty: "No round is open.",
		Note: "The time left is this node's measure; the leader's counts.",
		columns: []column{
			{key: "job", Head: "Job"}, {key: "round", Head: "Round", Numeric: true}, {key: "attempt", Head: "Attempt", Numeric: true}, {key: "phase", Head: "Phase"},
			{key: "members", Head: "Contributions", Numeric: true}, {key: "round_size", Head: "of at most", Numeric: true}, {key: "n_min", Head: "at least", Numeric: true}, {key: "left_seconds", Head: "Time left", Numeric: true},
		},
	}
	for _, j := range views {
		if len(j.Attempts) == 0 {
			continue
		}
		last := j.Attempts[len(j.Attempts)-1]
		if last.Phase != rounds.Collecting && last.Phase != rounds.Closed {
			continue
		}
		var left cell
		if b := edition.Job(j.name); b != nil && b.Collecting() && b.Last.Round == last.Round && b.Last.Attempt == last.Attempt {
			d := b.Remaining(time.Now())
			left = cell{value: d.Seconds(), text: span(d)}
		}
		t.add(jobCell(j.name), integer(last.Round), integer(last.Attempt), cell{value: last.Phase.String(), Class: last.Phase.String()},
			integer(last.Members), integer(j.Spec.RoundSize), integer(j.Spec.NMin), left)
	}
	return t
}

func jobCell(name string) cell { return cell{value: name, Link: "/jobs/" + name} }

// unsigned says why the node that leads cannot sign the ledger, and so opens no rounds;
// empty if it can.
func unsigned(members []replication.Member) string {
	for _, m := range members {
		if !m.Leader {
			continue
		}
		for _, why := range m.NotReady {
			if reason, ok := strings.CutPrefix(why, notary.NotReadyPrefix); ok {
				return m.Name + ": " + reason
			}
		}
	}
	return ""
}

// stateTable is of all jobs.
func stateTable(views []jobLook, edition *board.Edition, unsigned string) *table {
	t := &table{
		name: "jobs", Caption: "Jobs", Empty: "There are no jobs yet (undertone job create).",
		columns: []column{
			{key: "job", Head: "Job"}, {key: "state", Head: "State"}, {key: "released", Head: "Released", Numeric: true}, {key: "rounds", Head: "of rounds", Numeric: true},
			{key: "spent_rho", Head: "ρ spent", Numeric: true}, {key: "cap_rho", Head: "ρ cap", Numeric: true}, {key: "spent_percent", Head: "Spent, %", Numeric: true}, {key: "next", Head: "What comes next"},
		},
	}
	for _, j := range views {
		share := 100 * j.Spent.Rho() / j.Spec.Budget.Rho()
		t.add(jobCell(j.name), cell{value: j.State.String(), Class: j.State.String()}, integer(j.Released), integer(len(j.Spec.Releases)),
			number(j.Spent.Rho()), number(j.Spec.Budget.Rho()), cell{value: share, text: fmt.Sprintf("%.0f", share)}, text(next(j, edition.Job(j.name), unsigned)))
	}
	return t
}

// next says what goes on with a job, or comes next. Unsigned is why no rounds are opened.
func next(j jobLook, b *board.Job, unsigned string) string {
	if n := len(j.Attempts); n > 0 {
		switch j.Attempts[n-1].Phase {
		case rounds.Collecting:
			return fmt.Sprintf("round %d collects", j.Released+1)
		case rounds.Closed:
			return fmt.Sprintf("round %d is computed", j.Released+1)
		}
	}
	switch {
	case b != nil && driver.Held(b):
		return fmt.Sprintf("held: attempt %d at round %d would spend what later rounds need, and waits for an operator to open it", j.Next, j.Released+1)
	case j.State == rounds.Running && unsigned != "":
		return fmt.Sprintf("attempt %d at round %d waits for a leader that can sign the ledger (%s)", j.Next, j.Released+1, unsigned)
	case j.State == rounds.Running:
		return fmt.Sprintf("attempt %d at round %d is opened soon", j.Next, j.Released+1)
	case j.State == rounds.Paused:
		return "an operator may open rounds (undertone job open)"
	case j.State == rounds.Exhausted:
		return "the budget has no room for another attempt"
	case j.State == rounds.Finished:
		return "nothing: every round is released"
	}
	return "it was closed for good"
}

func nodesTable(members []replication.Member) *table {
	t := &table{
		name: "nodes", Caption: "Nodes, and how far they are behind",
		Note: "Lag is in commands behind the node that has applied most.",
		columns: []column{
			{key: "node", Head: "Node"}, {key: "role", Head: "Role"}, {key: "status", Head: "Status"}, {key: "applied", Head: "Applied", Numeric: true}, {key: "lag", Head: "Lag", Numeric: true},
			{key: "term", Head: "Term", Numeric: true}, {key: "address", Head: "For nodes"}, {key: "api_address", Head: "For clients"}, {key: "version", Head: "Version"},
		},
	}
	var most uint64
	for _, m := range members {
		most = max(most, m.Applied)
	}
	members = slices.SortedFunc(slices.Values(members), func(a, b replication.Member) int { return cmp.Compare(a.Name, b.Name) })
	for _, m := range members {
		role := "learner"
		switch {
		case m.Leader:
			role = "leader"
		case m.Voter:
			role = "voter"
		}
		status := cell{value: "ready", Class: "released"}
		switch {
		case m.Diverged:
			status = cell{value: "diverged: its state is not the others'", Class: "failed"}
		case !m.Reachable:
			status = cell{value: "does not answer", Class: "failed"}
		case len(m.NotReady) > 0:
			status = cell{value: strings.Join(m.NotReady, "; "), Class: "failed"}
		}
		applied, lag, term := cell{}, cell{}, cell{}
		if m.Reachable {
			applied, lag, term = integer(m.Applied), integer(most-m.Applied), integer(m.Term)
		}
		t.add(text(m.Name), text(role), status, applied, lag, term, text(m.Address), optional(m.APIAddress), optional(m.Version))
	}
	return t
}

// cohortsTable is of the latest attempts of each job, the latest first.
func cohortsTable(views []jobLook) *table {
	t := &table{
		name: "cohorts", Caption: "Cohorts", Empty: "No round was opened yet.",
		Note: "Who took part in the latest rounds: how many, of how many that there was room for.",
		columns: []column{
			{key: "job", Head: "Job"}, {key: "round", Head: "Round", Numeric: true}, {key: "attempt", Head: "Attempt", Numeric: true}, {key: "phase", Head: "Phase"},
			{key: "members", Head: "Members", Numeric: true}, {key: "round_size", Head: "of at most", Numeric: true}, {key: "share_percent", Head: "Full, %", Numeric: true},
		},
	}
	for _, j := range views {
		for _, a := range slices.Backward(j.Attempts) {
			share := 100 * float64(a.Members) / float64(j.Spec.RoundSize)
			t.add(jobCell(j.name), integer(a.Round), integer(a.Attempt), cell{value: a.Phase.String(), Class: a.Phase.String()},
				integer(a.Members), integer(j.Spec.RoundSize), cell{value: share, text: fmt.Sprintf("%.0f", share)})
		}
	}
	return t
}

// ended is when an attempt ended, RFC 3339, empty if that is not known.
type ended func(job string, round, attempt int) string

// times are those of the ledger, as far as it is there.
func (p *Pages) times() ended {
	a, err := p.books.audit()
	if err != nil {
		return func(string, int, int) string { return "" }
	}
	return func(job string, round, attempt int) string {
		for i := range a.Jobs {
			if a.Jobs[i].Name != job {
				continue
			}
			all := a.Jobs[i].Attempts // in order
			at, found := slices.BinarySearchFunc(all, [2]int{round, attempt}, func(x report.Attempt, want [2]int) int {
				return cmp.Or(cmp.Compare(x.Round, want[0]), cmp.Compare(x.Attempt, want[1]))
			})
			if found {
				return all[at].Ended
			}
		}
		return ""
	}
}

func failuresTable(views []jobLook, times ended) *table {
	t := &table{
		name: "failures", Caption: "Failures, and why", Empty: "No attempt has failed.",
		Note: "What a failed attempt cost stays spent.",
		columns: []column{
			{key: "job", Head: "Job"}, {key: "round", Head: "Round", Numeric: true}, {key: "attempt", Head: "Attempt", Numeric: true}, {key: "members", Head: "Members", Numeric: true},
			{key: "charge_rho", Head: "ρ spent", Numeric: true}, {key: "ended", Head: "When (UTC)"}, {key: "why", Head: "Why"},
		},
	}
	for _, j := range views {
		for _, a := range slices.Backward(j.Attempts) {
			if a.Phase == rounds.Failed {
				t.add(jobCell(j.name), integer(a.Round), integer(a.Attempt), integer(a.Members),
					number(a.Charge.Rho()), when(times(j.name, a.Round, a.Attempt)), text(a.Why))
			}
		}
	}
	return t
}
