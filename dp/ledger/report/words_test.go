package report_test

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/dp/ledger/report"
)

func textOf(t *testing.T, h *ledger.History) string {
	t.Helper()
	var b bytes.Buffer
	if err := reportOf(t, h, nil).WriteText(&b); err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func TestStatus(t *testing.T) {
	for _, test := range []struct {
		want   string
		change func(j *ledger.Job)
	}{
		{"open", func(j *ledger.Job) {
			j.Released, j.Attempts, j.Spent = 1, j.Attempts[:1], j.Attempts[0].Charge
		}},
		{"created", func(j *ledger.Job) { j.Released, j.Attempts, j.Spent = 0, nil, 0 }},
		{"finished", func(j *ledger.Job) { j.Closed = true }},
		{"closed", func(j *ledger.Job) { j.Closed, j.Released, j.Attempts = true, 1, j.Attempts[:1] }},
		// All is spent, and the second round has failed; until it has, nobody knows.
		{"exhausted", func(j *ledger.Job) { j.Released, j.Attempts[1].Status = 1, ledger.StatusFailed }},
		{"open", func(j *ledger.Job) { j.Released, j.Attempts[1].Status = 1, ledger.StatusOpen }},
	} {
		j := jobWith(ledger.TrustCentral, dp.ZeroOut, 100, 5, 5)
		test.change(j)
		if got := reportOf(t, historyOf(j), nil).Jobs[0].Status; got != test.want {
			t.Errorf("%s, want %s", got, test.want)
		}
	}
}

// A measurement that failed is not hidden by one after it that passed, and a claim that is
// not the ledger's is said to be another.
func TestMeasurements(t *testing.T) {
	j := jobWith(ledger.TrustCentral, dp.ZeroOut, 100, repeat(5, 20)...)
	measured := func(claimed uint64, passed bool) {
		j.Canaries = append(j.Canaries, ledger.CanaryMeasured{Job: "made", By: "auditor/ada", How: "the noise of one process",
			Claimed: claimed, Lower: 1_000_000, Delta: "1e-06", Confidence: 950_000, Trials: 1000, Passed: passed})
	}
	const another, failed = "ANOTHER CLAIM", "FAILED a test"
	measured(4_306_000, true)
	if text := textOf(t, historyOf(j)); strings.Contains(text, another) || strings.Contains(text, failed) || !strings.Contains(text, "By auditor/ada, dated 1970") {
		t.Error(text)
	}
	measured(4_306_000, false)
	measured(4_200_000, true)
	r := reportOf(t, historyOf(j), nil).Jobs[0]
	if r.Canaries != 3 || !r.Canary.Passed || r.CanaryFailed == nil || r.CanaryFailed.Passed || r.CanaryFailed.Misclaimed() || !r.Canary.Misclaimed() {
		t.Errorf("%+v", r)
	}
	text := textOf(t, historyOf(j))
	for _, want := range []string{"There are 3. The last one:", "The last one that FAILED, or found more than is claimed, before that:", failed, another + " than the ledger's, by which an attempt at every round costs 4.30"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q: %s", want, text)
		}
	}
	if strings.Count(text, another) != 1 {
		t.Error("the one that failed claims the same")
	}
}

// A lower bound above the claim is not hidden by a measurement after it, though the one
// with it passed: that it was chance is for others to judge.
func TestMeasuredAboveTheClaim(t *testing.T) {
	j := jobWith(ledger.TrustCentral, dp.ZeroOut, 100, repeat(5, 20)...)
	for _, lower := range []uint64{4_400_000, 4_000_000} {
		j.Canaries = append(j.Canaries, ledger.CanaryMeasured{Job: "made", By: "auditor/ada", How: "the noise of one process",
			Claimed: 4_306_000, Lower: lower, Delta: "1e-06", Confidence: 950_000, Trials: 1000, Passed: true})
	}
	if text := textOf(t, historyOf(j)); strings.Count(text, "LOWER BOUND IS ABOVE THE CLAIM") != 1 || !strings.Contains(text, "found more than is claimed, before that:") {
		t.Error(text)
	}
}

// An attack bounds epsilon from below, and that if the noise is Gaussian. What was measured
// in the auditor's own program is no word on a cluster.
func TestMeasurementIsWhatItIs(t *testing.T) {
	const own = "in the auditor's own program, with this specification: not this cluster's noise."
	for how, cluster := range map[string]bool{
		"in process: undertone v1": false, "": false,
		"jobs canary-1 to canary-9 of the cluster films, its servers' noise": true,
	} {
		j := jobWith(ledger.TrustCentral, dp.ZeroOut, 100, repeat(5, 20)...)
		j.Canaries = []ledger.CanaryMeasured{{Job: "made", By: "auditor/ada", How: how,
			Claimed: 4_306_000, Lower: 4_000_000, Upper: 4_500_000, Delta: "1e-06", Confidence: 950_000, Trials: 1000, Passed: true}}
		text := textOf(t, historyOf(j))
		if !strings.Contains(text, "Epsilon is at least 4, if the noise is Gaussian (the tests of its shape found nothing against that); the attack reaches at most 4.5.") || strings.Contains(text, own) == cluster {
			t.Errorf("%s: %s", how, text)
		}
		j.Canaries[0].Passed = false
		if text := textOf(t, historyOf(j)); strings.Contains(text, "found nothing against") || !strings.Contains(text, "at least 4, if the noise is Gaussian; the attack reaches at most 4.5.") {
			t.Error(text)
		}
	}
}

// Parameters that differ within a kind of release are all there, and nothing is said to
// be computed, or the least, that is not.
func TestParametersOfEveryRound(t *testing.T) {
	j := jobWith(ledger.TrustCentral, dp.ZeroOut, 100, 5, 5, 7, 5, 5)
	j.Specification.Method = "another"
	j.Specification.Releases[1].Sigma *= 2
	j.Specification.Releases[4].Length = 301
	got := make(map[string]report.Parameter)
	for _, p := range reportOf(t, historyOf(j), nil).Jobs[0].Parameters {
		if got[p.Name] != (report.Parameter{}) {
			t.Errorf("%s is there twice", p.Name)
		}
		got[p.Name] = p
	}
	const least, more = "recomputed: the least that the charge pays for, by 100 contributions together", "recomputed: more than the least that the charge pays for, by 100 contributions together"
	for _, want := range []report.Parameter{
		{Name: "length of update (rounds 1-4)", Value: "300", How: "said by the operator"},
		{Name: "length of update (round 5)", Value: "301", How: "said by the operator"},
		{Name: "clip of update", Value: "1", How: "said by the operator"},
		{Name: "noise of update (rounds 1, 4-5)", Value: "5", How: least},
		{Name: "noise of update (round 2)", Value: "10", How: more},
		{Name: "noise of update (round 3)", Value: "7", How: least},
	} {
		if got[want.Name] != want {
			t.Errorf("%+v, want %+v", got[want.Name], want)
		}
		delete(got, want.Name)
	}
	for name := range got {
		if strings.HasPrefix(name, "noise") || strings.HasPrefix(name, "length") || strings.HasPrefix(name, "clip") {
			t.Errorf("%+v", got[name])
		}
	}
}

// n is of who took part, not of how many there was room for.
func TestDeltaIsHeldAgainstWhoTookPart(t *testing.T) {
	j := jobWith(ledger.TrustCentral, dp.ZeroOut, 100, 5, 5)
	j.Specification.RoundSize, j.Attempts[1].Members = 1000, 120
	if text := textOf(t, historyOf(j)); !strings.Contains(text, "1e-06, at least 0.00012 times 1/n: n = 120, the most users in a release on record") {
		t.Error(text)
	}
	j.Released, j.Attempts, j.Spent = 0, nil, 0
	if text := textOf(t, historyOf(j)); !strings.Contains(text, "1e-06, at least 0.0001 times 1/n: n = 100, n_min, as nothing is released yet") {
		t.Error(text)
	}
	j.Specification.Delta = 0.01
	if text := textOf(t, historyOf(j)); !strings.Contains(text, "0.01, at least 1 times 1/n: n = 100, n_min, as nothing is released yet, and the whole contribution of one of them may be published") {
		t.Error(text)
	}
}

// A report of some jobs says what all of them cost together.
func TestOtherJobsAreCounted(t *testing.T) {
	r := reportOf(t, historyOf(jobWith(ledger.TrustCentral, dp.ZeroOut, 100, 5), jobWith(ledger.TrustCentral, dp.ZeroOut, 100, 5)), nil)
	const others = "Of one who took part in all 2 jobs of this ledger: epsilon together 1.212 (2.5823 under replace-one), under zero-out, at delta 1e-06."
	for jobs := 2; jobs > 0; jobs-- {
		r.Jobs = r.Jobs[:jobs]
		var b bytes.Buffer
		if err := r.WriteText(&b); err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(strings.Fields(b.String()), " "); strings.Contains(text, others) != (jobs == 1) {
			t.Errorf("of %d: %s", jobs, text)
		}
	}
}

// Of what is left of a job that is over nothing can be spent, and under replace-one there
// is one epsilon.
func TestBudgetInWords(t *testing.T) {
	j := jobWith(ledger.TrustCentral, dp.ReplaceOne, 100, 5, 5)
	j.Released, j.Attempts[1].Status = 1, ledger.StatusOpen
	open := textOf(t, historyOf(j))
	j.Closed, j.Attempts[1].Status = true, ledger.StatusFailed
	closed := textOf(t, historyOf(j))
	if strings.Contains(open, "never to be spent") || !strings.Contains(closed, "left, never to be spent 0") {
		t.Error(closed)
	}
	if strings.Contains(closed, "mu epsilon replace-one") || !strings.Contains(closed, "mu epsilon promised") {
		t.Error(closed)
	}
	if !strings.Contains(open, "failed: 0, under way: 1 ") || strings.Contains(closed, "under way") {
		t.Error(open)
	}
}

// Times that RFC 3339 has no form for are left out, and nothing fails.
func TestTimesBeyondTheCalendar(t *testing.T) {
	j := jobWith(ledger.TrustCentral, dp.ZeroOut, 100, 5)
	j.Canaries = []ledger.CanaryMeasured{{Job: "made", By: "auditor/ada", How: "noise", Claimed: 1, Lower: 1, Delta: "1e-06", Confidence: 950_000, Trials: 1}}
	h := historyOf(j)
	for _, far := range []int64{math.MaxInt64, math.MinInt64, 253_402_300_800_000} {
		for _, at := range []*int64{&h.Began, &h.Last, &j.Created, &j.Attempts[0].Opened, &j.Attempts[0].Ended, &j.Canaries[0].Measured} {
			*at = far
		}
		r := reportOf(t, h, nil)
		var b bytes.Buffer
		if err := r.WriteJSON(&b); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"began", "last", "created", "opened", "ended", "date"} {
			if strings.Contains(b.String(), `"`+name+`"`) {
				t.Errorf("%d: JSON has %s", far, name)
			}
		}
		if text := textOf(t, h); !strings.Contains(text, "recorded at (a time beyond the year 9999)") {
			t.Error(text)
		}
	}
	h.Last = 253_402_300_799_999
	if got := reportOf(t, h, nil).Ledger.Last; got != "9999-12-31T23:59:59Z" {
		t.Error(got)
	}
}

// What is older than the ledger has the time at which that began.
func TestCarriedOver(t *testing.T) {
	old, young := jobWith(ledger.TrustCentral, dp.ZeroOut, 100, 5, 5), jobWith(ledger.TrustCentral, dp.ZeroOut, 100, 5)
	old.Record, young.Record, young.Attempts[0].Record = 1, 6, 7
	h := historyOf(old, young)
	h.Before = 3 // the job, and its first attempt
	r := reportOf(t, h, nil)
	if !r.Jobs[0].Carried || !r.Jobs[0].Attempts[0].Carried || r.Jobs[0].Attempts[1].Carried || r.Jobs[1].Carried || r.Jobs[1].Attempts[0].Carried {
		t.Errorf("%+v", r.Jobs)
	}
	if text := textOf(t, h); strings.Count(text, "carried over, recorded at") != 2 ||
		!strings.Contains(text, "carried over 3 records are from before the ledger began: their times and their order are the operator's word") {
		t.Error(text)
	}
	if text := textOf(t, historyOf(young)); strings.Contains(text, "carried over") {
		t.Error(text)
	}
}

// A ledger whose last records are dated after the reader's own time.
func TestDatedAhead(t *testing.T) {
	h, checkpoint := kept(t)
	last := time.UnixMilli(h.Last)
	for _, test := range []struct {
		now   time.Time
		ahead bool
	}{{last, false}, {last.Add(-time.Minute), false}, {last.Add(-time.Minute - time.Millisecond), true}} {
		r := reportOf(t, h, checkpoint)
		r.MadeAt(test.now, h)
		var b bytes.Buffer
		if err := r.WriteText(&b); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(b.String(), "dated in the future"); got != test.ahead || (r.Ledger.Ahead > 0) != test.ahead {
			t.Errorf("%v before the last record: %d are ahead: %v", last.Sub(test.now), r.Ledger.Ahead, got)
		}
	}
}
