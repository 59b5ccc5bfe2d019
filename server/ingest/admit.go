package ingest

import (
	"context"
	"errors"
	"hash/crc32"
	"time"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/server/refusal"
)

// terms are what an open attempt asks of a contribution.
type terms struct {
	release *rounds.Release
	width   int // bytes a coordinate
	central bool
}

// size of a contribution in bytes.
func (t terms) size() int64 { return int64(t.release.Length) * int64(t.width) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// admit checks a header against the applied state. A receipt means that the
// contribution is in the sum already.
func (in *Ingest) admit(ctx context.Context, h *Header) (terms, *Receipt, error) {
	if err := CatchUp(ctx, in.node, h.MinIndex); err != nil {
		return terms{}, nil, err
	}
	var (
		t    terms
		got  *Receipt
		fail *refusal.Error
	)
	in.node.View(func(m *rounds.Machine, index uint64) {
		job, ok := m.Job(h.Job)
		if !ok {
			fail = refusal.New(undertonev1.Reason_REASON_UNKNOWN_JOB, "no job %.64q", h.Job)
			return
		}
		if n := len(job.Attempts); n == 0 || job.Attempts[n-1].Phase != rounds.Collecting || !matches(&job.Attempts[n-1], h.Key) {
			fail = notOpen(m, &job, h.Key, h.Client)
			return
		}
		if job.Latest.Digest != h.State {
			fail = refusal.New(undertonev1.Reason_REASON_WRONG_DIGEST, "round %d begins with another state", h.Round)
			return
		}
		if counted, _ := m.Member(h.Job, h.Round, h.Attempt, h.Client); counted {
			got = &Receipt{Index: index, Duplicate: true}
			return
		}
		t = terms{
			release: &job.Spec.Releases[h.Round-1],
			width:   int(job.Spec.Lattice.ModulusBits / 8),
			central: job.Spec.Trust == rounds.TrustCentral,
		}
	})
	if fail != nil {
		return terms{}, nil, fail
	}
	return t, got, nil
}

// notOpen says why an attempt takes no contributions, and whether the client's
// is in its sum.
func notOpen(m *rounds.Machine, job *rounds.JobView, key Key, client rounds.ClientID) *refusal.Error {
	for i := len(job.Attempts) - 1; i >= 0; i-- {
		a := &job.Attempts[i]
		if !matches(a, key) {
			continue
		}
		e := refusal.New(undertonev1.Reason_REASON_NOT_OPEN, "attempt %d at round %d has ended", key.Attempt, key.Round)
		if a.Phase == rounds.Released {
			e = refusal.New(undertonev1.Reason_REASON_ALREADY_RELEASED, "round %d is released", key.Round)
		}
		if counted, known := m.Member(key.Job, key.Round, key.Attempt, client); known {
			e.Counted = &counted
		}
		return e
	}
	return refusal.New(undertonev1.Reason_REASON_WRONG_ROUND, "there is no attempt %d at round %d", key.Attempt, key.Round)
}

func matches(a *rounds.Attempt, k Key) bool { return a.Round == k.Round && a.Attempt == k.Attempt }

// CatchUp waits a little until the node has applied index, and refuses with
// BEHIND if it has not by then.
func CatchUp(ctx context.Context, n interface {
	WaitIndex(ctx context.Context, index uint64) error
}, index uint64) error {
	waiting, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	err := n.WaitIndex(waiting, index)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		e := refusal.New(undertonev1.Reason_REASON_BEHIND, "this node has not seen index %d", index)
		e.RetryAfter = 100 * time.Millisecond
		return e
	}
	return err
}
