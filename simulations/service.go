package simulations

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp/noise"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/simulations/cluster"
	"github.com/undertone-fl/undertone/simulations/population"
)

// service computes a unit's rounds as a deployment does: its job runs on the
// cluster's servers, and every client is a device with a certificate, a directory
// and a record of its own. Only the noise is seeded. Integer sums do not depend
// on their order, so the states released are, bit for bit, those of a cohort;
// but for central trust, where the servers draw the noise, and no seed reaches
// them.
type service struct {
	cluster *cluster.Cluster
	cohort  *cohort // measures; and counts what is done
	dir     string  // of the devices
	bearers []*identity.Bearer
	library *client.Library
}

// concurrent is how many devices sync at a time: each waits, for the most part,
// until its contribution is committed.
const concurrent = 64

// patience is how long a device goes on trying to take part in a round that is
// open.
const patience = 5 * time.Minute

func newService(c *cluster.Cluster, measures *cohort, clients int) (*service, error) {
	dir, err := os.MkdirTemp("", "undertone-devices-")
	if err != nil {
		return nil, err
	}
	s := &service{cluster: c, cohort: measures, dir: dir}
	if s.library, err = client.OpenLibrary(filepath.Join(dir, "library")); err != nil {
		s.close()
		return nil, err
	}
	for i := range clients {
		b, err := c.Bearer(identity.Client, fmt.Sprintf("client-%d", i))
		if err != nil {
			s.close()
			return nil, err
		}
		s.bearers = append(s.bearers, b)
	}
	return s, nil
}

func (s *service) close() { os.RemoveAll(s.dir) }

// advance has every device take part in the round that follows a state, and
// returns what the servers released.
func (s *service) advance(ctx context.Context, u *unit, state *lowrank.State, kind lowrank.Kind) (*lowrank.State, *pass, error) {
	spec := *u.plan.spec
	spec.Job = u.job()
	round := state.Step + 1
	if round == 1 {
		if err := s.cluster.CreateJob(ctx, &spec, 0); err != nil {
			return nil, nil, err
		}
	}
	out := &pass{measured: kind == lowrank.Refine}
	if out.measured {
		var err error
		if out.metrics, _, err = s.cohort.measure(ctx, u, u.plan, state); err != nil {
			return nil, nil, err
		}
	}
	if _, _, err := s.cluster.AwaitRound(ctx, spec.Job, round); err != nil {
		return nil, nil, err
	}
	devices := &cohort{workers: concurrent, report: s.cohort.report}
	_, err := devices.each(ctx, u.pop.Len(),
		func(*worker) error { return nil },
		func(w *worker, i int, _ *tally) error { return s.sync(ctx, u, spec.Job, round, i, &w.train) },
		func(*worker) error { return nil })
	if err != nil {
		return nil, nil, err
	}
	if _, _, err := s.cluster.AwaitRound(ctx, spec.Job, round+1); err != nil {
		return nil, nil, err
	}
	version, released, err := s.cluster.State(ctx, spec.Job)
	if err != nil {
		return nil, nil, err
	}
	if version != round {
		return nil, nil, fmt.Errorf("%s: version %d after round %d", spec.Job, version, round)
	}
	next, err := jobs.State(&spec, version, released)
	return next, out, err
}

// sync is one device's part in a round.
func (s *service) sync(ctx context.Context, u *unit, job string, round, i int, train *population.Samples) error {
	device, err := client.Open(client.Config{
		Dir:     filepath.Join(s.dir, job, fmt.Sprint(i)),
		Servers: rotated(s.cluster.Servers(), i), Bearer: s.bearers[i], Jobs: []string{job}, Library: s.library,
		Trust: []rounds.Trust{rounds.Trust(u.cfg.Trust)},
		Cap:   client.Cap{Epsilon: float64(u.epsilon), Delta: u.cfg.Delta},
		Samples: func(string, int) (local.Samples, error) {
			u.pop.Train(i, train)
			return *train, nil
		},
		Seeded: func(_ string, round, attempt int) *noise.Seeded {
			if attempt == 1 {
				return noise.NewSeeded(u.noiseSeed(), uint64(round-1), uint64(i))
			}
			return noise.NewSeeded(u.noiseSeed(), uint64(round-1), uint64(i), uint64(attempt))
		},
	})
	if err != nil {
		return err
	}
	defer device.Close()
	// A node may not have heard yet that the round is open.
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		summary, err := device.Sync(ctx)
		if err != nil {
			return fmt.Errorf("client %d: %w", i, err)
		}
		for _, j := range summary.Jobs {
			if j.Round == round && j.Outcome == client.Contributed {
				return nil
			}
			if j.Err != nil {
				return fmt.Errorf("client %d: %w", i, j.Err)
			}
			if j.Round == round && j.Outcome != "" {
				return fmt.Errorf("client %d is not in round %d of %s: %s", i, round, job, j.Outcome)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("client %d took no part in round %d of %s", i, round, job)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// job is the unit's name on the servers.
func (u *unit) job() string {
	return fmt.Sprintf("simulation-%x-%d", u.noiseSeed(), u.seed)
}

// rotated begins the list at another place for each client.
func rotated(list []string, by int) []string {
	by %= len(list)
	return append(append([]string(nil), list[by:]...), list[:by]...)
}
