package canary

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp/noise"
)

// venue is where test jobs run: in this process, or on a cluster.
type venue interface {
	// begin returns a test job, counted from 0.
	begin(ctx context.Context, number int) (testJob, error)
	// atOnce is how many test jobs are best played side by side.
	atOnce() int
	// how says for a reader what is measured.
	how() string
}

// testJob is one that this program plays all the clients of.
type testJob interface {
	// collect returns once a round, counted from 1, collects, and its attempt.
	collect(ctx context.Context, round int) (attempt int, err error)
	// submit returns once a client's contribution is in the sum. Fails with errRefused,
	// or with errOver. For several goroutines.
	submit(ctx context.Context, client int, payload []byte) error
	// release returns the state that the round released. Fails with errFailed if there
	// is none, and another attempt follows.
	release(ctx context.Context) ([]byte, error)
	// end is called in any case.
	end()
}

var (
	// errRefused says that the servers refused a canary as no honest contribution.
	errRefused = errors.New("a contribution was refused as out of range")
	// errOver says that an attempt takes no more, without saying whether it failed.
	errOver = errors.New("the attempt is over")
	// errFailed says that an attempt failed.
	errFailed = errors.New("the attempt failed")
)

// device is a device's encoding: local.Mechanism.
type device interface {
	Encode(dst []int64, x []float64) error
}

// wiring is what a test breaks on purpose. Its zero value is what devices do.
type wiring struct {
	source func(d *design, job, round, client int) noise.Source
	device func(m *local.Mechanism, d *design, round, client int, src noise.Source) (device, error)
	claim  func(d *design) // instead of what the noise is charged
	// released changes the sum that servers released, given that of what was sent.
	released func(d *design, job, round int, sent, released []int64)
}

// sourceOf is a device's source of randomness for a round. Attempts are counted from
// 1; noise of one that failed is not used again.
func (d *design) sourceOf(job, round, attempt, client int) noise.Source {
	switch {
	case d.wiring.source != nil:
		return d.wiring.source(d, job, round, client)
	case d.Seed != nil:
		return noise.NewSeeded(*d.Seed, uint64(job), uint64(attempt-1)<<32|uint64(round), uint64(client))
	}
	return noise.NewSecret()
}

func (d *design) deviceOf(m *local.Mechanism, round, client int, src noise.Source) (device, error) {
	if d.wiring.device != nil {
		return d.wiring.device(m, d, round, client, src)
	}
	return m.With(src), nil
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
	// prints are of the noise in each contribution; with TrustCentral, where
	// contributions have none, of that in each release.
	prints []print
	// With TrustCentral what follows is empty.
	devices *devices // what contributions have of noise
	wrong   int      // how many releases are not the sum of what was sent
}

// print identifies the noise in some coordinates: the silent ones of a contribution, or any
// of a release.
type print [16]byte

// run performs a test job. Fails with errRefused.
func (d *design) run(ctx context.Context, v venue, number int, mechanisms []*local.Mechanism) (*observed, error) {
	job, err := v.begin(ctx, number)
	if err != nil {
		return nil, err
	}
	defer job.end()
	out := &observed{sign: d.signs(number)}
	for round := range d.spec.Releases {
		for {
			attempt, err := job.collect(ctx, round+1)
			if err != nil {
				return nil, err
			}
			if err = d.round(ctx, job, number, round, attempt, mechanisms[round], out); err == nil {
				break
			}
			if !errors.Is(err, errFailed) {
				return nil, err
			}
		}
	}
	return out, nil
}

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

// mostInflight bounds the memory that the contributions to a round take at a time.
const mostInflight = 1024

// sent is what the clients sent in an attempt.
type sent struct {
	sum     []int64
	views   [][]float64 // with TrustLocal, see observed.noise
	prints  []print
	devices *devices
}

// round performs an attempt at a round, counted from 0, and adds what it gave to out.
func (d *design) round(ctx context.Context, job testJob, number, round, attempt int, mechanism *local.Mechanism, out *observed) error {
	s, err := d.contribute(ctx, job, number, round, attempt, mechanism, out.sign)
	over := errors.Is(err, errOver)
	if err != nil && !over {
		return err
	}
	state, err := job.release(ctx)
	if err != nil {
		return err
	}
	if over { // it released all the same
		return fmt.Errorf("%w: it took fewer than %d of this program's contributions", ErrStrangers, d.spec.NMin)
	}
	released, err := jobs.CanarySum(d.spec, round+1, state)
	if err != nil {
		return err
	}
	seen := make([]int64, len(released))
	for i, v := range released { // exact: a power of two
		seen[i] = int64(math.Ldexp(v, int(d.spec.Lattice.ScaleBits)))
	}
	d.spec.Lattice.Reduce(s.sum)
	if d.wiring.released != nil {
		d.wiring.released(d, number, round, s.sum, seen)
	}
	if d.spec.Trust == rounds.TrustCentral {
		out.prints = append(out.prints, d.printsOf(seen, s.sum)...)
	} else {
		if !slices.Equal(seen, s.sum) {
			out.wrong++
		}
		out.prints = append(out.prints, s.prints...)
		out.devices = s.devices.plus(out.devices)
		if err := d.spread(number, round, attempt, mechanism, out.devices); err != nil {
			return err
		}
	}
	if d.spec.Trust != rounds.TrustLocal {
		s.views = [][]float64{d.residual(seen, round, 0, d.canaries, out.sign)}
		out.silent = append(out.silent, seen[d.canaries:])
	}
	out.noise = append(out.noise, s.views)
	return nil
}

// contribute makes all contributions to an attempt, and submits them.
func (d *design) contribute(ctx context.Context, job testJob, number, round, attempt int, mechanism *local.Mechanism, sign []float64) (*sent, error) {
	release := &d.spec.Releases[round]
	s := &sent{sum: make([]int64, release.Length)}
	if d.spec.Trust != rounds.TrustCentral {
		s.devices = d.newDevices()
	}
	x, z := make([]float64, release.Length), make([]int64, release.Length)
	// A submission returns when its batch is committed: they go side by side.
	group, inflight := errgroup.WithContext(ctx)
	group.SetLimit(mostInflight)
	encode := func() error {
		for client := range d.spec.NMin {
			if inflight.Err() != nil {
				return ctx.Err() // or the group has the reason
			}
			clear(x)
			if client < d.canaries {
				x[client] = sign[client] * alternate(round) * math.Ldexp(float64(release.Bound), -int(d.spec.Lattice.ScaleBits))
				if d.loud(number, client) {
					x[client] *= loudness
				}
			}
			dev, err := d.deviceOf(mechanism, round, client, d.sourceOf(number, round, attempt, client))
			if err != nil {
				return err
			}
			if err := dev.Encode(z, x); err != nil {
				return err
			}
			d.note(s, z, number, round, client, sign)
			payload := aggregation.Pack(nil, z, d.spec.Width())
			group.Go(func() error { return job.submit(inflight, client, payload) })
		}
		return nil
	}
	failed := encode()
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return s, failed
}

// spread has a device encode, for this audit alone, what is loud in all coordinates at once:
// where each is clipped by itself, that is clipped nowhere.
func (d *design) spread(job, round, attempt int, mechanism *local.Mechanism, to *devices) error {
	if d.leastShare() < leastShare {
		return nil
	}
	release, client := &d.spec.Releases[round], d.spec.NMin // one more than there are
	n := math.Sqrt(float64(release.Length))
	x, z := make([]float64, release.Length), make([]int64, release.Length)
	for i := range x {
		x[i] = loudness * math.Ldexp(float64(release.Bound), -int(d.spec.Lattice.ScaleBits)) / n
	}
	dev, err := d.deviceOf(mechanism, round, client, d.sourceOf(job, round, attempt, client))
	if err != nil {
		return err
	}
	if err := dev.Encode(z, x); err != nil {
		return err
	}
	sum := -d.target[round] * n
	for _, v := range z {
		sum += float64(v)
	}
	to.spread.add(sum / n / release.Sigma.Float64())
	return nil
}

// note keeps of a contribution what is looked at later.
func (d *design) note(s *sent, z []int64, job, round, client int, sign []float64) {
	for i, v := range z {
		s.sum[i] += v
	}
	if d.spec.Trust == rounds.TrustLocal && client < d.canaries {
		s.views = append(s.views, d.residual(z, round, client, client+1, sign))
	}
	if d.spec.Trust == rounds.TrustCentral {
		return
	}
	if share := d.spec.Releases[round].Sigma.Float64(); d.leastShare() >= leastShare {
		direction := 0.0
		if client < d.canaries {
			direction = sign[client] * alternate(round)
		}
		s.devices.add(z, client, share, d.target[round], direction, d.loud(job, client))
	}
	s.prints = append(s.prints, printOf(z[d.canaries:]))
}

func (d *design) newDevices() *devices {
	return newDevices(d.spec.NMin, d.canaries, d.spec.Releases[0].Length)
}

// leastShare is the least noise of a contribution, in lattice units.
func (d *design) leastShare() float64 {
	least := math.Inf(1)
	for _, r := range d.spec.Releases {
		least = min(least, r.Sigma.Float64())
	}
	return least
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

// printsOf are of the noise that servers added to a sum, in every coordinate: it is what
// was released less what was sent.
func (d *design) printsOf(released, sent []int64) (out []print) {
	noise := make([]int64, len(released))
	for i, v := range released {
		noise[i] = v - sent[i]
	}
	d.spec.Lattice.Reduce(noise)
	for at := len(noise) - silent; ; at = max(at-silent, 0) {
		if out = append(out, printOf(noise[at:])); at == 0 {
			return out
		}
	}
}

// printOf is of the first silent coordinates: enough that no two agree by chance.
func printOf(z []int64) print {
	b := make([]byte, 0, 8*silent)
	for _, v := range z[:silent] {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	sum := sha256.Sum256(b)
	return print(sum[:])
}
