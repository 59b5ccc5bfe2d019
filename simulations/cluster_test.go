package simulations

import (
	"context"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/simulations/cluster"
	"github.com/undertone-fl/undertone/simulations/cluster/clustertest"
)

func TestMain(m *testing.M) { clustertest.Main(m) }

// Promises 1 and 3, and that a deployment computes what one process does: after
// every round the state that three servers release to real clients is, bit for
// bit, that of the run without servers, though the leader is killed in the middle
// of each.
func TestClusterReleasesTheSameStates(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	cfg := small()
	cfg.Synthetic.Clients, cfg.Methods, cfg.Epsilons, cfg.Seeds = 40, []string{AMHTLRS}, []Epsilon{8}, 1
	want := simulate(t, cfg, Options{})

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	dir := t.TempDir()
	c, err := cluster.Start(ctx, cluster.Config{Nodes: 3, Dir: dir, Command: clustertest.Command()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	round := int64(cfg.Synthetic.Clients)
	next, killed := round/2, 0
	got := simulate(t, cfg, Options{Cluster: c, Progress: func(p Progress) {
		if p.Done < next || p.Done == p.Total {
			return
		}
		next += round
		leader, err := c.Leader(ctx)
		if err == nil {
			leader.Kill()
			err = leader.Start()
		}
		if err != nil {
			t.Error(err)
		}
		killed++
	}})
	if len(got.Runs) != 1 || len(want.Runs) != 1 || len(got.Runs[0].Rounds) != len(want.Runs[0].Rounds) {
		t.Fatalf("runs %v, want %v", got.Runs, want.Runs)
	}
	for i, r := range want.Runs[0].Rounds {
		if there := got.Runs[0].Rounds[i].State; r.State == "" || there != r.State {
			t.Errorf("after round %d the servers released %q, and the run without them %q", i, there, r.State)
		}
	}
	if killed < cfg.Rounds {
		t.Errorf("the leader was killed %d times in %d rounds", killed, cfg.Rounds)
	}
}
