package canary

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math"
	"runtime"
	"sync"

	"go.opentelemetry.io/otel/trace/noop"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/server/ingest"
	"github.com/undertone-fl/undertone/server/metrics"
	"github.com/undertone-fl/undertone/server/refusal"
)

// process plays test jobs with the servers' code in this process.
type process struct{ d *design }

func (p process) atOnce() int { return runtime.GOMAXPROCS(0) }
func (p process) how() string { return "in process: " + p.d.program() }

func (p process) begin(ctx context.Context, _ int) (testJob, error) {
	j := &processJob{d: p.d, replica: &replica{machine: rounds.NewMachine()}}
	j.ingest = ingest.New(j.replica, ingest.Config{
		Limit: math.MaxInt64, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Metrics: measured, Tracer: noop.NewTracerProvider().Tracer(""),
	})
	for _, c := range []rounds.Command{
		rounds.CreateJob{Spec: jobs.Encode(p.d.spec), State: rounds.BlobOf(p.d.start)},
		rounds.Run{Job: p.d.spec.Job},
	} {
		if _, err := j.replica.Propose(ctx, c); err != nil {
			j.end()
			return nil, err
		}
	}
	return j, nil
}

// measured has no reader: a server's metrics are of no use here.
var measured = metrics.New()

// processJob is a job whose rounds succeed at the first attempt.
type processJob struct {
	d       *design
	replica *replica
	ingest  *ingest.Ingest
	at      ingest.Key
	before  rounds.Blob // the state that the round begins with
}

func (j *processJob) collect(ctx context.Context, round int) (attempt int, err error) {
	j.at = ingest.Key{Job: j.d.spec.Job, Round: round, Attempt: 1}
	_, err = j.replica.Propose(ctx, rounds.OpenRound{Job: j.at.Job, Round: round, Attempt: 1})
	j.before = j.replica.job(j.at.Job).Latest
	return 1, err
}

func (j *processJob) submit(ctx context.Context, client int, payload []byte) error {
	_, err := j.ingest.Submit(ctx, ingest.Header{
		Key: j.at, Client: rounds.ClientOf(fmt.Sprintf("canary-%d", client)),
		State: j.before.Digest, Checksum: crc32.Checksum(payload, castagnoli),
	}, payload)
	var refused *refusal.Error
	if errors.As(err, &refused) && refused.Reason == undertonev1.Reason_REASON_OUT_OF_RANGE {
		return errRefused
	}
	return err
}

// release follows the last contribution, which closed the round: the job's rounds are
// that large.
func (j *processJob) release(ctx context.Context) ([]byte, error) {
	var sum []int64
	j.replica.View(func(m *rounds.Machine, _ uint64) { sum = m.Sum(j.at.Job) })
	next, err := jobs.Advance(j.d.spec, j.at.Round, j.before.Bytes, sum, j.d.spec.NMin)
	if err != nil {
		return nil, err
	}
	_, err = j.replica.Propose(ctx, rounds.ReleaseRound{Job: j.at.Job, Round: j.at.Round, Attempt: j.at.Attempt, State: rounds.BlobOf(next)})
	return j.replica.job(j.at.Job).Latest.Bytes, err
}

func (j *processJob) end() { j.ingest.Drain(context.Background()) }

// replica is the replicated state machine on one node, for server/ingest.
type replica struct {
	mu      sync.Mutex
	machine *rounds.Machine
	index   uint64
}

func (r *replica) Propose(_ context.Context, c rounds.Command) (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index++
	_, err := r.machine.Apply(c)
	return r.index, err
}

func (r *replica) StageBlob(_ context.Context, _ string, _, _ int, b []byte) (rounds.Blob, error) {
	return rounds.BlobOf(b), nil
}

func (r *replica) View(f func(m *rounds.Machine, index uint64)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.machine, r.index)
}

func (r *replica) WaitIndex(context.Context, uint64) error { return nil }

// job returns the test job as it stands.
func (r *replica) job(name string) (view rounds.JobView) {
	r.View(func(m *rounds.Machine, _ uint64) { view, _ = m.Job(name) })
	return view
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
