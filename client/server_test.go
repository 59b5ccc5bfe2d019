package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client"
	"github.com/undertone-fl/undertone/client/internal/contract"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server"
	"github.com/undertone-fl/undertone/server/authority"
	"github.com/undertone-fl/undertone/server/replication"
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

// TestRestoredLedger restores a real server from a backup that is older than what a device
// has seen. Under the same ledger that is a second history, and refused; under another one
// the device goes on once its owner gives it the key, and nothing is forgotten.
func TestRestoredLedger(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers")
	}
	ca := must(authority.New())(t)
	secret, _, err := ledger.NewKey("taste.example")
	if err != nil {
		t.Fatal(err)
	}
	first := startNode(t, ca, t.TempDir(), secret, 1)
	term := terms("taste")
	term.NMin, term.RoundSize = 2, 2 // one device does not fill it
	first.create(t, parameters(), term)
	first.waitRound(t, "taste", 1)
	s := &service{&contract.Service{Addresses: []string{first.address}}, t, ca}
	config := s.config(t.TempDir(), "ann")
	ann := open(t, config)
	reopen := func(server *operator) {
		ann.Close()
		config.Servers = []string{server.address}
		ann = open(t, config)
	}
	want(t, syncOne(t, ann), client.Contributed)
	if _, err := first.PauseJob(t.Context(), &undertonev1.PauseJobRequest{Job: "taste"}); err != nil {
		t.Fatal(err)
	}
	backup := first.backup(t)
	if _, err := first.CloseRound(t.Context(), &undertonev1.CloseRoundRequest{Job: "taste", Round: 1, Attempt: 1}); err != nil {
		t.Fatal(err)
	}
	poll(t, "the round's failure to be seen", func() bool {
		if _, err := ann.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		return must(ann.Status())(t).Ledger.Size == 4 // its beginning, the job, the attempt, the failure
	})
	before := must(ann.Status())(t)
	first.stop()

	restored := func(secret string, another *rounds.BeginLedger) *operator {
		t.Helper()
		dir := t.TempDir()
		if err := replication.RestoreBackup(filepath.Join(dir, "data"), "node", advertised, bytes.NewReader(backup), another); err != nil {
			t.Fatal(err)
		}
		o := startNode(t, ca, dir, secret, 0)
		poll(t, "the job to be opened", func() bool {
			_, err := o.OpenJob(t.Context(), &undertonev1.OpenJobRequest{Job: "taste"})
			return err == nil
		})
		// By itself it would wait for as long as a round takes: one has failed.
		if _, err := o.OpenRound(t.Context(), &undertonev1.OpenRoundRequest{Job: "taste", Round: 1, Attempt: 1_000_001}); err != nil {
			t.Fatal(err)
		}
		return o
	}
	same := restored(secret, nil)
	reopen(same)
	for range 2 {
		_, err = ann.Sync(t.Context())
		forkOf(t, err)
	}
	if !client.ForGood(err) {
		t.Errorf("%v", err)
	}
	same.stop()

	next, key, err := ledger.NewKey("next.example")
	if err != nil {
		t.Fatal(err)
	}
	another := restored(next, &rounds.BeginLedger{Origin: "next.example", Key: key})
	reopen(another)
	if _, err = ann.Sync(t.Context()); !errors.Is(err, client.ErrOtherLedger) {
		t.Errorf("%v", err)
	}
	config.LedgerKey = key
	reopen(another)
	if got := syncOne(t, ann); got.Outcome != client.Contributed || got.Attempt != 1_000_001 {
		t.Errorf("%+v", got)
	}
	after := must(ann.Status())(t)
	if f := after.Former; len(f) != 1 || f[0].Note != before.Ledger.Note || f[0].Fork == nil || after.NanoRho != 2*before.NanoRho {
		t.Errorf("%+v", after)
	}
	// Who audits the new ledger has the history of both, and what this device saw.
	seen := must(ledger.OpenCheckpoint([]byte(after.Ledger.Note), must(ledger.ParseKey(key))(t)))(t)
	h := must(ledger.Verify(another.ledger(t), key, seen))(t)
	if len(h.Restored) != 1 || len(h.Jobs) != 1 || len(h.Jobs[0].Attempts) != 2 || h.Jobs[0].Spent != after.NanoRho {
		t.Errorf("%+v", h)
	}
}

// operator speaks to a real server.
type operator struct {
	undertonev1grpc.OperatorServiceClient
	address string
	ca      *authority.Authority
	stop    func()
}

func startServer(t *testing.T, ca *authority.Authority) *operator {
	t.Helper()
	secret, _, err := ledger.NewKey("taste.example")
	if err != nil {
		t.Fatal(err)
	}
	return startNode(t, ca, t.TempDir(), secret, 1)
}

// advertised is where other nodes would reach one, if it had any.
const advertised = "127.0.0.1:7301"

// startNode starts a server in dir, its state in data there, of a new cluster if one is
// expected.
func startNode(t *testing.T, ca *authority.Authority, dir, secret string, expect int) *operator {
	t.Helper()
	issued, err := ca.Issue(authority.Request{Identity: identity.Identity{Role: identity.Node, Name: "node"}, Hosts: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	files, err := issued.Write(filepath.Join(dir, "node"))
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "ledger.key")
	if err := os.WriteFile(key, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	node, err := server.New(server.Config{
		Dir: filepath.Join(dir, "data"), Identity: files, LedgerKeys: []string{key}, Expect: expect,
		API: "127.0.0.1:0", Node: "127.0.0.1:0", Advertise: advertised, HTTP: server.Off, Pages: server.Off,
		Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	address, _, _ := node.Addresses()
	o := &operator{address: address, ca: ca, stop: stop}
	o.OperatorServiceClient = undertonev1grpc.NewOperatorServiceClient(o.dial(t, identity.Operator))
	return o
}

func (o *operator) dial(t *testing.T, role identity.Role) *grpc.ClientConn {
	t.Helper()
	bearer, err := o.ca.Bearer(role, "olga")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(o.address, grpc.WithTransportCredentials(grpctls.Client(bearer)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (o *operator) backup(t *testing.T) []byte {
	t.Helper()
	stream, err := o.Backup(t.Context(), &undertonev1.BackupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return all(t, stream)
}

// ledger downloads the whole ledger, as an auditor.
func (o *operator) ledger(t *testing.T) *ledger.Bundle {
	t.Helper()
	service := undertonev1grpc.NewLedgerServiceClient(o.dial(t, identity.Auditor))
	stream, err := service.DownloadLedger(t.Context(), &undertonev1.DownloadLedgerRequest{})
	if err != nil {
		t.Fatal(err)
	}
	data := all(t, stream)
	return must(ledger.ReadBundle(bytes.NewReader(data), int64(len(data))))(t)
}

// all is what a stream sends in pieces.
func all[T any, P interface {
	*T
	GetChunk() []byte
}](t *testing.T, stream grpc.ServerStreamingClient[T]) (data []byte) {
	t.Helper()
	for {
		part, err := stream.Recv()
		if err == io.EOF {
			return data
		}
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, P(part).GetChunk()...)
	}
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
