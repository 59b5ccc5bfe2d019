package canary

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math"
	"sync"

	"go.opentelemetry.io/otel/trace/noop"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp/noise"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/server/ingest"
	"github.com/undertone-fl/undertone/server/metrics"
	"github.com/undertone-fl/undertone/server/refusal"
)

// device is a device's encoding: local.Mechanism.
type device interface {
	Encode(dst []int64, x []float64) error
}

// wiring is what a test breaks on purpose. Its zero value is what devices do.
type wiring struct {
	source func(d *design, job, round, client int) noise.Source
	device func(m *local.Mechanism, d *design, round, client int, src noise.Source) (device, error)
}

// sourceOf is a device's source of randomness for a round.
func (d *design) sourceOf(job, round, client int) noise.Source {
	switch {
	case d.wiring.source != nil:
		return d.wiring.source(d, job, round, client)
	case d.Seed != nil:
		return noise.NewSeeded(*d.Seed, uint64(job), uint64(round), uint64(client))
	}
	return noise.NewSecret()
}

func (d *design) deviceOf(m *local.Mechanism, round, client int, src noise.Source) (device, error) {
	if d.wiring.device != nil {
		return d.wiring.device(m, d, round, client, src)
	}
	return m.With(src), nil
}

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

// observed is what one test job gave.
type observed struct {
	sign []float64 // of each canary, 1 or -1
	// noise[round][view] is what was seen, less what was sent, over the noise that
	// is claimed.
	noise [][][]float64
	// silent[round] is the silent coordinates of the release, in lattice units; nil
	// with TrustLocal.
	silent [][]int64
	// prints of the noise in each contribution; nil with TrustCentral, where they
	// have none.
	prints []print
}

// print identifies the noise in the silent coordinates of a contribution.
type print [16]byte

// errRefused says that the servers refused a canary as no honest contribution.
var errRefused = errors.New("a contribution was refused as out of range")

// run performs a test job. Fails with errRefused.
func (d *design) run(ctx context.Context, number int, mechanisms []*local.Mechanism) (*observed, error) {
	node := &replica{machine: rounds.NewMachine()}
	in := ingest.New(node, ingest.Config{
		Limit: math.MaxInt64, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Metrics: measured, Tracer: noop.NewTracerProvider().Tracer(""),
	})
	defer in.Drain(ctx)
	for _, c := range []rounds.Command{
		rounds.CreateJob{Spec: d.raw, State: rounds.BlobOf(d.start)},
		rounds.Run{Job: d.spec.Job},
	} {
		if _, err := node.Propose(ctx, c); err != nil {
			return nil, err
		}
	}
	out := &observed{sign: d.signs(number)}
	for round := range d.spec.Releases {
		if err := d.round(ctx, number, round, node, in, mechanisms[round], out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// measured has no reader: a server's metrics are of no use here.
var measured = metrics.New()

// signs are the coins of a test job.
func (d *design) signs(job int) []float64 {
	var src noise.Source = noise.NewSecret()
	if d.Seed != nil {
		src = noise.NewSeeded(*d.Seed, uint64(job))
	}
	out := make([]float64, d.canaries)
	for i := range out {
		out[i] = 1 - 2*float64(src.Uint64()>>63)
	}
	return out
}

// mostInflight bounds the memory that contributions take at a time.
const mostInflight = 1024

// round performs a round, counted from 0.
func (d *design) round(ctx context.Context, job, round int, node *replica, in *ingest.Ingest, mechanism *local.Mechanism, out *observed) error {
	at := ingest.Key{Job: d.spec.Job, Round: round + 1, Attempt: 1}
	if _, err := node.Propose(ctx, rounds.OpenRound{Job: at.Job, Round: at.Round, Attempt: at.Attempt}); err != nil {
		return err
	}
	before := node.job(at.Job).Latest
	release := &d.spec.Releases[round]
	var views [][]float64
	x, z := make([]float64, release.Length), make([]int64, release.Length)
	outcomes := make(chan error, d.spec.NMin)
	inflight := make(chan struct{}, mostInflight)
	for client := range d.spec.NMin {
		clear(x)
		if client < d.canaries {
			x[client] = out.sign[client] * alternate(round) * math.Ldexp(float64(release.Bound), -int(d.spec.Lattice.ScaleBits))
			if d.loud(job, client) {
				x[client] *= loudness
			}
		}
		dev, err := d.deviceOf(mechanism, round, client, d.sourceOf(job, round, client))
		if err != nil {
			return err
		}
		if err := dev.Encode(z, x); err != nil {
			return err
		}
		switch d.spec.Trust {
		case rounds.TrustLocal:
			views = append(views, d.residual(z, round, client, client+1, out.sign))
			fallthrough
		case rounds.TrustDistributed:
			out.prints = append(out.prints, printOf(z[d.canaries:]))
		}
		payload := aggregation.Pack(nil, z, d.spec.Width())
		header := ingest.Header{
			Key: at, Client: rounds.ClientOf(fmt.Sprintf("canary-%d", client)),
			State: before.Digest, Checksum: crc32.Checksum(payload, castagnoli),
		}
		// A submission returns when its batch is committed: they go side by side.
		inflight <- struct{}{}
		go func() {
			_, err := in.Submit(ctx, header, payload)
			outcomes <- err
			<-inflight
		}()
	}
	var failed error
	for range d.spec.NMin {
		failed = errors.Join(failed, <-outcomes)
	}
	var refused *refusal.Error
	if errors.As(failed, &refused) && refused.Reason == undertonev1.Reason_REASON_OUT_OF_RANGE {
		return errRefused
	}
	if failed != nil {
		return failed
	}
	// The last contribution has closed the round: the job's rounds are that large.
	var sum []int64
	node.View(func(m *rounds.Machine, _ uint64) { sum = m.Sum(at.Job) })
	next, err := jobs.Advance(d.spec, at.Round, before.Bytes, sum, d.spec.NMin)
	if err != nil {
		return err
	}
	if _, err := node.Propose(ctx, rounds.ReleaseRound{Job: at.Job, Round: at.Round, Attempt: at.Attempt, State: rounds.BlobOf(next)}); err != nil {
		return err
	}
	if d.spec.Trust != rounds.TrustLocal {
		released, err := jobs.CanarySum(d.spec, at.Round, node.job(at.Job).Latest.Bytes)
		if err != nil {
			return err
		}
		for i, v := range released { // exact: a power of two
			z[i] = int64(math.Ldexp(v, int(d.spec.Lattice.ScaleBits)))
		}
		views = [][]float64{d.residual(z, round, 0, d.canaries, out.sign)}
		out.silent = append(out.silent, append([]int64(nil), z[d.canaries:]...))
	}
	out.noise = append(out.noise, views)
	return nil
}

// residual takes the canaries from first to before last out of what was seen in a
// round, and divides by the noise that is claimed.
func (d *design) residual(seen []int64, round, first, last int, sign []float64) []float64 {
	out := make([]float64, len(seen))
	for j, v := range seen {
		out[j] = float64(v)
		if j >= first && j < last {
			out[j] -= sign[j] * alternate(round) * d.target[round]
		}
		out[j] /= d.sigma[round]
	}
	return out
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func printOf(z []int64) print {
	b := make([]byte, 0, 8*silent)
	for _, v := range z {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	sum := sha256.Sum256(b)
	return print(sum[:])
}
