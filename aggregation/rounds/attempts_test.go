package rounds_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/undertone-fl/undertone/aggregation/rounds"
)

// A job's attempts are bounded however cheap they are, and so is its snapshot,
// which can be restored with the last of them.
func TestAttemptsAreBounded(t *testing.T) {
	const most = 1 << 15
	m := rounds.NewMachine()
	spec := newSpec("films", 1, 2, 1, 1<<40)
	apply(t, m, rounds.CreateJob{Spec: encode(t, spec), State: rounds.BlobOf([]byte("U0"))})
	apply(t, m, rounds.Run{Job: "films"})
	why := strings.Repeat("y", rounds.MaxWhy)
	for i := range most {
		apply(t, m, rounds.OpenRound{Job: "films", Round: 1, Attempt: i + 1})
		apply(t, m, rounds.FailRound{Job: "films", Round: 1, Attempt: i + 1, Why: why})
	}
	var refusal *rounds.Refusal
	if _, err := m.Apply(rounds.OpenRound{Job: "films", Round: 1, Attempt: most + 1}); !errors.As(err, &refusal) || refusal.Reason != rounds.NoBudget {
		t.Errorf("one more attempt: %v", err)
	}
	if job, _ := m.Job("films"); job.State != rounds.Exhausted {
		t.Errorf("the job is %v", job.State)
	}
	s := m.Snapshot()
	if _, err := rounds.Restore(s); err != nil {
		t.Error(err)
	}
	last := s.Jobs[0].Attempts[most-1]
	last.Attempt++
	s.Jobs[0].Attempts = append(s.Jobs[0].Attempts, last)
	if _, err := rounds.Restore(s); err == nil {
		t.Error("restored with one more")
	}
}
