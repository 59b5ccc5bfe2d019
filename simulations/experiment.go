// Package simulations runs the method on simulated populations, side by side
// with its baselines, and measures what personalization gains and what
// privacy costs.
package simulations

import (
	"context"
	"errors"
)

// Options say how an experiment runs; they do not change its result.
type Options struct {
	// Workers is the number of goroutines that clients are computed on; 0 is
	// GOMAXPROCS.
	Workers int
	// Dir keeps a journal of finished runs and a checkpoint of the current
	// one; empty keeps nothing.
	Dir string
	// Resume goes on from what Dir holds. The configuration must be the same.
	Resume bool
	// Progress is told of work done, from one goroutine at a time.
	Progress func(Progress)
}

// Progress of an experiment, in client-rounds (one client computing once).
type Progress struct {
	Done, Total int64
	// Stage is what is being computed: "amht-lrs, epsilon 1, seed 2 of 5".
	Stage string
}

// ErrNothingToResume says that Options.Dir holds no journal.
var ErrNothingToResume = errors.New("nothing to resume")

// ErrOtherExperiment says that the journal in Options.Dir is of another Config.
var ErrOtherExperiment = errors.New("the journal is of another experiment")

// Simulate performs the experiment. When ctx is cancelled it returns what is
// complete, with Interrupted set, and no error.
func Simulate(ctx context.Context, cfg Config, opts Options) (*Result, error) {
	return nil, errors.New("not built")
}
