package canary

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/dp/noise"
	"github.com/undertone-fl/undertone/proto/identity"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/simulations/cluster"
	"github.com/undertone-fl/undertone/simulations/cluster/clustertest"
)

func TestMain(m *testing.M) { clustertest.Main(m) }

// servers starts a cluster, and returns it as an auditor with so many certificates of
// clients, and that of an operator, knows it.
func servers(t testing.TB, nodes, clients int) (*cluster.Cluster, *Cluster) {
	t.Helper()
	c, err := cluster.Start(t.Context(), cluster.Config{Nodes: nodes, Dir: t.TempDir(), Command: clustertest.Command()})
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
// noise: honest servers pass, and those that add half of what is claimed do not. Each is
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
			c := config(twoRounds(t, term), 1000)
			c.Cluster, c.Seed, c.FalseAlarm = at, nil, 1e-9
			begin := time.Now()
			r := audit(t, c)
			t.Logf("%d trials in %v: at least %.3f", r.Trials, time.Since(begin), r.LowerBound)
			if !r.Passed || r.LowerBound < 0.5 || r.UpperBound < r.LowerBound {
				t.Errorf("from %v to %v: %s", r.LowerBound, r.UpperBound, r.Verdict)
			}
			if !regexp.MustCompile("^jobs (canary-[0-9a-f]{8})-1 to canary-[0-9a-f]{8}-25 of the cluster experiment, .*noise").MatchString(r.How) {
				t.Errorf("how: %s", r.How)
			}
			if trust == rounds.TrustCentral {
				c.Trials, c.FalseAlarm, c.wiring.claim = 4000, 1e-4, halved
				caughtHalved(t, audit(t, c))
			}
		})
	}
}

// TestExistingJobs: an auditor without an operator's certificate plays those that the
// operator made, and is told of those that are no good.
func TestExistingJobs(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	there, at := servers(t, 1, 20)
	at.Operator = nil
	central := terms(20)
	central.Trust = rounds.TrustCentral
	create := func(name string, term jobs.Terms, dim int) {
		t.Helper()
		term.Job = name
		s, err := jobs.NewCanary(jobs.Canary{Dim: dim, Norms: []float64{1, 1}}, term)
		if err != nil {
			t.Fatal(err)
		}
		if err := there.CreateJob(t.Context(), s, 0); err != nil {
			t.Fatal(err)
		}
	}
	measure := func(names ...string) (*Result, error) {
		c := config(nil, 0)
		at := *at
		c.Cluster, c.Seed, at.Jobs = &at, nil, names
		return Run(t.Context(), c)
	}

	create("one", central, 28)
	create("two", central, 28)
	r, err := measure("one", "two")
	if err != nil {
		t.Fatal(err)
	}
	if !r.Passed || r.Trials != 40 || r.Job != "one" || r.How != "jobs one to two of the cluster experiment, its servers' noise" {
		t.Errorf("%+v", r)
	}

	larger, many := central, central
	larger.RoundSize, many.NMin, many.RoundSize = 30, 30, 30
	create("larger", larger, 28)
	create("many", many, 38)
	create("narrow", central, 8)
	create("three", central, 28)
	create("wider", central, 29)
	learns, err := jobs.New(jobs.Parameters{Config: lowrank.Config{Dim: 12, Rank: 2, Rounds: 1, Features: lowrank.Unscaled, Update: lowrank.Gradient}},
		jobs.Terms{Job: "learns", Epsilon: 2, Delta: 1e-6, Trust: rounds.TrustCentral, Adjacency: central.Adjacency, NMin: 20, RoundSize: 20, Deadline: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if err := there.CreateJob(t.Context(), learns, 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		jobs []string
		want string
	}{
		{[]string{"one"}, "one: 2 of its rounds are released already, with contributions that nobody knows"},
		{[]string{"none"}, "none: there is no such job"},
		{[]string{"learns"}, "learns: its method is amht-lrs, and only jobs of the method canary release what can be measured"},
		{[]string{"larger"}, "larger: its rounds take up to 30 contributions, more than the 20 whose noise is charged (--round-size)"},
		{[]string{"narrow"}, "narrow: its contributions have 8 coordinates, and from 9 to 2048 can be measured; best are n-min and 8 more (--dim)"},
		{[]string{"three", "three"}, "three: it stands twice"},
		{[]string{"three", "wider"}, "wider: its terms are not those of three"},
		{[]string{"many"}, "--clients: a round takes the certificates of 30 clients, and there are 20 (undertone ca issue client --count 30 --prefix canary-)"},
	} {
		if _, err := measure(c.jobs...); err == nil || err.Error() != c.want {
			t.Errorf("%v: got %v, want %s", c.jobs, err, c.want)
		}
	}

	// Somebody else takes part first.
	stranger, err := there.Bearer(identity.Client, "stranger")
	if err != nil {
		t.Fatal(err)
	}
	takePart(t, at.Servers, stranger, "three")
	if _, err := measure("three"); !errors.Is(err, ErrStrangers) {
		t.Errorf("got %v", err)
	}
}

// TestFailedAttempts: where a round is closed in the middle, with too few contributions,
// the next attempt is played with new noise.
func TestFailedAttempts(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	there, at := servers(t, 1, 5)
	term := terms(5)
	term.Job, term.Deadline, term.Spare = "retried", 2*time.Second, 8
	spec, err := jobs.NewCanary(jobs.Canary{Dim: 13, Norms: []float64{1, 1}}, term)
	if err != nil {
		t.Fatal(err)
	}
	if err := there.CreateJob(t.Context(), spec, 0); err != nil {
		t.Fatal(err)
	}
	at.Operator, at.Jobs = nil, []string{"retried"}
	c := config(nil, 0)
	c.Cluster = at
	closed := false
	c.wiring.device = func(m *local.Mechanism, _ *design, round, client int, src noise.Source) (device, error) {
		if round == 1 && client == 3 && !closed {
			closed = true
			err := there.Operate(t.Context(), func(o undertonev1grpc.OperatorServiceClient) error {
				_, err := o.CloseRound(t.Context(), &undertonev1.CloseRoundRequest{Job: "retried", Round: 2, Attempt: 1})
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
		return m.With(src), nil
	}
	r := audit(t, c)
	if !closed || !r.Passed || r.Trials != 5 {
		t.Errorf("%+v", r)
	}
	_, _, err = there.AwaitRound(t.Context(), "retried", 3)
	if err != nil {
		t.Error(err)
	}
}

// takePart contributes zeros to the round of a job that collects.
func takePart(t *testing.T, servers []string, who *identity.Bearer, job string) {
	t.Helper()
	c, err := newCaller(who, servers, 0, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	raw, err := c.spec(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := canaryJob(job, raw)
	if err != nil {
		t.Fatal(err)
	}
	for {
		var work []*undertonev1.Work
		err := c.participate(t.Context(), time.Minute, func(ctx context.Context, p undertonev1grpc.ParticipantServiceClient) error {
			r, err := p.Poll(ctx, &undertonev1.PollRequest{})
			work = r.GetWork()
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range work {
			if w.Job != job {
				continue
			}
			payload := aggregation.Pack(nil, make([]int64, spec.Releases[0].Length), spec.Width())
			_, err := c.submit(t.Context(), &undertonev1.SubmitRequest{Payload: payload, Header: &undertonev1.SubmitHeader{
				Job: job, Round: w.Round, Attempt: w.Attempt, StateDigest: w.StateDigest, Checksum: crc32.Checksum(payload, castagnoli),
			}})
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

// TestLedgerIsHeldToItsKey: a cluster whose ledger is signed with another key than the
// auditor's is not measured at all, and what was created is closed.
func TestLedgerIsHeldToItsKey(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	there, at := servers(t, 1, 5)
	_, other, err := ledger.NewKey("experiment")
	if err != nil {
		t.Fatal(err)
	}
	at.LedgerKey = other
	c := config(twoRounds(t, terms(5)), 10)
	c.Cluster = at
	if _, err := Run(t.Context(), c); !errors.Is(err, ErrLedger) || !errors.Is(err, ledger.ErrSignature) {
		t.Errorf("got %v", err)
	}
	err = there.Operate(t.Context(), func(o undertonev1grpc.OperatorServiceClient) error {
		r, err := o.ListJobs(t.Context(), &undertonev1.ListJobsRequest{})
		for _, j := range r.GetJobs() {
			if j.State != undertonev1.JobState_JOB_STATE_CLOSED {
				t.Errorf("a job is left, %v", j.State)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
