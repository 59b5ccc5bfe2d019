package simulations

import (
	"context"
	"errors"
	"fmt"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/simulations/population"
)

// unit is one method at one epsilon with one seed: a row of Result.Runs.
type unit struct {
	cfg     *Config
	pop     population.Population
	method  string
	epsilon Epsilon
	seed    uint64
	plan    *plan // nil for a method that releases nothing
	cohort  *cohort
}

// progressState is where a unit stands: what a checkpoint holds.
type progressState struct {
	State  *lowrank.State `json:"state"`
	Rounds []Round        `json:"rounds"`
}

// run performs the unit from where at stands, nil for the beginning, and
// passes every state reached to keep. It returns ctx's error when cancelled.
func (u *unit) run(ctx context.Context, at *progressState, keep func(progressState) error) (Run, error) {
	out := Run{Method: u.method, Epsilon: u.epsilon, Seed: u.seed}
	if u.plan == nil {
		metrics, users, err := u.cohort.baseline(ctx, u)
		if err != nil {
			return out, err
		}
		out.Rounds, out.Users = []Round{{Phase: "solve", Metrics: metrics}}, users
		return out, nil
	}
	p := u.plan
	var err error
	var filter accounting.Filter
	if u.epsilon.Private() {
		if filter.Budget, err = accounting.GaussianBudget(float64(u.epsilon), u.cfg.Delta); err != nil {
			return out, err
		}
	}
	state := p.Start()
	if at != nil {
		state, out.Rounds = at.State, at.Rounds
		for step := range state.Step {
			charge, _ := p.charge(step)
			if err := filter.Reserve(charge); err != nil {
				return out, err
			}
		}
	}
	updates := 0
	for _, r := range out.Rounds {
		updates = max(updates, r.Round)
	}
	for {
		phase, more := state.Phase()
		if !u.epsilon.Private() && updates > 0 && u.cfg.Rounds == 0 && state.Change < converged {
			more = false
		}
		if !more {
			break
		}
		// Reserved before any client is asked; refused when it does not fit.
		charge, multiplier := p.charge(state.Step)
		if u.epsilon.Private() {
			if err := filter.Reserve(charge); err != nil {
				return out, err
			}
		}
		pass, err := u.cohort.collect(ctx, u, p, state, phase.Kind)
		if err != nil {
			return out, err
		}
		// The pass solved every user under the state it started from, so it
		// measured that state too.
		if pass.measured {
			out.Rounds[len(out.Rounds)-1].Metrics = pass.metrics
		}
		state, err = state.Advance(pass.sum, pass.sd)
		if errors.Is(err, lowrank.ErrNotFinite) {
			return out, fmt.Errorf("%s at epsilon %v, seed %d: %w", u.method, u.epsilon, u.seed, err)
		}
		if err != nil {
			return out, err
		}
		round := Round{Phase: string(phase.Kind), Clip: p.Layout(phase.Kind).Bound(), NoiseMultiplier: multiplier}
		if phase.Kind == lowrank.Refine {
			updates++
		}
		round.Round = updates
		if u.epsilon.Private() {
			if round.EpsilonSpent, err = filter.Spent().GaussianEpsilon(u.cfg.Delta); err != nil {
				return out, err
			}
		}
		out.Rounds = append(out.Rounds, round)
		if err := keep(progressState{state, out.Rounds}); err != nil {
			return out, err
		}
	}
	metrics, users, err := u.cohort.measure(ctx, u, p, state)
	if err != nil {
		return out, err
	}
	out.Rounds[len(out.Rounds)-1].Metrics = metrics
	out.Users = users
	if u.epsilon.Private() {
		if out.EpsilonReplaceOne, err = u.replaceOne(filter.Spent()); err != nil {
			return out, err
		}
	}
	return out, nil
}

// replaceOne is the epsilon that a charge costs under replace-one adjacency,
// where the sensitivity is twice that of zero-out, and rho four times.
func (u *unit) replaceOne(spent accounting.NanoRho) (epsilon float64, err error) {
	if u.cfg.Adjacency == dp.ZeroOut.String() {
		for range 2 {
			if spent, err = spent.Add(spent); err != nil {
				return 0, err
			}
		}
	}
	return spent.GaussianEpsilon(u.cfg.Delta)
}
