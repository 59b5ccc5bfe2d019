// Package simulations runs the method on simulated populations, side by side
// with its baselines, and measures what personalization gains and what
// privacy costs.
//
// Everything a run does to learn, it does through the packages that a
// deployment uses: client computes contributions, dp encodes and noises them,
// aggregation adds them up and takes the next step. Only the users, and the
// seeds that make a run repeatable, are simulated.
package simulations

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/undertone-fl/undertone/simulations/cluster"
	"github.com/undertone-fl/undertone/simulations/population"
	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// Options say how an experiment runs; they do not change its result.
type Options struct {
	// Workers is the number of goroutines that clients are computed on; 0 is
	// GOMAXPROCS.
	Workers int
	// Dir keeps a journal of finished runs and a checkpoint of the current
	// one, until RemoveJournal; empty keeps nothing.
	Dir string
	// Resume goes on from what Dir holds. The configuration must be the same.
	Resume bool
	// Cluster computes the rounds of every run under a budget, with real clients;
	// nil: this process does. It keeps no checkpoint of a run.
	Cluster *cluster.Cluster
	// Progress is told of work done, from one goroutine at a time.
	Progress func(Progress)
}

// Progress of an experiment, in client-rounds (one client computing once).
type Progress struct {
	Done, Total int64
	// Stage is what is being computed: "amht-lrs, epsilon 1, seed 2 of 5".
	Stage string
}

// Errors of Simulate that are the caller's to mend.
var (
	// ErrNothingToResume says that Options.Dir holds no journal.
	ErrNothingToResume = errors.New("nothing to resume")
	// ErrOtherExperiment says that the journal in Options.Dir is of another
	// Config.
	ErrOtherExperiment = errors.New("the journal is of another experiment")
	// ErrUnfinished says that Options.Dir holds the journal of an experiment
	// that was stopped, and that Options.Resume does not ask to go on with it.
	ErrUnfinished = errors.New("the journal is of an experiment that was stopped")
	// ErrInUse says that another process works in Options.Dir.
	ErrInUse = errors.New("another process is at work here")
)

// Simulate performs the experiment. When ctx is cancelled it returns what is
// complete, with Interrupted set, and no error. A Config that cannot run is a
// *FieldError, a file that cannot be read a *population.RowError or an error
// of package os; both before anything is computed.
func Simulate(ctx context.Context, cfg Config, opts Options) (*Result, error) {
	first, err := open(&cfg, cfg.Seed)
	if err != nil {
		return nil, err
	}
	todo, err := units(&cfg, first)
	if err != nil {
		return nil, err
	}
	book, err := openJournal(&cfg, opts)
	if err != nil {
		return nil, err
	}
	defer book.close()
	result := &Result{Version: ResultVersion, Config: cfg}
	meter := newMeter(todo, first.Len(), opts)
	people := &cohort{workers: opts.Workers, report: meter.add}
	var deployed *service
	if opts.Cluster != nil {
		if deployed, err = newService(opts.Cluster, people, first.Len()); err != nil {
			return nil, err
		}
		defer deployed.close()
	}
	pop, popSeed := first, cfg.Seed
	for i, u := range todo {
		if ctx.Err() != nil {
			result.Interrupted = true
			break
		}
		if run, ok := book.finished(u); ok {
			result.Runs = append(result.Runs, run)
			meter.skip(u)
			continue
		}
		if u.seed != popSeed {
			if pop, err = open(&cfg, u.seed); err != nil {
				return nil, err
			}
			popSeed = u.seed
		}
		u.pop, u.cohort = pop, people
		meter.begin(u)
		start := time.Now()
		at, spent := book.checkpoint(i, u)
		if deployed != nil && u.plan != nil && u.epsilon.Private() {
			u.service, at = deployed, nil // its job begins at the beginning
		}
		run, err := u.run(ctx, at, func(p progressState) error {
			if u.service != nil {
				return nil
			}
			return book.save(i, p, spent+time.Since(start))
		})
		if err != nil && ctx.Err() != nil {
			result.Interrupted = true
			break
		}
		if err != nil {
			return nil, err
		}
		run.Seconds = (spent + time.Since(start)).Seconds()
		result.Runs = append(result.Runs, run)
		meter.end(u)
		if err := book.append(run); err != nil {
			return nil, err
		}
	}
	result.Summary = summarise(&cfg, result.Runs)
	result.Timing = timing(result.Runs, first.Len())
	return result, nil
}

// timing adds up the finished runs, whichever process computed them. Every
// round is a pass over the clients, and so is the measurement at the end.
func timing(runs []Run, clients int) Timing {
	t := Timing{PeakRSSBytes: peakRSS()}
	passes := 0
	for _, r := range runs {
		t.Seconds += r.Seconds
		passes += len(r.Rounds)
		if !releasesNothing(r.Method) {
			passes++
		}
	}
	if t.Seconds > 0 {
		t.ClientRoundsPerSecond = float64(passes) * float64(clients) / t.Seconds
	}
	return t
}

// open makes the population of a seed.
func open(cfg *Config, seed uint64) (population.Population, error) {
	if err := cfg.Validate(0); err != nil {
		return nil, err
	}
	if cfg.Synthetic != nil {
		return population.NewSynthetic(*cfg.Synthetic, seed)
	}
	return population.OpenCSV(*cfg.Data, seed)
}

// units lists the runs in the order in which they are performed, once it is
// known that each can be paid for.
func units(cfg *Config, pop population.Population) ([]*unit, error) {
	if err := cfg.Validate(pop.Len()); err != nil {
		return nil, err
	}
	if err := cfg.ValidateDim(pop.Dim()); err != nil {
		return nil, err
	}
	var one []*unit // of the first seed; plans depend on no seed
	for _, method := range cfg.Methods {
		if releasesNothing(method) {
			one = append(one, &unit{cfg: cfg, method: method, epsilon: Epsilon(math.Inf(1))})
			continue
		}
		for _, e := range cfg.Epsilons {
			p, err := schedule(cfg, method, e, pop.Dim(), pop.Len())
			if err != nil {
				return nil, err
			}
			one = append(one, &unit{cfg: cfg, method: method, epsilon: e, plan: p})
		}
	}
	var out []*unit
	for s := range cfg.Seeds {
		for _, u := range one {
			copied := *u
			copied.seed = cfg.Seed + uint64(s)
			out = append(out, &copied)
		}
	}
	return out, nil
}

func releasesNothing(method string) bool { return method == Local || method == Oracle }

// noiseSeed is the seed of everything random in the unit but the users: its
// rounding and its simulated noise.
func (u *unit) noiseSeed() uint64 {
	h := u.seed*0x9e3779b97f4a7c15 + math.Float64bits(float64(u.epsilon))
	for _, c := range []byte(u.method) {
		h = (h ^ uint64(c)) * 0x100000001b3
	}
	return h
}

// summarise gives every method's last metrics as means over the seeds that
// are complete.
func summarise(cfg *Config, runs []Run) []Summary {
	var out []Summary
	for _, method := range cfg.Methods {
		for _, e := range cfg.Epsilons {
			values := map[string][]float64{}
			for _, r := range runs {
				if r.Method == method && (r.Epsilon == e || releasesNothing(method)) {
					for name, v := range r.Rounds[len(r.Rounds)-1].Metrics {
						values[name] = append(values[name], v)
					}
				}
			}
			for _, name := range []string{RelativeError, SubspaceDistance, MSE, RMSE, ExplainedVariance} {
				v := values[name]
				if len(v) == 0 {
					continue
				}
				s := Summary{Method: method, Epsilon: e, Metric: name}
				var deviation float64
				s.Mean, deviation = stat.MeanStdDev(v, nil)
				if n := float64(len(v)); n > 1 {
					t := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: n - 1}.Quantile(0.975)
					s.CI95 = t * deviation / math.Sqrt(n)
				}
				out = append(out, s)
			}
		}
	}
	return out
}
