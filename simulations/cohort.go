package simulations

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp/noise"
	"github.com/undertone-fl/undertone/simulations/population"
)

// cohort computes clients on a number of goroutines. A pass over the clients
// is a map and a sum: contributions are integers, whose sum does not depend
// on the order, and float metrics are summed client by client within blocks
// of fixed size, and the blocks in order, so neither depends on the number of
// workers.
type cohort struct {
	workers int
	report  func(done int64)
}

// block is how many clients a worker takes at a time.
const block = 128

// worker is one goroutine's storage.
type worker struct {
	contributor local.Contributor
	train, test population.Samples
	vector      []float64
	encoded     []int64
	sum         *aggregation.Accumulator
	source      *noise.Seeded
	mechanism   *local.Mechanism
	theta       []float64
	support     []int32
	local       ridge
}

// each calls f for every client, and finish for every worker, in turn, once
// all are done. Each call of f gets the tally of the client's block. The
// tallies come back in order.
func (c *cohort) each(ctx context.Context, clients int, start func(*worker) error, f func(*worker, int, *tally) error, finish func(*worker) error) ([]tally, error) {
	tallies := make([]tally, (clients+block-1)/block)
	n := c.workers
	if n == 0 {
		n = runtime.GOMAXPROCS(0)
	}
	n = min(n, len(tallies))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	workers := make([]worker, n)
	var next, done atomic.Int64
	var wait sync.WaitGroup
	for i := range workers {
		w := &workers[i]
		wait.Go(func() {
			// A panic here would end the program past every caller's defer: it
			// is carried to the caller instead.
			defer func() {
				if r := recover(); r != nil {
					cancel(&panicked{r, debug.Stack()})
				}
			}()
			if err := start(w); err != nil {
				cancel(err)
				return
			}
			for ctx.Err() == nil {
				b := int(next.Add(1) - 1)
				if b >= len(tallies) {
					return
				}
				last := min((b+1)*block, clients)
				for k := b * block; k < last; k++ {
					if err := f(w, k, &tallies[b]); err != nil {
						cancel(err)
						return
					}
				}
				done.Add(int64(last - b*block))
			}
		})
	}
	finished := make(chan struct{})
	go func() { wait.Wait(); close(finished) }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	reported := int64(0)
	for running := true; running; {
		select {
		case <-finished:
			running = false
		case <-tick.C:
		}
		if d := done.Load(); c.report != nil && d > reported {
			c.report(d - reported)
			reported = d
		}
	}
	if ctx.Err() != nil {
		var p *panicked
		if errors.As(context.Cause(ctx), &p) {
			panic(p)
		}
		return nil, context.Cause(ctx)
	}
	for i := range workers {
		if err := finish(&workers[i]); err != nil {
			return nil, err
		}
	}
	return tallies, nil
}

// panicked is a worker's panic, and below what it said, where it happened.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("%v\n%s", p.value, p.stack) }

// pass is what one pass over the clients gave.
type pass struct {
	sum      []float64 // decoded
	sd       float64   // of the noise in each coordinate of sum
	measured bool
	metrics  map[string]float64
}

// collect asks every client for its contribution to the release that comes
// next, and sums them.
func (c *cohort) collect(ctx context.Context, u *unit, p *plan, state *lowrank.State, kind lowrank.Kind) (*pass, error) {
	clients := u.pop.Len()
	layout := p.Layout(kind)
	n := layout.Len()
	out := &pass{measured: kind == lowrank.Refine}
	var sigma noise.Sigma // zero without privacy
	if p.spec != nil {
		sigma = p.spec.Releases[state.Step].Sigma
		out.sd = jobs.NoiseDeviation(p.spec, state.Step+1, clients)
	}
	bound, err := lattice.Bound(layout.Bound())
	if err != nil {
		return nil, err
	}
	mechanism, err := local.NewMechanism(lattice, bound, sigma, noise.NewSeeded(0))
	if err != nil {
		return nil, err
	}
	total := aggregation.NewAccumulator(n)
	tallies, err := c.each(ctx, clients,
		func(w *worker) error {
			p.equip(&w.contributor.Solver)
			w.vector, w.encoded = make([]float64, n), make([]int64, n)
			w.sum = aggregation.NewAccumulator(n)
			w.source = noise.NewSeeded(0)
			w.mechanism = mechanism.With(w.source)
			return nil
		},
		func(w *worker, i int, t *tally) error {
			u.pop.Train(i, &w.train)
			// A device that fails must not show it: its zeros are rounded and
			// noised like any contribution.
			err := w.contributor.Contribute(w.vector, state, w.train)
			failed := unusable(err)
			if err != nil && !failed {
				return err
			}
			w.source.Reset(u.noiseSeed(), uint64(state.Step), uint64(i))
			if err := w.mechanism.Encode(w.encoded, w.vector); err != nil {
				return err
			}
			if out.measured && len(w.train.Y) > 0 && !failed {
				u.measure(w, t, i, &state.Model, w.contributor.Solver.Fit())
			} else if out.measured {
				u.measure(w, t, i, &state.Model, nil)
			}
			return w.sum.Add(w.encoded)
		},
		func(w *worker) error { return total.Merge(w.sum) })
	if err != nil {
		return nil, err
	}
	sum, err := total.Release(u.cfg.nMin(clients))
	if err != nil {
		return nil, err
	}
	out.sum = make([]float64, n)
	lattice.Decode(out.sum, sum)
	if out.measured {
		out.metrics = u.metrics(tallies, &state.Model)
	}
	return out, nil
}

// unusable reports whether an error is about the user's samples, and so no
// reason for the round to fail: whether it does may not depend on one user.
func unusable(err error) bool {
	return errors.Is(err, local.ErrNotFinite) || errors.Is(err, local.ErrSamples)
}

// measure evaluates the last state, and records single users.
func (c *cohort) measure(ctx context.Context, u *unit, p *plan, state *lowrank.State) (map[string]float64, []UserError, error) {
	tallies, err := c.each(ctx, u.pop.Len(),
		func(w *worker) error {
			p.equip(&w.contributor.Solver)
			return nil
		},
		func(w *worker, i int, t *tally) error {
			u.pop.Train(i, &w.train)
			var fit *local.Fit
			if len(w.train.Y) > 0 {
				var err error
				if fit, err = w.contributor.Solver.Solve(&state.Model, w.train); err != nil && !unusable(err) {
					return err
				}
			}
			e := u.measure(w, t, i, &state.Model, fit)
			u.keep(t, i, len(w.train.Y), e)
			return nil
		},
		func(*worker) error { return nil })
	if err != nil {
		return nil, nil, err
	}
	return u.metrics(tallies, &state.Model), users(tallies), nil
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
