package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/server/board"
	"github.com/undertone-fl/undertone/server/internal/solo"
	"github.com/undertone-fl/undertone/server/metrics"
	"github.com/undertone-fl/undertone/server/notary"
	"github.com/undertone-fl/undertone/server/replication"
)

// drive runs a driver over a node until the test ends.
func drive(t *testing.T, n *solo.Node) *metrics.Metrics {
	t.Helper()
	return driveWith(t, n, n, Config{})
}

// driveWith is drive with what a test is about; the driver sees the node as seen.
func driveWith(t *testing.T, n *solo.Node, seen Node, c Config) *metrics.Metrics {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	b := board.New(n)
	m := metrics.New()
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Metrics, c.Tracer = m, noop.NewTracerProvider().Tracer("")
	d := New(seen, b, c)
	done := make(chan struct{}, 2)
	go func() { b.Run(ctx); done <- struct{}{} }()
	go func() { d.Run(ctx); done <- struct{}{} }()
	t.Cleanup(func() { cancel(); <-done; <-done })
	return m
}

// fill adds members with contributions of zeros.
func fill(t *testing.T, n *solo.Node, spec *rounds.Spec, round, attempt, members int) {
	t.Helper()
	if _, ok := n.Attempt(spec.Job, round, attempt, rounds.Collecting); !ok {
		t.Fatalf("attempt %d at round %d is not opened", attempt, round)
	}
	c := rounds.Collect{Job: spec.Job, Round: round, Attempt: attempt,
		Sum: rounds.BlobOf(aggregation.Pack(nil, make([]int64, spec.Releases[round-1].Length), spec.Width()))}
	for k := range members {
		c.Members = append(c.Members, rounds.ClientOf(fmt.Sprint("client-", k)))
	}
	n.Do(t, c)
}

func view(n *solo.Node, job string) (v rounds.JobView) {
	n.View(func(m *rounds.Machine, _ uint64) { v, _ = m.Job(job) })
	return v
}

func TestJobToItsEnd(t *testing.T) {
	n := solo.New()
	spec := n.Create(t, solo.Parameters(), solo.Terms("movies"))
	drive(t, n)
	for round := 1; round <= len(spec.Releases); round++ {
		fill(t, n, spec, round, 1, spec.RoundSize)
		if _, ok := n.Attempt(spec.Job, round, 1, rounds.Released); !ok {
			t.Fatalf("round %d is not released", round)
		}
	}
	v := view(n, spec.Job)
	if v.State != rounds.Finished || len(v.Attempts) != len(spec.Releases) {
		t.Errorf("%v after %d attempts", v.State, len(v.Attempts))
	}
	if _, err := jobs.State(spec, v.Released, v.Latest.Bytes); err != nil {
		t.Errorf("the last state: %v", err)
	}
}

// The ledger begins before anything is opened, however often that fails, and once.
func TestLedgerComesFirst(t *testing.T) {
	n := solo.New()
	spec := n.Create(t, solo.Parameters(), solo.Terms("movies"))
	failures, begun := 2, 0
	n.Around = func(c rounds.Command, apply func() (uint64, error)) (uint64, error) {
		if _, begins := c.(rounds.BeginLedger); begins {
			if failures > 0 {
				failures--
				return 0, replication.ErrIndeterminate
			}
			begun++
		}
		return apply()
	}
	l := Ledger{Origin: solo.Origin, Key: solo.PublicKey}
	driveWith(t, n, n, Config{Ledger: l})
	if _, ok := n.Attempt(spec.Job, 1, 1, rounds.Collecting); !ok {
		t.Fatal("no round was opened")
	}
	n.Lead(false)
	n.Lead(true)
	fill(t, n, spec, 1, 1, spec.RoundSize)
	if _, ok := n.Attempt(spec.Job, 2, 1, rounds.Collecting); !ok {
		t.Fatal("no further round was opened")
	}
	if failures > 0 || begun != 1 {
		t.Errorf("begun %d times, with %d failures to come", begun, failures)
	}
	n.View(func(m *rounds.Machine, _ uint64) {
		var kinds []string
		for _, record := range m.Ledger().Records() {
			e, err := ledger.Decode(record)
			if err != nil {
				t.Fatal(err)
			}
			kinds = append(kinds, fmt.Sprintf("%T", e))
		}
		want := []string{"*ledger.Begun", "*ledger.JobCreated", "*ledger.AttemptCharged", "*ledger.Released", "*ledger.AttemptCharged"}
		if !slices.Equal(kinds, want) {
			t.Errorf("records: %v", kinds)
		}
	})
}

// While a member's release is one of before ledgers, its cluster goes on without; that
// there is no ledger to sign does not keep it.
func TestLedgerWaitsForUpgrades(t *testing.T) {
	n := solo.New()
	spec := n.Create(t, solo.Parameters(), solo.Terms("movies"))
	const tries = 3 // at the least, of which all but the first go without saying
	var tried atomic.Int32
	var upgraded atomic.Bool
	n.Around = func(c rounds.Command, apply func() (uint64, error)) (uint64, error) {
		if _, begins := c.(rounds.BeginLedger); begins && (tried.Add(1) <= tries || !upgraded.Load()) {
			return 0, replication.ErrOldMember
		}
		return apply()
	}
	shown, err := notary.Open(n, []string{solo.KeyFile(t)})
	if err != nil {
		t.Fatal(err)
	}
	log := new(lines)
	driveWith(t, n, n, Config{
		Ledger: Ledger{Origin: solo.Origin, Key: solo.PublicKey},
		Signs:  func() error { _, err := shown.Head(); return err },
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	fill(t, n, spec, 1, 1, spec.RoundSize)
	if _, ok := n.Attempt(spec.Job, 2, 1, rounds.Collecting); !ok {
		t.Fatal("no further round was opened")
	}
	upgraded.Store(true)
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		begun := false
		n.View(func(m *rounds.Machine, _ uint64) { begun = m.Ledger() != nil })
		if begun {
			if said := log.count("the ledger has not begun"); said != 1 {
				t.Errorf("said %d times", said)
			}
			return
		}
		if time.Since(start) > 30*time.Second {
			t.Fatal("no ledger has begun")
		}
	}
}

// others is a node among others, with what it did to its leadership.
type others struct {
	*solo.Node
	members []replication.Member

	mu     sync.Mutex
	handed []string
	loses  bool // leadership, when it hands it on
}

func (o *others) Members(context.Context) ([]replication.Member, error) { return o.members, nil }

func (o *others) TransferLeadership(_ context.Context, to string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.handed = append(o.handed, to)
	if o.loses {
		o.Lead(false)
	}
	return nil
}

// key is whether a node has the ledger's.
type key struct{ lacks atomic.Bool }

func (k *key) signs() error {
	if k.lacks.Load() {
		return fmt.Errorf("%w: %w", notary.ErrNoKey, &notary.KeyError{Path: "ledger.key", Err: errors.New("it has not the key x")})
	}
	return nil
}

// lines counts those of a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// A leader that cannot sign opens nothing, so charges nothing, and says so once; what is
// open it brings to its end. It goes on when it has the key.
func TestLeaderWithoutKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := solo.New()
		n.BeginLedger(t)
		terms := solo.Terms("movies")
		terms.Spare, terms.Deadline = 5, time.Minute
		spec := n.Create(t, solo.Parameters(), terms)
		n.Do(t, rounds.OpenRound{Job: spec.Job, Round: 1, Attempt: 1})
		var k key
		k.lacks.Store(true)
		log := new(lines)
		m := driveWith(t, n, n, Config{Signs: k.signs, Logger: slog.New(slog.NewTextHandler(log, nil))})
		time.Sleep(10 * time.Minute)
		v := view(n, spec.Job)
		if len(v.Attempts) != 1 || v.Attempts[0].Phase != rounds.Failed || v.Spent != spec.Releases[0].Charge {
			t.Errorf("attempts %+v, spent %v", v.Attempts, v.Spent)
		}
		if said := log.count("cannot sign the ledger"); said != 1 || testutil.ToFloat64(m.Unsigned) != 1 {
			t.Errorf("said %d times, metric %v", said, testutil.ToFloat64(m.Unsigned))
		}
		k.lacks.Store(false)
		time.Sleep(time.Minute)
		if v := view(n, spec.Job); len(v.Attempts) < 2 || testutil.ToFloat64(m.Unsigned) != 0 {
			t.Errorf("with the key: %d attempts, metric %v", len(v.Attempts), testutil.ToFloat64(m.Unsigned))
		}
	})
}

// Leadership goes to a node that is ready, and to no other; a node whose leadership comes
// back to it does not hand it on again at once.
func TestLeaderWithoutKeyHandsOn(t *testing.T) {
	ready := func(name string) replication.Member {
		return replication.Member{Name: name, Voter: true, Reachable: true}
	}
	leader, away, learner, lost, lacks := ready("leader"), ready("away"), ready("learner"), ready("lost"), ready("lacks")
	leader.Leader, away.Reachable, learner.Voter, lost.Diverged = true, false, false, true
	lacks.NotReady = []string{notary.NotReadyPrefix + "this node cannot sign it"}
	for _, c := range []struct {
		name    string
		members []replication.Member
		loses   bool
		want    []string // within half a minute and a little
	}{
		{"to the one that is ready", []replication.Member{leader, away, learner, lost, lacks, ready("good"), ready("better")}, true, []string{"good"}},
		{"to nobody", []replication.Member{leader, away, learner, lost, lacks}, true, nil},
		{"not again at once", []replication.Member{leader, ready("good")}, false, []string{"good", "good", "good", "good"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &others{Node: solo.New(), members: c.members, loses: c.loses}
				o.BeginLedger(t)
				spec := o.Create(t, solo.Parameters(), solo.Terms("movies"))
				var k key
				k.lacks.Store(true)
				driveWith(t, o.Node, o, Config{Signs: k.signs})
				time.Sleep(3*handOnPause + handOnPause/2)
				o.mu.Lock()
				handed := slices.Clone(o.handed)
				o.mu.Unlock()
				if !slices.Equal(handed, c.want) {
					t.Errorf("handed to %q, want %q", handed, c.want)
				}
				if v := view(o.Node, spec.Job); len(v.Attempts) > 0 {
					t.Errorf("opened %+v", v.Attempts)
				}
			})
		})
	}
}

// At the deadline a round closes with what it has.
func TestDeadline(t *testing.T) {
	n := solo.New()
	terms := solo.Terms("movies")
	terms.Deadline = 50 * time.Millisecond
	spec := n.Create(t, solo.Parameters(), terms)
	n.Do(t, rounds.OpenRound{Job: spec.Job, Round: 1, Attempt: 1})
	fill(t, n, spec, 1, 1, spec.NMin)
	drive(t, n)
	if a, ok := n.Attempt(spec.Job, 1, 1, rounds.Released); !ok || a.Members != spec.NMin {
		t.Errorf("attempt: %+v", a)
	}
}

// Promise 6: with too few nothing is released; and promise 2: it stays charged.
// There are as many further attempts as the budget has to spare, then the job is
// held, until an operator decides.
func TestTooFew(t *testing.T) {
	n := solo.New()
	terms := solo.Terms("movies")
	terms.Deadline, terms.Spare = 5*time.Millisecond, 1
	spec := n.Create(t, solo.Parameters(), terms)
	room := spec.Budget
	for _, r := range spec.Releases {
		room -= r.Charge
	}
	affordable := 1 + int(room/spec.Releases[0].Charge)
	// The deadline comes when all but one have contributed; after the attempt by
	// hand was opened, all.
	n.Around = func(c rounds.Command, apply func() (uint64, error)) (uint64, error) {
		if c, ok := c.(rounds.CloseRound); ok {
			members := spec.NMin - 1
			if c.Attempt > affordable {
				members++
			}
			fill(t, n, spec, c.Round, c.Attempt, members)
		}
		return apply()
	}
	m := drive(t, n)
	for start := time.Now(); testutil.ToFloat64(m.Held.WithLabelValues(spec.Job)) != 1; time.Sleep(time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			t.Fatal("the job is not held")
		}
	}
	v := view(n, spec.Job)
	if affordable < 2 || len(v.Attempts) != affordable || v.Released != 0 || v.State != rounds.Running {
		t.Errorf("%d attempts, want %d; %d released, state %v", len(v.Attempts), affordable, v.Released, v.State)
	}
	for _, a := range v.Attempts {
		if a.Phase != rounds.Failed || a.Members != spec.NMin-1 {
			t.Errorf("%+v", a)
		}
	}
	if want := accounting.NanoRho(affordable) * spec.Releases[0].Charge; v.Spent != want {
		t.Errorf("%v spent, want %v", v.Spent, want)
	}
	n.Do(t, rounds.OpenRound{Job: spec.Job, Round: 1, Attempt: affordable + 1})
	if _, ok := n.Attempt(spec.Job, 1, affordable+1, rounds.Released); !ok {
		t.Error("the attempt that was opened by hand is not released")
	}
}

// What fails for want of a leader, or with an unknown outcome, is tried again.
func TestUnknownOutcomes(t *testing.T) {
	n := solo.New()
	var count int
	n.Around = func(_ rounds.Command, apply func() (uint64, error)) (uint64, error) {
		switch count++; count % 3 {
		case 1:
			return 0, replication.ErrNoLeader
		case 2:
			_, _ = apply()
			return 0, replication.ErrIndeterminate
		}
		return apply()
	}
	spec := n.Create(t, solo.Parameters(), solo.Terms("movies"))
	drive(t, n)
	for round := 1; round <= len(spec.Releases); round++ {
		fill(t, n, spec, round, 1, spec.RoundSize)
	}
	if _, ok := n.Attempt(spec.Job, len(spec.Releases), 1, rounds.Released); !ok {
		t.Fatal("the job does not end")
	}
	if v := view(n, spec.Job); len(v.Attempts) != len(spec.Releases) {
		t.Errorf("%d attempts for %d rounds", len(v.Attempts), len(spec.Releases))
	}
}

// Who does not lead does nothing; who begins to lead goes on.
func TestLeadership(t *testing.T) {
	n := solo.New()
	n.Lead(false)
	spec := n.Create(t, solo.Parameters(), solo.Terms("movies"))
	n.Around = func(c rounds.Command, apply func() (uint64, error)) (uint64, error) {
		if leading, _ := n.Leading(); !leading {
			t.Errorf("%T of a follower", c)
		}
		return apply()
	}
	drive(t, n)
	n.SetNotReady("just another change")
	n.Lead(true)
	fill(t, n, spec, 1, 1, spec.RoundSize)
	if _, ok := n.Attempt(spec.Job, 1, 1, rounds.Released); !ok {
		t.Error("round 1 is not released")
	}
}

// A state that cannot be computed fails the attempt with the reason.
func TestNoNextState(t *testing.T) {
	n := solo.New()
	terms := solo.Terms("movies")
	spec, raw := solo.Spec(t, solo.Parameters(), terms)
	n.Do(t, rounds.CreateJob{Spec: raw, State: rounds.BlobOf([]byte("no state of any method"))})
	n.Do(t, rounds.Run{Job: spec.Job})
	drive(t, n)
	fill(t, n, spec, 1, 1, spec.RoundSize)
	if a, ok := n.Attempt(spec.Job, 1, 1, rounds.Failed); !ok || a.Why == "" {
		t.Errorf("attempt: %+v", a)
	}
}

func TestNext(t *testing.T) {
	terms := solo.Terms("movies")
	terms.Deadline = time.Minute
	spec, _ := solo.Spec(t, solo.Parameters(), terms)
	spare := *spec
	spare.Budget += spec.Releases[0].Charge
	failed := rounds.Attempt{Round: 1, Attempt: 1, Phase: rounds.Failed}
	for _, c := range []struct {
		name  string
		job   board.Job
		want  move
		after time.Duration
	}{
		{"new", board.Job{Spec: spec, State: rounds.Running}, open, 0},
		{"paused", board.Job{Spec: spec, State: rounds.Paused}, rest, 0},
		{"exhausted", board.Job{Spec: spec, State: rounds.Exhausted}, rest, 0},
		{"collects", board.Job{Spec: spec, State: rounds.Running, Last: rounds.Attempt{Round: 1, Attempt: 1, Phase: rounds.Collecting}}, closing, time.Minute},
		{"collects though paused", board.Job{Spec: spec, State: rounds.Paused, Last: rounds.Attempt{Round: 1, Attempt: 1, Phase: rounds.Collecting}}, closing, time.Minute},
		{"closed", board.Job{Spec: spec, State: rounds.Paused, Last: rounds.Attempt{Round: 1, Attempt: 1, Phase: rounds.Closed}}, release, 0},
		{"released", board.Job{Spec: spec, State: rounds.Running, Released: 1, Last: rounds.Attempt{Round: 1, Attempt: 1, Phase: rounds.Released}}, open, 0},
		{"finished", board.Job{Spec: spec, State: rounds.Finished, Released: len(spec.Releases)}, rest, 0},
		{"failed, nothing to spare", board.Job{Spec: spec, State: rounds.Running, Spent: spec.Releases[0].Charge, Last: failed}, held, 0},
		{"failed, an attempt to spare", board.Job{Spec: &spare, State: rounds.Running, Spent: spec.Releases[0].Charge, Last: failed}, open, time.Minute},
		{"failed and paused", board.Job{Spec: &spare, State: rounds.Paused, Last: failed}, rest, 0},
	} {
		if got, after := next(&c.job); got != c.want || after != c.after {
			t.Errorf("%s: %v after %v, want %v after %v", c.name, got, after, c.want, c.after)
		}
	}
}

func TestReasonsAreOneLine(t *testing.T) {
	if got := oneLine(errors.New("no\nstate:\t7")); got != "no state: 7" {
		t.Errorf("%q", got)
	}
	long := make([]byte, 1000)
	for i := range long {
		long[i] = "\u00e9"[i%2]
	}
	if got := oneLine(errors.New(string(long) + "x")); len(got) > 200 {
		t.Errorf("%d bytes", len(got))
	}
}
