package local

import (
	"math/rand/v2"
	"testing"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
)

// Users of the size at which the method is measured: m = d = 50, r = 3, k = 4.
const benchUsers = 64

func benchProblems() []problem {
	r := rand.New(rand.NewPCG(1, 1))
	w := newWorld(r, 50, 3, 0.1, 0.02)
	users := make([]problem, benchUsers)
	for i := range users {
		users[i] = w.user(r, 50, 4)
	}
	return users
}

// BenchmarkLocalStep is one user's fit of w and b, refinement included.
func BenchmarkLocalStep(b *testing.B) {
	users := benchProblems()
	s := Solver{Sparsity: 4}
	solve := func(p *problem) {
		if _, err := s.Solve(p.model, p.samples); err != nil {
			b.Fatal(err)
		}
	}
	for i := range users {
		solve(&users[i])
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		solve(&users[i%benchUsers])
		i++
	}
}

// benchContribute measures what one user sends to the release after steps of
// the schedule.
func benchContribute(b *testing.B, steps int) {
	users := benchProblems()
	config := lowrank.Config{Dim: 50, Rank: 3, Features: lowrank.Standard, Rounds: 3, Update: lowrank.Gradient}
	state := config.Start()
	for range steps {
		state.Step++
		state.Model = *users[0].model
		state.Basis = state.Model.U
	}
	phase, _ := state.Phase()
	dst := make([]float64, config.Layout(phase.Kind).Len())
	c := Contributor{Solver: Solver{Sparsity: 4}}
	contribute := func(i int) {
		if err := c.Contribute(dst, state, users[i%benchUsers].samples); err != nil {
			b.Fatal(err)
		}
	}
	for i := range users {
		contribute(i)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		contribute(i)
		i++
	}
}

// BenchmarkContribute is a user's whole part in an update: fit, gradient,
// preconditioner, histograms.
func BenchmarkContribute(b *testing.B) { benchContribute(b, 1) }

// BenchmarkPairwise is a user's whole part in the initialisation.
func BenchmarkPairwise(b *testing.B) { benchContribute(b, 0) }
