package cli

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// jobView is a job to look at, and its form in JSON.
type jobView struct {
	Name        string          `json:"job"`
	State       string          `json:"state"`
	Held        bool            `json:"held,omitempty"`
	Until       uint32          `json:"until,omitempty"` // the last round that may be opened
	Released    uint32          `json:"released"`
	Rounds      int             `json:"rounds"`
	StateDigest string          `json:"state_digest"`
	StateSize   uint64          `json:"state_size"`
	Budget      privacy         `json:"budget"`
	Spent       privacy         `json:"spent"`
	Remaining   uint64          `json:"remaining_ms,omitempty"`
	Attempts    []attemptView   `json:"attempts,omitempty"`
	Spec        json.RawMessage `json:"spec"`

	spec *rounds.Spec
}

// privacy is an amount of it, in the units that people use.
type privacy struct {
	NanoRho    uint64  `json:"nano_rho,string"`
	ZeroOut    float64 `json:"epsilon_zero_out"`
	ReplaceOne float64 `json:"epsilon_replace_one"`
	Delta      float64 `json:"delta"`
}

type attemptView struct {
	Round   uint32 `json:"round"`
	Attempt uint32 `json:"attempt"`
	Kind    string `json:"kind"`
	Phase   string `json:"phase"`
	Members uint32 `json:"members"`
	Charge  uint64 `json:"charge_nano_rho,string"`
	Sum     string `json:"sum_digest,omitempty"`
	State   string `json:"state_digest,omitempty"`
	Why     string `json:"why,omitempty"`
}

// amount converts rho under a job's adjacency. Contributions carry discrete
// Gaussian noise, so the exact curve of the Gaussian applies.
func amount(s *rounds.Spec, r accounting.NanoRho) (privacy, error) {
	p := privacy{NanoRho: uint64(r), Delta: s.Delta}
	for _, under := range []struct {
		adjacency dp.Adjacency
		epsilon   *float64
	}{{dp.ZeroOut, &p.ZeroOut}, {dp.ReplaceOne, &p.ReplaceOne}} {
		// rho grows with the square of the sensitivity.
		factor := under.adjacency.SensitivityFactor() / s.Adjacency.SensitivityFactor()
		mu := math.Sqrt(2*r.Rho()) * factor
		*under.epsilon = accounting.GaussianEpsilon(mu, s.Delta)
	}
	return p, nil
}

func (p privacy) String() string {
	return fmt.Sprintf("epsilon %s under zero-out, %s under replace-one; delta %g", figure(p.ZeroOut), figure(p.ReplaceOne), p.Delta)
}

// figure is a number for people: three digits.
func figure(x float64) string { return strconv.FormatFloat(x, 'g', 3, 64) }

func viewJob(j *undertonev1.Job) (*jobView, error) {
	s, err := rounds.ParseSpec(j.GetSpec())
	if err != nil {
		return nil, fmt.Errorf("the server's specification of a job: %s", err)
	}
	v := &jobView{
		Name: s.Job, State: jobStates[j.GetState()], Until: j.GetUntil(), Released: j.GetReleased(),
		Rounds: len(s.Releases), StateDigest: hex.EncodeToString(j.GetStateDigest()), StateSize: j.GetStateSize(),
		Remaining: j.GetRemainingMs(), Spec: j.GetSpec(), spec: s,
	}
	if v.Budget, err = amount(s, s.Budget); err != nil {
		return nil, err
	}
	if v.Spent, err = amount(s, accounting.NanoRho(j.GetSpentNanoRho())); err != nil {
		return nil, err
	}
	v.Held = held(j, s)
	for _, a := range j.GetAttempts() {
		view := attemptView{
			Round: a.GetRound(), Attempt: a.GetAttempt(), Phase: phases[a.GetPhase()], Members: a.GetMembers(),
			Charge: a.GetChargeNanoRho(), Sum: hex.EncodeToString(a.GetSumDigest()), State: hex.EncodeToString(a.GetStateDigest()), Why: a.GetWhy(),
		}
		if r := a.GetRound(); r >= 1 && int(r) <= len(s.Releases) {
			view.Kind = s.Releases[r-1].Kind
		}
		v.Attempts = append(v.Attempts, view)
	}
	return v, nil
}

var jobStates = map[undertonev1.JobState]string{
	undertonev1.JobState_JOB_STATE_PAUSED:    "paused",
	undertonev1.JobState_JOB_STATE_RUNNING:   "running",
	undertonev1.JobState_JOB_STATE_FINISHED:  "finished",
	undertonev1.JobState_JOB_STATE_EXHAUSTED: "exhausted",
	undertonev1.JobState_JOB_STATE_CLOSED:    "closed",
}

var phases = map[undertonev1.Phase]string{
	undertonev1.Phase_PHASE_COLLECTING: "collecting",
	undertonev1.Phase_PHASE_CLOSED:     "closed",
	undertonev1.Phase_PHASE_RELEASED:   "released",
	undertonev1.Phase_PHASE_FAILED:     "failed",
}

// over reports whether nothing will happen to the job any more.
func (j *jobView) over() bool {
	return j.State == "finished" || j.State == "exhausted" || j.State == "closed"
}

// held reports whether the servers open no further attempt by themselves, since it
// would spend what later rounds need: package server's driver decides alike.
func held(j *undertonev1.Job, s *rounds.Spec) bool {
	released := int(j.GetReleased())
	waits := j.GetState() == undertonev1.JobState_JOB_STATE_RUNNING && (j.GetUntil() == 0 || released < int(j.GetUntil()))
	if !waits || released >= len(s.Releases) || lastAttempt(j).GetPhase() != undertonev1.Phase_PHASE_FAILED {
		return false
	}
	needed := accounting.NanoRho(j.GetSpentNanoRho())
	for _, r := range s.Releases[released:] {
		var err error
		if needed, err = needed.Add(r.Charge); err != nil {
			return true
		}
	}
	return needed > s.Budget
}

// stage is all that changes but the time.
func (j *jobView) stage() string {
	return fmt.Sprint(j.State, j.Until, j.Released, j.Spent.NanoRho, j.Attempts)
}

// standing is the state in a few words.
func (j *jobView) standing() string {
	text := fmt.Sprintf("%s, %d of %s released", j.State, j.Released, plural(j.Rounds, "round"))
	switch {
	case j.State == "exhausted":
		text += "; the budget has no room for another attempt"
	case j.Held:
		text += "; held, for another attempt would spend what later rounds need (undertone job open-round makes it)"
	case j.State == "running" && j.Until > 0:
		text += fmt.Sprintf("; pauses after round %d", j.Until)
	}
	return text
}

func (j *jobView) print(w io.Writer) error {
	s := j.spec
	var f facts
	f.add("job", "%s", j.Name)
	f.add("state", "%s", j.standing())
	f.add("method", "%s", methodOf(s))
	f.add("privacy", "%v", j.Budget)
	f.add("spent", "%s of %s rho (%.0f %%), epsilon %s so far", figure(float64(j.Spent.NanoRho)/1e9),
		figure(float64(j.Budget.NanoRho)/1e9), 100*float64(j.Spent.NanoRho)/float64(max(j.Budget.NanoRho, 1)), figure(spentUnder(s.Adjacency, j.Spent)))
	f.add("rounds", "%s", sizesOf(s))
	f.add("model", "version %d, %s, sha256 %.12s", j.Released, size(j.StateSize), j.StateDigest)
	if err := f.print(w); err != nil {
		return err
	}
	if len(j.Attempts) == 0 {
		return nil
	}
	t := table{header: []string{"ROUND", "ATTEMPT", "RELEASE", "PHASE", "MEMBERS", "CHARGE", "RESULT"}}
	for i, a := range j.Attempts {
		last := fmt.Sprintf("%.12s", a.State)
		switch {
		case a.Why != "":
			last = a.Why
		case a.Phase == "collecting" && j.Remaining > 0 && i == len(j.Attempts)-1:
			last = fmt.Sprintf("(%v left)", (time.Duration(j.Remaining) * time.Millisecond).Round(time.Second))
		}
		members := strconv.Itoa(int(a.Members))
		if a.Phase == "collecting" {
			members += fmt.Sprintf("/%d", s.RoundSize)
		}
		t.add(strconv.Itoa(int(a.Round)), strconv.Itoa(int(a.Attempt)), a.Kind, a.Phase, members,
			figure(float64(a.Charge)/1e9)+" rho", last)
	}
	fmt.Fprintln(w)
	return t.print(w)
}

func spentUnder(a dp.Adjacency, p privacy) float64 {
	if a == dp.ReplaceOne {
		return p.ReplaceOne
	}
	return p.ZeroOut
}

// methodOf describes the method; one that this program does not know by its
// name alone.
func methodOf(s *rounds.Spec) string {
	var p jobs.Parameters
	if s.Method != jobs.AMHTLRS || json.Unmarshal(s.Parameters, &p) != nil {
		return s.Method
	}
	return fmt.Sprintf("%s: %d features (%s), rank %d, sparsity %d, %s", s.Method, p.Dim, p.Features, p.Rank, p.Sparsity, p.Update)
}

func sizesOf(s *rounds.Spec) string {
	each := fmt.Sprintf("%d to %d contributions", s.NMin, s.RoundSize)
	if s.NMin == s.RoundSize {
		each = plural(s.NMin, "contribution")
	}
	return fmt.Sprintf("%s each, within %v; noise added by %s", each, duration(s.Deadline), map[rounds.Trust]string{
		rounds.TrustDistributed: "the clients, in shares (distributed)",
		rounds.TrustCentral:     "the servers (central)",
		rounds.TrustLocal:       "every client, all of it (local)",
	}[s.Trust])
}

func printJobs(w io.Writer, list []*jobView) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no jobs (undertone job create makes one)")
		return err
	}
	t := table{header: []string{"JOB", "STATE", "RELEASED", "EPSILON SPENT", "OF", "METHOD"}}
	for _, j := range list {
		state := j.State
		if j.Held {
			state += ", held"
		}
		t.add(j.Name, state, fmt.Sprintf("%d/%d", j.Released, j.Rounds),
			figure(spentUnder(j.spec.Adjacency, j.Spent)), figure(spentUnder(j.spec.Adjacency, j.Budget)), methodOf(j.spec))
	}
	return t.print(w)
}

// printSpec is what a job will do and cost, before it does.
func printSpec(w io.Writer, s *rounds.Spec) error {
	budget, err := amount(s, s.Budget)
	if err != nil {
		return err
	}
	var f facts
	f.add("job", "%s", s.Job)
	f.add("method", "%s", methodOf(s))
	f.add("privacy", "%v", budget)
	f.add("budget", "%s rho for %s%s", figure(s.Budget.Rho()), plural(len(s.Releases), "round"), spare(s))
	f.add("rounds", "%s", sizesOf(s))
	if err := f.print(w); err != nil {
		return err
	}
	fmt.Fprintln(w)
	// Rounds that are alike, one after the other, are one line.
	t := table{header: []string{"ROUND", "RELEASE", "NUMBERS", "SENT", "NOISE / SENSITIVITY", "CHARGE"}}
	for i := 0; i < len(s.Releases); {
		first, r := i, s.Releases[i]
		for i++; i < len(s.Releases) && alike(s.Releases[i], r); i++ {
		}
		number := strconv.Itoa(first + 1)
		if i > first+1 {
			number += "-" + strconv.Itoa(i)
		}
		t.add(number, r.Kind, strconv.Itoa(r.Length), size(uint64(r.Length)*uint64(s.Lattice.ModulusBits/8)),
			figure(noiseMultiplier(s, r)), figure(r.Charge.Rho())+" rho")
	}
	return t.print(w)
}

// alike reports whether two rounds look the same to people: charges may differ
// by what a division leaves.
func alike(a, b rounds.Release) bool {
	return a.Kind == b.Kind && a.Length == b.Length && a.Bound == b.Bound && figure(a.Charge.Rho()) == figure(b.Charge.Rho())
}

// noiseMultiplier is the noise of a sum of NMin contributions (with TrustLocal of
// one), over the norm of one.
func noiseMultiplier(s *rounds.Spec, r rounds.Release) float64 {
	n := float64(s.NMin)
	if s.Trust == rounds.TrustLocal {
		n = 1
	}
	return math.Sqrt(n) * r.Sigma.Float64() / float64(r.Bound)
}

// spare says how many failed attempts the budget has room for.
func spare(s *rounds.Spec) string {
	left, dearest := s.Budget, accounting.NanoRho(0)
	for _, r := range s.Releases {
		left -= min(left, r.Charge)
		dearest = max(dearest, r.Charge)
	}
	if dearest == 0 {
		return ""
	}
	n := int(left / dearest)
	if n == 0 {
		return ", no attempt may fail"
	}
	return strings.Join([]string{" and", plural(n, "failed attempt")}, " ")
}
