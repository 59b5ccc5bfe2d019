package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/client"
	"github.com/undertone-fl/undertone/client/internal/contract"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server"
	"github.com/undertone-fl/undertone/server/authority"
)

// TestServer takes devices through a job of a real server. In every round the
// process of each is killed before another step, and lives again: a round is
// released once all of them are in its sum, each one once.
func TestServer(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server, and a process for each life of a device")
	}
	const users = 4
	ca, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	operator := startServer(t, ca)
	s := &service{&contract.Service{Addresses: []string{operator.address}}, t, ca}
	term := terms("taste")
	term.NMin, term.RoundSize = users, users
	releases := operator.create(t, parameters(), term)

	var devices []*process
	for i := range users {
		devices = append(devices, s.process(fmt.Sprintf("user-%d", i)))
	}
	killed := 0
	for round := 1; round <= releases; round++ {
		operator.waitRound(t, "taste", round)
		for i, p := range devices {
			if p.run(3+4*i+round, func(int) {}) {
				killed++
			}
			p.run(0, func(int) {})
		}
	}
	if killed < users {
		t.Errorf("killed %d times only", killed)
	}
	operator.waitRound(t, "taste", releases+1)
	job := operator.job(t, "taste")
	if len(job.GetAttempts()) != releases {
		t.Errorf("%d attempts at %d rounds", len(job.GetAttempts()), releases)
	}
	for _, a := range job.GetAttempts() {
		if a.GetPhase() != undertonev1.Phase_PHASE_RELEASED || a.GetMembers() != users {
			t.Errorf("round %d: %v with %d members", a.GetRound(), a.GetPhase(), a.GetMembers())
		}
	}
	for i, p := range devices {
		p.run(0, func(int) {})
		d := open(t, client.Config{Dir: p.dir, Offline: true})
		if st := onlyJob(t, d); st.Attempts != releases || st.Counted != releases || uint64(st.NanoRho) != job.GetSpentNanoRho() || st.Model != releases {
			t.Errorf("user %d: %+v", i, st)
		}
		// Of each round a reservation and a release, after the ledger's and the job's
		// first records.
		if st := must(d.Status())(t); st.Ledger == nil || st.Ledger.Size < int64(2+2*releases) || st.Ledger.Fork != nil {
			t.Errorf("user %d: %+v", i, st.Ledger)
		}
		if _, err := d.Predict("taste", make([]float64, 6), nil); err != nil {
			t.Error(err)
		}
	}
}

// operator speaks to a real server.
type operator struct {
	undertonev1grpc.OperatorServiceClient
	address string
}

func startServer(t *testing.T, ca *authority.Authority) *operator {
	t.Helper()
	issued, err := ca.Issue(authority.Request{Identity: identity.Identity{Role: identity.Node, Name: "node"}, Hosts: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files, err := issued.Write(filepath.Join(dir, "node"))
	if err != nil {
		t.Fatal(err)
	}
	secret, _, err := ledger.NewKey("taste.example")
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "ledger.key")
	if err := os.WriteFile(key, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	node, err := server.New(server.Config{
		Dir: filepath.Join(dir, "data"), Identity: files, LedgerKeys: []string{key}, Expect: 1,
		API: "127.0.0.1:0", Node: "127.0.0.1:0", HTTP: server.Off, Pages: server.Off,
		Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	bearer, err := ca.Bearer(identity.Operator, "olga")
	if err != nil {
		t.Fatal(err)
	}
	address, _, _ := node.Addresses()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(grpctls.Client(bearer)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &operator{undertonev1grpc.NewOperatorServiceClient(conn), address}
}

// create makes a job, opens it, and returns the number of its releases.
func (o *operator) create(t *testing.T, p jobs.Parameters, term jobs.Terms) int {
	t.Helper()
	spec, err := jobs.New(p, term)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	poll(t, "the job to be made", func() bool {
		_, err := o.CreateJob(t.Context(), &undertonev1.CreateJobRequest{Spec: raw})
		return err == nil // there is no leader in the first moments
	})
	poll(t, "the job to be opened", func() bool {
		_, err := o.OpenJob(t.Context(), &undertonev1.OpenJobRequest{Job: term.Job})
		return err == nil
	})
	return len(spec.Releases)
}

func (o *operator) job(t *testing.T, name string) *undertonev1.Job {
	t.Helper()
	out, err := o.GetJob(t.Context(), &undertonev1.GetJobRequest{Job: name})
	if err != nil {
		t.Fatal(err)
	}
	return out.GetJob()
}

// waitRound waits until a round collects, or, of the one after the last, until
// the job is finished.
func (o *operator) waitRound(t *testing.T, name string, round int) {
	t.Helper()
	poll(t, fmt.Sprintf("round %d", round), func() bool {
		job := o.job(t, name)
		if job.GetState() == undertonev1.JobState_JOB_STATE_FINISHED {
			return true
		}
		n := len(job.GetAttempts())
		return n > 0 && int(job.GetAttempts()[n-1].GetRound()) == round && job.GetAttempts()[n-1].GetPhase() == undertonev1.Phase_PHASE_COLLECTING
	})
}

func poll(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}
