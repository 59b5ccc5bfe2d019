package faults

import (
	"crypto/sha256"
	"encoding/json"
	"strings"
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// The checker has to find every promise that is broken: each case breaks one in a
// history that is otherwise good.
func TestHistoryFindsViolations(t *testing.T) {
	made, err := jobs.New(
		jobs.Parameters{Config: lowrank.Config{Dim: 4, Rank: 1, Rounds: 2, Features: lowrank.Standard, Update: lowrank.Gradient}},
		jobs.Terms{Job: "job", Epsilon: 8, Delta: 1e-6, Adjacency: dp.ZeroOut, Trust: rounds.TrustDistributed, NMin: 2, RoundSize: 4, Deadline: 1e9})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(made)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := rounds.ParseSpec(raw)
	if err != nil {
		t.Fatal(err)
	}
	k := attemptKey{"job", 1, 1}
	digest := func(b byte) []byte { d := sha256.Sum256([]byte{b}); return d[:] }
	for name, c := range map[string]struct {
		sum  []int // the clients whose contributions it is of
		edit func(*history, *undertonev1.Job)
		want string // "": no violation
	}{
		"good":          {sum: []int{0, 1}},
		"unanswered":    {sum: []int{0, 1, 2}},
		"lost":          {sum: []int{0, 2}, want: "once each"},
		"counted twice": {sum: []int{0, 1, 1}, want: "once each"},
		"nobody's":      {sum: []int{0, 1, 3}, want: "once each"},
		"late and in":   {sum: []int{0, 1, 2}, edit: func(h *history, _ *undertonev1.Job) { h.begin(k, 2)(answer{kind: refused, told: true}) }, want: "no order"},
		"counted after": {sum: []int{0, 1}, edit: func(h *history, _ *undertonev1.Job) {
			h.attempt(k).calls = h.attempt(k).calls[1:]
			h.begin(k, 0)(answer{kind: counted})
		}, want: "no order"},
		"too few":       {sum: []int{0, 1}, edit: func(_ *history, j *undertonev1.Job) { j.Attempts[0].Members = 1 }, want: "fewer than 2"},
		"backwards":     {sum: []int{0, 1}, edit: func(h *history, j *undertonev1.Job) { h.jobs["job"].released = 2 }, want: "went from 2 to 1"},
		"another state": {sum: []int{0, 1}, edit: func(h *history, j *undertonev1.Job) { h.sawState("job", 1, digest(9)) }, want: "state 1 was"},
		"not charged":   {sum: []int{0, 1}, edit: func(_ *history, j *undertonev1.Job) { j.SpentNanoRho-- }, want: "were charged"},
		"refunded":      {sum: []int{0, 1}, edit: func(h *history, j *undertonev1.Job) { h.jobs["job"].spent = j.SpentNanoRho + 1 }, want: "spent went from"},
		"overspent":     {sum: []int{0, 1}, edit: overspend(spec), want: "spent of"},
		"released twice": {sum: []int{0, 1}, edit: func(_ *history, j *undertonev1.Job) {
			j.Attempts = append(j.Attempts, j.Attempts[0])
			j.SpentNanoRho *= 2
		}, want: "round 2 was to come"},
		"undecided": {sum: []int{0, 1}, edit: func(h *history, _ *undertonev1.Job) {
			h.check = func(*attemptHistory, []int) porcupine.CheckResult { return porcupine.Unknown }
		}, want: "no order of the calls was found"},
		"no digest":       {sum: []int{0, 1}, edit: func(_ *history, j *undertonev1.Job) { j.Attempts[0].SumDigest = nil }, want: "without the digest"},
		"opened too soon": {sum: []int{0, 1}, edit: func(_ *history, j *undertonev1.Job) { reopen(j) }, want: "but another was opened"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHistory()
			h.jobs["job"] = &jobHistory{spec: spec, states: map[int][]byte{}}
			h.begin(k, 0)(answer{kind: counted})
			h.begin(k, 1)(answer{kind: counted})
			h.begin(k, 2)(answer{kind: unknown})
			sum := make([]int64, spec.Releases[0].Length)
			for _, client := range c.sum {
				for i, v := range contribution(k, client, len(sum)) {
					sum[i] += v
				}
			}
			spec.Lattice.Reduce(sum)
			of := sha256.Sum256(aggregation.Pack(nil, sum, spec.Width()))
			job := &undertonev1.Job{Spec: raw, Released: 1, StateDigest: digest(1), SpentNanoRho: uint64(spec.Releases[0].Charge),
				Attempts: []*undertonev1.Attempt{{Round: 1, Attempt: 1, Phase: undertonev1.Phase_PHASE_RELEASED,
					Members: uint32(len(c.sum)), SumDigest: of[:], StateDigest: digest(1)}}}
			first := job.Attempts[0]
			h.sawOpen(k, digest(0))
			if strings.HasPrefix(name, "counted after") {
				h.sawJob(job) // closed, before the call began
			}
			if c.edit != nil {
				c.edit(h, job)
			}
			h.sawJob(job)
			h.settle(spec, first)
			found := strings.Join(h.violations, "\n")
			if c.want == "" && found != "" || !strings.Contains(found, c.want) {
				t.Errorf("found %q, want %q", found, c.want)
			}
		})
	}
}

// overspend appends attempts that failed until the budget is exceeded.
func overspend(spec *rounds.Spec) func(*history, *undertonev1.Job) {
	return func(_ *history, j *undertonev1.Job) {
		for attempt := uint32(1); j.SpentNanoRho <= uint64(spec.Budget); attempt++ {
			j.Attempts = append(j.Attempts, &undertonev1.Attempt{Round: 2, Attempt: attempt, Phase: undertonev1.Phase_PHASE_FAILED})
			j.SpentNanoRho += uint64(spec.Releases[1].Charge)
		}
	}
}

// reopen has the attempt still collect when the next one is opened.
func reopen(j *undertonev1.Job) {
	second := &undertonev1.Attempt{Round: 1, Attempt: 2, Phase: undertonev1.Phase_PHASE_COLLECTING}
	j.Attempts[0].Phase = undertonev1.Phase_PHASE_CLOSED
	j.Attempts, j.SpentNanoRho = append(j.Attempts, second), 2*j.SpentNanoRho
}
