package pages_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gonum.org/v1/gonum/floats"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/dp/noise"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server/authority"
	"github.com/undertone-fl/undertone/server/board"
	"github.com/undertone-fl/undertone/server/internal/solo"
	"github.com/undertone-fl/undertone/server/notary"
	"github.com/undertone-fl/undertone/server/pages"
	"github.com/undertone-fl/undertone/server/replication"
)

// films is a job that has run for a while: a failed attempt, a measurement of its noise,
// and a round that collects. Its users, their contributions and the noise are real, but
// for the seed.
const (
	films     = "films"
	users     = 1200
	leastFilm = 1000
	dim       = 12
	seed      = 7
)

// clock is the time of a command.
type clock struct{ at time.Time }

func (c *clock) pass(d time.Duration) { c.at = c.at.Add(d) }

// history is what a node has applied, made once: it takes seconds.
var history = sync.OnceValue(func() []rounds.Command {
	var log []rounds.Command
	c := clock{time.Date(2025, 11, 20, 6, 30, 0, 0, time.UTC)}
	m := rounds.NewMachine()
	do := func(command rounds.Command) {
		dated := rounds.Dated{At: c.at.UnixMilli(), Command: command}
		if _, err := m.Apply(dated); err != nil {
			panic(fmt.Sprintf("%T: %v", command, err))
		}
		log = append(log, dated)
	}
	do(rounds.BeginLedger{Origin: solo.Origin, Key: solo.PublicKey})
	spec := makeJob(do, jobs.Parameters{
		Config:   lowrank.Config{Dim: dim, Rank: 2, Rounds: 10, Features: lowrank.Unscaled, Centred: true, Update: lowrank.Gradient, Trace: true},
		Sparsity: 2,
	}, jobs.Terms{
		Job: films, Epsilon: 6, Delta: 1e-6, Adjacency: dp.ZeroOut, Trust: rounds.TrustDistributed,
		NMin: leastFilm, RoundSize: users, Deadline: 20 * time.Minute, Spare: 2,
	})
	rho := 0.0
	for _, r := range spec.Releases {
		rho += r.Charge.Rho()
	}
	claim := uint64(1e6 * accounting.GaussianEpsilon(math.Sqrt(2*rho), spec.Delta))
	population := population()
	contribute := func(round, attempt, members int) {
		do(rounds.Collect{Job: films, Round: round, Attempt: attempt, Members: ids(members), Sum: sumOf(m, spec, round, population[:members])})
	}
	released := func() int { j, _ := m.Job(films); return j.Released }
	for attempt := 1; released() < 9; {
		round := released() + 1
		c.pass(90 * time.Second)
		do(rounds.OpenRound{Job: films, Round: round, Attempt: attempt})
		if round == 6 && attempt == 1 {
			contribute(round, attempt, 731)
			c.pass(20 * time.Minute)
			do(rounds.CloseRound{Job: films, Round: round, Attempt: attempt})
			attempt++
			continue
		}
		members := users - (round*137)%180
		contribute(round, attempt, members)
		c.pass(11*time.Minute + time.Duration(round)*13*time.Second)
		j, _ := m.Job(films)
		if members < users {
			do(rounds.CloseRound{Job: films, Round: round, Attempt: attempt})
		}
		state, err := jobs.Advance(spec, round, j.Latest.Bytes, m.Sum(films), members)
		if err != nil {
			panic(err)
		}
		do(rounds.ReleaseRound{Job: films, Round: round, Attempt: attempt, State: rounds.BlobOf(state)})
		attempt = 1
		if round == 7 {
			do(rounds.RecordCanary{Measured: ledger.CanaryMeasured{
				Job: films, By: "auditor/carol", Claimed: claim, Lower: claim / 100 * 97, Upper: claim / 100 * 102, Delta: "1e-06",
				Confidence: 950_000, Trials: 100_000, Passed: true, Measured: c.at.UnixMilli(),
				How: "test jobs with this job's specification, by undertone audit canary in one process",
			}})
		}
	}
	c.pass(2 * time.Minute)
	do(rounds.OpenRound{Job: films, Round: 10, Attempt: 1})
	contribute(10, 1, 412)
	makeJob(do, solo.Parameters(), solo.Terms("songs"))
	return log
})

func makeJob(do func(rounds.Command), p jobs.Parameters, t jobs.Terms) *rounds.Spec {
	spec, err := jobs.New(p, t)
	if err != nil {
		panic(err)
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		panic(err)
	}
	if spec, err = rounds.ParseSpec(raw); err != nil {
		panic(err)
	}
	start, err := jobs.Start(spec)
	if err != nil {
		panic(err)
	}
	do(rounds.CreateJob{Spec: raw, State: rounds.BlobOf(start)})
	do(rounds.Run{Job: spec.Job})
	return spec
}

// population draws users whose responses follow a common low-rank model.
func population() []local.Samples {
	const samples = 24
	rng := rand.New(rand.NewPCG(seed, 0))
	var data []local.Samples
	for range users {
		theta := make([]float64, dim)
		theta[0] = 0.6
		for range 2 {
			w := rng.NormFloat64()
			for i := range theta {
				if i%3 == 0 {
					theta[i] += 0.5 * w
				}
			}
		}
		theta[rng.IntN(dim)] += 0.8
		s := local.Samples{X: make([]float64, samples*dim), Y: make([]float64, samples)}
		for i := range samples {
			x := s.X[i*dim : (i+1)*dim]
			for k := range x {
				x[k] = rng.NormFloat64() * float64(1+k%4)
			}
			s.Y[i] = floats.Dot(x, theta) + 0.4*rng.NormFloat64()
		}
		data = append(data, s)
	}
	return data
}

func ids(members int) (list []rounds.ClientID) {
	for i := range members {
		list = append(list, rounds.ClientOf(fmt.Sprintf("user-%d", i)))
	}
	return list
}

// sumOf is what devices of these users send to a round, added up.
func sumOf(m *rounds.Machine, spec *rounds.Spec, round int, data []local.Samples) rounds.Blob {
	j, _ := m.Job(spec.Job)
	state, err := jobs.State(spec, round-1, j.Latest.Bytes)
	if err != nil {
		panic(err)
	}
	src := noise.NewSeeded(seed, uint64(round), uint64(len(data)))
	mechanism, err := local.DeviceMechanism(spec, round, src)
	if err != nil {
		panic(err)
	}
	length := spec.Releases[round-1].Length
	contributor := local.Contributor{Solver: local.Solver{Sparsity: 2}}
	floats, one, sum := make([]float64, length), make([]int64, length), make([]int64, length)
	for _, samples := range data {
		if err := contributor.Contribute(floats, state, samples); err != nil {
			panic(err)
		}
		if err := mechanism.Encode(one, floats); err != nil {
			panic(err)
		}
		for i, v := range one {
			sum[i] += v
		}
	}
	spec.Lattice.Reduce(sum)
	return rounds.BlobOf(aggregation.Pack(nil, sum, spec.Width()))
}

// node is a node with that history, and its pages on a port. It says that it has two
// others beside it.
type node struct {
	*solo.Node
	pages     *pages.Pages
	notary    *notary.Notary
	ledger    *counted
	log       *lines
	authority *authority.Authority
	files     identity.Files
	bearer    *identity.Bearer
	address   string

	leaderNotReady []string
	older          []string      // members
	installed      atomic.Uint64 // snapshots
	barrier        error
}

var (
	carol = identity.Identity{Role: identity.Auditor, Name: "carol"}
	olaf  = identity.Identity{Role: identity.Operator, Name: "olaf"}
)

// serve serves the pages of a node with that history.
func serve(t *testing.T) *node {
	t.Helper()
	n := solo.New()
	for _, c := range history() {
		n.Do(t, c)
	}
	return serveNode(t, n, solo.SecretKey)
}

func serveNode(t testing.TB, on *solo.Node, secret string) *node {
	t.Helper()
	n := &node{Node: on, log: new(lines)}
	key := filepath.Join(t.TempDir(), "ledger.key")
	must(t, os.WriteFile(key, []byte(secret+"\n"), 0o600))
	var err error
	n.notary, err = notary.Open(n, []string{key})
	must(t, err)
	n.ledger = &counted{Notary: n.notary}
	n.authority, err = authority.New()
	must(t, err)
	issued, err := n.authority.Issue(authority.Request{
		Identity: identity.Identity{Role: identity.Node, Name: "n1"}, Hosts: []string{"localhost", "127.0.0.1"},
	})
	must(t, err)
	n.files, err = issued.Write(filepath.Join(t.TempDir(), "n1"))
	must(t, err)
	n.bearer, err = identity.LoadWithLogger(n.files, slog.New(slog.DiscardHandler))
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	n.address = l.Addr().String()
	n.pages = pages.New(pages.Config{
		Name: "n1", Host: n.address, Bearer: n.bearer, Node: n, Board: board.New(n), Ledger: n.ledger,
		Stats: func() replication.Stats {
			return replication.Stats{Leading: true, Term: 3, Members: 3, Applied: 40, FirstEntry: 1, LastEntry: 40, LogBytes: 182_000, Proposals: 40, ProposeTime: 90 * time.Millisecond, Installed: n.installed.Load()}
		},
		NotReady: n.NotReady, Older: func() []string { return n.older }, Disk: func() (int64, error) { return 1_480_000, nil },
		Panicked: func() { t.Errorf("a page panicked:\n%s", n.log) },
		Logger:   slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	done := make(chan error, 1)
	go func() { done <- n.pages.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		n.pages.Close(ctx)
		must(t, <-done)
	})
	return n
}

// lines is a log to look into.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(line)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Barrier is the solo node's, unless the leader cannot be reached.
func (n *node) Barrier(ctx context.Context) (uint64, error) {
	if n.barrier != nil {
		return 0, n.barrier
	}
	return n.Node.Barrier(ctx)
}

// Members are this node, and two that are not there.
func (n *node) Members(context.Context) ([]replication.Member, error) {
	var applied uint64
	n.View(func(_ *rounds.Machine, index uint64) { applied = index })
	member := func(name string, applied uint64) replication.Member {
		return replication.Member{
			Name: name, Address: name + ".example.org:7301", APIAddress: name + ".example.org:7300", Version: "0.3.0",
			Voter: true, Leader: name == "n1", Reachable: true, Applied: applied, Term: 3,
		}
	}
	members := []replication.Member{member("n1", applied), member("n2", applied), member("n3", applied-3)}
	members[0].NotReady = n.leaderNotReady
	members[2].NotReady = []string{"log: catching up"}
	return members, nil
}

// collectForAWhile lets a quarter of an hour pass, in which the open round collects.
func (n *node) collectForAWhile(t *testing.T) {
	t.Helper()
	spec, _ := n.job(films)
	src := rand.New(rand.NewPCG(seed, 1))
	now := time.Now()
	at := 412 // users that are in already
	for back := 14 * time.Minute; back >= 0; back -= 10 * time.Second {
		n.pages.Observe(now.Add(-back))
		more := src.IntN(3 + int(back/time.Minute))
		if at+more >= users-120 {
			continue
		}
		if more > 0 {
			zeros := aggregation.Pack(nil, make([]int64, spec.Releases[9].Length), spec.Width())
			n.Do(t, rounds.Collect{Job: films, Round: 10, Attempt: 1, Members: ids(at + more)[at:], Sum: rounds.BlobOf(zeros)})
			at += more
		}
	}
}

// job is a job as applied.
func (n *node) job(name string) (spec *rounds.Spec, v rounds.JobView) {
	n.View(func(m *rounds.Machine, _ uint64) { v, _ = m.Job(name) })
	return v.Spec, v
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
