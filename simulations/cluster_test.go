package simulations

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server"
	"github.com/undertone-fl/undertone/simulations/cluster"
)

// serveArgument makes this test binary a server, whose configuration file is the
// next argument: the undertone command, which else is, lies above this package.
const serveArgument = "serve"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == serveArgument {
		if err := serve(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func serve(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var c struct {
		server.Config
		Identity string `json:"identity"` // a directory, as in the command's files
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return err
	}
	c.Config.Identity = identity.In(c.Identity)
	s, err := server.New(c.Config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return s.Run(ctx)
}

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
	c, err := cluster.Start(ctx, cluster.Config{Nodes: 3, Dir: dir, Command: []string{os.Args[0], serveArgument}})
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
