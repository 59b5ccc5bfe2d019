package benchmark

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/simulations/cluster"
)

// updates measures acknowledged contributions a second beside empty calls. A
// client contributes once a round, so there are many clients, and many jobs that
// each of them takes part in.
func updates(ctx context.Context, r *run) ([]Row, error) {
	clients, tasks, turn := 600, 40, 2*time.Second
	if r.Short {
		clients, tasks, turn = 32, 8, 200*time.Millisecond
	}
	c, err := r.cluster(ctx, 3)
	if err != nil {
		return nil, err
	}
	defer c.Stop()
	var open []*job
	for i := range tasks {
		j, err := create(ctx, c, small, terms(fmt.Sprintf("job-%d", i), clients), 0)
		if err != nil {
			return nil, err
		}
		open = append(open, j)
	}
	crowd, err := participants(c, clients)
	if err != nil {
		return nil, err
	}
	defer disconnect(crowd)
	ref, err := newReference(c, r.Reference, clients)
	if err != nil {
		return nil, err
	}
	defer ref.close()

	var measured, reference []float64
	// The first round, another kind of release, also warms up.
	for round := 1; round <= small.Rounds+1; round++ {
		rate, err := submitAll(ctx, c, open, crowd, round)
		if err != nil {
			return nil, err
		}
		calls, err := ref.calls(ctx, turn)
		if err != nil {
			return nil, err
		}
		if round > 1 {
			measured, reference = append(measured, rate), append(reference, calls)
		}
	}
	row := ratio("acknowledged updates, d x r = 150", "1/s", measured, reference, 0.4)
	row.Detail = fmt.Sprintf("%d clients, %d coordinates; %s", clients, open[0].spec.Releases[1].Length, row.Detail)
	return []Row{row}, nil
}

// submitAll has every client contribute to a round of every job, and returns the
// rate of acknowledgements.
func submitAll(ctx context.Context, c *cluster.Cluster, open []*job, crowd []*participant, round int) (perSecond float64, err error) {
	requests := make([]*undertonev1.SubmitRequest, len(open))
	payload := open[0].payload(round)
	for i, j := range open {
		header, err := j.await(ctx, c, round)
		if err != nil {
			return 0, err
		}
		requests[i] = request(header, payload)
	}
	var g errgroup.Group
	begin := time.Now()
	for _, p := range crowd {
		g.Go(func() error {
			for i := range open {
				if _, err := p.Submit(ctx, requests[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = g.Wait()
	return float64(len(crowd)*len(open)) / seconds(time.Since(begin)), err
}

// bulk measures contributions of 10 MiB beside streams that nobody reads.
func bulk(ctx context.Context, r *run) ([]Row, error) {
	clients, turns := 16, 5
	large := jobs.Parameters{Config: lowrank.Config{Dim: 1 << 17, Rank: 16, Sketch: 16, Rounds: 1,
		Features: lowrank.Standard, Update: lowrank.Gradient}}
	if r.Short {
		clients, turns, large.Dim = 2, 1, 1<<12
	}
	c, err := r.cluster(ctx, 1)
	if err != nil {
		return nil, err
	}
	defer c.Stop()
	crowd, err := participants(c, clients)
	if err != nil {
		return nil, err
	}
	defer disconnect(crowd)
	ref, err := newReference(c, r.Reference, clients)
	if err != nil {
		return nil, err
	}
	defer ref.close()

	var measured, reference []float64
	size := 0
	for turn := range turns + 1 {
		// One round of a job of its own: its contribution is the size it is.
		j, err := create(ctx, c, large, terms(fmt.Sprintf("job-%d", turn), clients), 1)
		if err != nil {
			return nil, err
		}
		header, err := j.await(ctx, c, 1)
		if err != nil {
			return nil, err
		}
		sent := request(header, j.payload(1))
		size = len(sent.Payload)
		var g errgroup.Group
		begin := time.Now()
		for _, p := range crowd {
			g.Go(func() error { return p.submitLarge(ctx, sent) })
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
		rate := float64(size*clients) / seconds(time.Since(begin))
		// The release computes on: not beside the next measurement.
		if _, err := j.await(ctx, c, 2); err != nil {
			return nil, err
		}
		streamed, err := ref.stream(ctx, size)
		if err != nil {
			return nil, err
		}
		if turn > 0 {
			measured, reference = append(measured, rate/1e6), append(reference, streamed/1e6)
		}
	}
	row := ratio("updates of 10 MiB, one node", "MB/s", measured, reference, 0.5)
	row.Detail = fmt.Sprintf("%d clients at once, %.1f MiB each; %s", clients, float64(size)/(1<<20), row.Detail)
	return []Row{row}, nil
}
