package server_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/proto/identity"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	rpc "github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server"
	"github.com/undertone-fl/undertone/server/internal/solo"
	"github.com/undertone-fl/undertone/server/replication"
	"github.com/undertone-fl/undertone/server/replication/encoding"
)

// A round is a sequence of commands that the leader proposes, and there are three
// moments at which a command's proposer can die and leave different worlds behind:

// moment of a command.
type moment string

const (
	proposing moment = "proposing" // nobody knows of it
	appended  moment = "appended"  // it is on the leader's disk, and on no other
	committed moment = "committed" // and nobody was answered
)

// step is where a leader dies. Round 0 is the job's creation.
type step struct {
	command string
	round   int
	moment  moment
}

func (s step) String() string { return fmt.Sprintf("%d-%s-%s", s.round, s.command, s.moment) }

// stepsVariable makes a server die at steps: it names a directory with a file for
// each. The leader that comes there first writes its name into the file, and dies.
const stepsVariable = "UNDERTONE_TEST_STEPS"

func init() {
	if dir := os.Getenv(stepsVariable); dir != "" {
		newServer = func(c server.Config) (*server.Server, error) {
			return server.NewAround(c, func(n *replication.Node) server.Replica {
				name := filepath.Base(c.Dir)
				return &mortal{n, name, dir}
			})
		}
	}
}

// mortal is a replica whose process dies at steps.
type mortal struct {
	*replication.Node
	name, dir string
}

// Propose dies before, in the middle or after.
func (m *mortal) Propose(ctx context.Context, c rounds.Command) (uint64, error) {
	command, round := nameOf(c)
	m.dieAt(step{command, round, proposing})
	if m.reached(step{command, round, appended}) {
		m.dieAlone(c, func() { m.Node.Propose(ctx, c) })
	}
	index, err := m.Node.Propose(ctx, c)
	if err == nil {
		m.dieAt(step{command, round, committed})
	}
	return index, err
}

// StageBlob does too, with states: contributions of these tests fit an entry.
func (m *mortal) StageBlob(ctx context.Context, job string, round, attempt int, b []byte) (rounds.Blob, error) {
	if len(b) <= replication.InlineLimit {
		return m.Node.StageBlob(ctx, job, round, attempt, b)
	}
	m.dieAt(step{"stage", round, proposing})
	if m.reached(step{"stage", round, appended}) {
		m.dieAlone(rounds.Stage{}, func() { m.Node.StageBlob(ctx, job, round, attempt, b) })
	}
	blob, err := m.Node.StageBlob(ctx, job, round, attempt, b)
	if err == nil {
		m.dieAt(step{"stage", round, committed})
	}
	return blob, err
}

func nameOf(c rounds.Command) (name string, round int) {
	switch c := c.(type) {
	case rounds.BeginLedger:
		return "begin", 0
	case rounds.CreateJob:
		return "create", 0
	case rounds.Run:
		return "run", 0
	case rounds.OpenRound:
		return "open", c.Round
	case rounds.Collect:
		return "collect", c.Round
	case rounds.CloseRound:
		return "close", c.Round
	case rounds.ReleaseRound:
		return "release", c.Round
	case rounds.FailRound:
		return "fail", c.Round
	case rounds.CloseJob:
		return "close-job", 0
	case rounds.RotateKey:
		return "rotate", 0
	}
	return fmt.Sprintf("%T", c), 0
}

// reached claims a step for this process, if it leads and the step is one.
func (m *mortal) reached(s step) bool {
	if leads, _ := m.Leading(); !leads {
		return false
	}
	path := filepath.Join(m.dir, s.String())
	if err := os.Rename(path, path+"."+m.name); err != nil {
		return false // no step, or another's
	}
	return true
}

func (m *mortal) dieAt(s step) {
	if m.reached(s) {
		die()
	}
}

// dieAlone proposes while no other node hears, and dies once the command is on
// this disk.
func (m *mortal) dieAlone(c rounds.Command, propose func()) {
	for { // until the test has stopped the others
		if _, err := os.Stat(filepath.Join(m.dir, "stopped")); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	entry, err := encoding.MarshalCommand(c)
	if err != nil {
		panic(err)
	}
	written := m.Stats().LogBytes + uint64(len(entry))
	done := make(chan struct{})
	go func() { propose(); close(done) }()
	for {
		select {
		case <-done: // the lease ran out before: as if it had died sooner
			die()
		default:
		}
		if m.Stats().LogBytes >= written {
			die()
		}
	}
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // until it has effect
}

// Promises 1 to 4 and 6: the leader is killed with -9 at every step of a round,
// each in a round of its own, and the job comes to its end, counting every
// contribution once though every client sends it at least twice. Clients and an auditor
// see one ledger all along, which has no gap and nothing twice.
func TestLeaderKilledAtEveryStep(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	const clients = 6
	terms := solo.Terms("movies")
	terms.Spare = 4
	for name, job := range map[string]struct {
		terms func(*jobs.Terms)
		steps []step
		stays func(client int, a attempt) bool
	}{
		// A round that is full closes with the batch that fills it.
		"full": {
			func(t *jobs.Terms) { t.NMin, t.RoundSize = clients, clients },
			[]step{
				{"create", 0, appended}, {"create", 0, committed}, {"run", 0, appended}, {"run", 0, committed},
				{"open", 1, proposing}, {"open", 2, appended}, {"open", 3, committed},
				{"collect", 4, proposing}, {"collect", 5, appended}, {"collect", 6, committed},
				{"stage", 7, proposing}, {"stage", 8, appended}, {"stage", 9, committed},
				{"release", 10, appended}, {"release", 11, committed},
			}, nil,
		},
		// One that is not closes at its deadline, and fails if nobody came.
		"deadline": {
			func(t *jobs.Terms) { t.NMin, t.RoundSize, t.Deadline = 2, clients+1, time.Second },
			[]step{{"close", 1, proposing}, {"close", 2, appended}, {"close", 3, committed}, {"close", 4, committed}},
			func(_ int, a attempt) bool { return a == attempt{4, 1} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv(stepsVariable, dir)
			last := 0
			for _, s := range job.steps {
				must(t, os.WriteFile(filepath.Join(dir, s.String()), nil, 0o600))
				last = max(last, s.round)
			}
			terms := terms
			job.terms(&terms)
			// A state that takes several entries, of contributions that take one.
			spec, raw := solo.Spec(t, jobs.Parameters{Sparsity: 1, Config: lowrank.Config{
				Dim: 20_000, Rank: 1, Sketch: 1, Rounds: last - 1, Features: lowrank.Standard, Update: lowrank.Gradient}}, terms)
			c := startCluster(t, 3, nil)
			operator := make([]rpc.OperatorServiceClient, len(c.nodes))
			for i := range operator {
				operator[i] = c.operator(i)
			}
			begun := make(chan struct{})
			go func() {
				defer close(begun)
				c.insist(func(ctx context.Context, leader int) error {
					_, err := operator[leader].CreateJob(ctx, &undertonev1.CreateJobRequest{Spec: raw})
					return err
				})
				c.insist(func(ctx context.Context, leader int) error {
					_, err := operator[leader].OpenJob(ctx, &undertonev1.OpenJobRequest{Job: spec.Job})
					return err
				})
			}()
			crowd := c.crowd(spec, clients, job.stays)
			for _, s := range job.steps {
				c.survives(dir, s)
			}
			<-begun
			if job := c.keptPromises(spec, crowd); name == "full" && len(job.Attempts) != len(spec.Releases) {
				t.Errorf("attempts: %v", job.Attempts)
			}
		})
	}
}

// The leader is killed in the middle of the ledger's beginning, of a rotation of its key,
// and of a job's end: each comes about, once.
func TestLeaderKilledAsTheLedgerBeginsRotatesAndEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	for _, moment := range []moment{proposing, appended, committed} {
		t.Run(string(moment), func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv(stepsVariable, dir)
			begin, rotate, end := step{"begin", 0, moment}, step{"rotate", 0, moment}, step{"close-job", 0, moment}
			must(t, os.WriteFile(filepath.Join(dir, begin.String()), nil, 0o600))
			c := newCluster(t, 3)
			secret, next, err := ledger.NewKey(solo.Origin)
			must(t, err)
			must(t, os.WriteFile(c.ledgerKey, []byte(solo.SecretKey+"\n"+secret+"\n"), 0o600))
			c.launch(nil)
			c.survives(dir, begin)
			for i := range c.nodes {
				c.waitReady(i)
			}
			auditor, stop := c.audit()
			operator, books := make([]rpc.OperatorServiceClient, len(c.nodes)), make([]rpc.LedgerServiceClient, len(c.nodes))
			for i := range c.nodes {
				operator[i], books[i] = c.operator(i), rpc.NewLedgerServiceClient(c.dial(i, identity.Operator, "ada"))
			}
			spec, raw := solo.Spec(t, solo.Parameters(), solo.Terms("movies"))
			c.insist(func(ctx context.Context, leader int) error {
				_, err := operator[leader].CreateJob(ctx, &undertonev1.CreateJobRequest{Spec: raw})
				return err
			})
			c.insist(func(ctx context.Context, leader int) error {
				_, err := operator[leader].OpenJob(ctx, &undertonev1.OpenJobRequest{Job: spec.Job})
				return err
			})
			c.shows(spec.Job, func(j *undertonev1.Job) bool { return len(j.Attempts) == 1 })
			for _, dies := range []struct {
				at  step
				ask func(ctx context.Context, leader int) error
			}{
				{rotate, func(ctx context.Context, leader int) error {
					_, err := books[leader].RotateKey(ctx, &undertonev1.RotateKeyRequest{Key: next})
					return err
				}},
				{end, func(ctx context.Context, leader int) error {
					_, err := operator[leader].CloseJob(ctx, &undertonev1.CloseJobRequest{Job: spec.Job})
					return err
				}},
			} {
				must(t, os.WriteFile(filepath.Join(dir, dies.at.String()), nil, 0o600))
				asked := make(chan struct{})
				go func() {
					defer close(asked)
					c.insist(dies.ask)
				}()
				c.survives(dir, dies.at)
				<-asked
				for i := range c.nodes {
					c.waitReady(i)
				}
			}
			job := c.shows(spec.Job, func(j *undertonev1.Job) bool { return j.State == undertonev1.JobState_JOB_STATE_CLOSED })
			c.agree()
			stop()
			c.provesItself(job, auditor)
			if len(job.Attempts) != 1 || job.Attempts[0].Phase != undertonev1.Phase_PHASE_FAILED {
				t.Errorf("attempts: %v", job.Attempts)
			}
			shown, err := books[0].GetCheckpoint(t.Context(), &undertonev1.GetCheckpointRequest{LedgerSize: uint64(auditor.last().Size)})
			must(t, err)
			must(t, auditor.sees(shown.Ledger))
			key, err := ledger.ParseKey(next)
			must(t, err)
			if n := len(shown.Ledger.Rotations); n != 1 || auditor.signer.KeyHash() != key.KeyHash() {
				t.Errorf("%d rotations, and key %08x signs, want %08x", n, auditor.signer.KeyHash(), key.KeyHash())
			}
		})
	}
}

// survives waits until a leader has died at a step, and starts it again.
func (c *cluster) survives(dir string, s step) {
	t := c.t
	t.Helper()
	victim := -1
	eventually(t, "a leader at "+s.String(), func() bool {
		for i := range c.nodes {
			if _, err := os.Stat(filepath.Join(dir, fmt.Sprintf("%v.node-%d", s, i))); err == nil {
				victim = i
			}
		}
		return victim >= 0
	})
	stopped := filepath.Join(dir, "stopped")
	if s.moment == appended {
		for i, n := range c.nodes {
			if i != victim {
				n.stop(t)
			}
		}
		must(t, os.WriteFile(stopped, nil, 0o600))
	}
	<-c.nodes[victim].done
	if err := os.Remove(stopped); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for i, n := range c.nodes {
		if i != victim {
			_ = n.cmd.Process.Signal(syscall.SIGCONT) // or it has come to the next step
		}
	}
	c.start(victim) // and it may come to the next step before it says that it is ready
}

// stop returns once the process is stopped.
func (p *process) stop(t testing.TB) {
	t.Helper()
	must(t, p.cmd.Process.Signal(syscall.SIGSTOP))
	eventually(t, "a process is stopped", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		must(t, err)
		_, state, _ := strings.Cut(string(stat), ") ")
		return strings.HasPrefix(state, "T")
	})
}
