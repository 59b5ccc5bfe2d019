package cli

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/commandline"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

func job(t *testing.T) *undertonev1.Job {
	t.Helper()
	s, err := jobs.New(jobs.Parameters{
		Config:   lowrank.Config{Dim: 30, Rank: 2, Features: lowrank.Standard, Update: lowrank.Gradient},
		Sparsity: 5,
	}, jobs.Terms{
		Job: "movies", Epsilon: 4, Delta: 1e-6, Trust: rounds.TrustDistributed,
		NMin: 500, RoundSize: 2000, Deadline: 10 * time.Minute, Spare: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	first, update := uint64(s.Releases[0].Charge), uint64(s.Releases[1].Charge)
	digest := []byte("\x9a\x1c\x2f\x3e\x4d\x5b rest of it")
	return &undertonev1.Job{
		Spec: encoded, State: undertonev1.JobState_JOB_STATE_RUNNING, Until: 4, Released: 1,
		StateDigest: digest, StateSize: 4821, SpentNanoRho: first + 2*update, RemainingMs: 192_400,
		Attempts: []*undertonev1.Attempt{
			{Round: 1, Attempt: 1, Phase: undertonev1.Phase_PHASE_RELEASED, Members: 2000, ChargeNanoRho: first, StateDigest: digest},
			{Round: 2, Attempt: 1, Phase: undertonev1.Phase_PHASE_FAILED, Members: 311, ChargeNanoRho: update, Why: "311 contributions of 500"},
			{Round: 2, Attempt: 2, Phase: undertonev1.Phase_PHASE_COLLECTING, Members: 1250, ChargeNanoRho: update},
		},
	}
}

const wantJob = `
job       movies
state     running, 1 of 7 rounds released; pauses after round 4
method    amht-lrs: 30 features (standard), rank 2, sparsity 5, gradient
privacy   epsilon 4 under zero-out, 8.9 under replace-one; delta 1e-06
spent     0.14 of 0.351 rho (40 %), epsilon 2.4 so far
rounds    500 to 2000 contributions each, within 10m; noise added by the clients, in shares (distributed)
model     version 1, 4.8 kB, sha256 9a1c2f3e4d5b

ROUND   ATTEMPT   RELEASE      PHASE        MEMBERS     CHARGE       RESULT
1       1         initialise   released     2000        0.0702 rho   9a1c2f3e4d5b
2       1         update       failed       311         0.0351 rho   311 contributions of 500
2       2         update       collecting   1250/2000   0.0351 rho   (3m12s left)
`

func TestJobView(t *testing.T) {
	v, err := viewJob(job(t))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := v.print(&out); err != nil {
		t.Fatal(err)
	}
	if got := "\n" + out.String(); got != wantJob {
		t.Errorf("got %s\nwant %s", got, wantJob)
	}
}

// TestHeldJob: a job whose budget has nothing to spare says so.
func TestHeldJob(t *testing.T) {
	j := job(t)
	v, err := viewJob(j)
	if err != nil || v.Held {
		t.Fatalf("a job that collects is held: %v, %v", v, err)
	}
	j.Attempts[2].Phase = undertonev1.Phase_PHASE_FAILED
	if v, err = viewJob(j); err != nil || v.Held {
		t.Errorf("two failures of an update, and room for a dearer initialisation: held %v, %v", v.Held, err)
	}
	j.SpentNanoRho += j.Attempts[2].ChargeNanoRho
	if v, err = viewJob(j); err != nil || !v.Held || !strings.Contains(v.standing(), "; held, ") {
		t.Errorf("three failures: %q, %v", v.standing(), err)
	}
	j.Until = 1
	if v, err = viewJob(j); err != nil || v.Held {
		t.Errorf("paused: %q, %v", v.standing(), err)
	}
}

// TestForeignJob: a specification that this program cannot read is an error, and
// no panic; an unknown method is shown by its name.
func TestForeignJob(t *testing.T) {
	if _, err := viewJob(&undertonev1.Job{Spec: []byte("{")}); err == nil {
		t.Error("no error")
	}
	if _, err := viewJob(nil); err == nil {
		t.Error("no error")
	}
	if got := methodOf(&rounds.Spec{Method: "other", Parameters: []byte(`{"dim": "x"}`)}); got != "other" {
		t.Errorf("got %q", got)
	}
}

const wantCluster = `
NODE   ROLE      API       APPLIED   BEHIND   HASH           VERSION   STATE
n1     leader    n1:7300   120       0        0102           v1.2.0    ready
n2     voter     n2:7300   100       20       0304           v1.2.0    not ready: log is being replayed; no leader
n3     voter     n3:7301   -         -        -              -         no answer
n4     learner   n4:7300   120       0        ffffffffffff   v1.2.0    DIVERGED: its state differs from the others'; replace its data directory

n1 leads; 2 of 3 voters answer, 0 more may fail; 7 clients ever took part (as n1 says)
`

func TestClusterView(t *testing.T) {
	cluster := viewCluster(&undertonev1.GetClusterResponse{Node: "n1", Clients: 7, Nodes: []*undertonev1.Node{
		{Name: "n1", Address: "n1:7301", ApiAddress: "n1:7300", Voter: true, Leader: true, Reachable: true, Applied: 120, Hash: []byte{1, 2}, Version: "v1.2.0"},
		{Name: "n2", Address: "n2:7301", ApiAddress: "n2:7300", Voter: true, Reachable: true, Applied: 100, Hash: []byte{3, 4}, Version: "v1.2.0",
			NotReady: []string{"log is being replayed", "no leader"}},
		{Name: "n3", Address: "n3:7301", Voter: true},
		{Name: "n4", Address: "n4:7301", ApiAddress: "n4:7300", Reachable: true, Applied: 120, Hash: []byte("\xff\xff\xff\xff\xff\xff\xff"), Version: "v1.2.0", Diverged: true},
	}})
	var out strings.Builder
	if err := cluster.print(&out); err != nil {
		t.Fatal(err)
	}
	if got := "\n" + out.String(); got != wantCluster {
		t.Errorf("got %s\nwant %s", got, wantCluster)
	}
	if n4 := cluster.Nodes[3]; n4.Ready {
		t.Error("a node that diverged is ready")
	}
}

func TestLostMajority(t *testing.T) {
	var out strings.Builder
	err := viewCluster(&undertonev1.GetClusterResponse{Node: "n1", Nodes: []*undertonev1.Node{
		{Name: "n1", Voter: true, Reachable: true}, {Name: "n2", Voter: true},
	}}).print(&out)
	if want := "nobody leads; 1 of 2 voters answer, too few to go on: no majority"; err != nil || !strings.Contains(out.String(), want) {
		t.Errorf("got %q, %v; want %q", out.String(), err, want)
	}
}

// TestExplain: what a server answers is one line, and the caller's own mistakes
// have their own exit status.
func TestExplain(t *testing.T) {
	refused := func(code codes.Code, r *undertonev1.Refusal) error {
		s, err := status.New(code, "text").WithDetails(r)
		if err != nil {
			t.Fatal(err)
		}
		return s.Err()
	}
	for _, test := range []struct {
		err  error
		want string
		mine bool
	}{
		{refused(codes.NotFound, &undertonev1.Refusal{Reason: undertonev1.Reason_REASON_UNKNOWN_JOB, Detail: `no job "x"`}),
			`no job "x" (undertone job list shows what there is)`, true},
		{refused(codes.FailedPrecondition, &undertonev1.Refusal{Reason: undertonev1.Reason_REASON_NO_BUDGET, Detail: "the charge does not fit"}),
			"s:1: the charge does not fit", false},
		{refused(codes.Unavailable, &undertonev1.Refusal{Reason: undertonev1.Reason_REASON_NO_LEADER, Detail: "no leader can be reached"}),
			"s:1: no leader can be reached (undertone status shows who leads)", false},
		{status.Error(codes.DeadlineExceeded, "x"), "s:1: no answer in time (--timeout); whether it was done is open", false},
		{status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 10.0.0.1:7300: connect: no route to host"`), "s:1: no route to host", false},
		{status.Error(codes.Unavailable, "error reading from server: EOF"), "s:1: the connection broke off: EOF", false},
		{status.Error(codes.Canceled, "x"), "interrupted", false},
		{errors.New("disk full"), "disk full", false},
	} {
		err := explain(test.err, "s:1", once)
		var usage *commandline.UsageError
		if err.Error() != test.want || errors.As(err, &usage) != test.mine {
			t.Errorf("got %q, a mistake of the caller's: %v; want %q, %v", err, errors.As(err, &usage), test.want, test.mine)
		}
	}
	if err := explain(nil, "s:1", once); err != nil {
		t.Error(err)
	}
}

func TestAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"n1": "n1:7300", "n1:1": "n1:1", "10.0.0.1": "10.0.0.1:7300", "::1": "[::1]:7300", "[::1]": "[::1]:7300", "[::1]:2": "[::1]:2", " n1 ": "n1:7300",
		"": "", ":1": "", "http://n1": "", "a b": "",
	} {
		c := connection{servers: []string{in}}
		got, err := c.addresses()
		if want == "" {
			if err == nil {
				t.Errorf("%q is taken for %v", in, got)
			}
			continue
		}
		if err != nil || got[0] != want {
			t.Errorf("%q: got %v, %v; want %s", in, got, err, want)
		}
	}
}
