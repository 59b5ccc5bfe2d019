// Package driver takes jobs from round to round, on the node that leads: it
// opens rounds, closes them at their deadline, computes the next state and
// releases it.
//
// Every decision follows from the replicated state and from durations measured
// on this node's monotonic clock since it saw that state (board.Job.Since): a
// wrong clock changes nothing, and a new leader goes on where the last one was,
// giving an open round its full deadline again. Two leaders at a time, or a
// decision taken twice, do no harm: the state machine admits the first.
//
// # The ledger
//
// A leader that was told of a ledger begins it, where there is none, before it does
// anything else: nothing is then spent that is not on record. Only while there are
// members of a release before ledgers does it go on without, as that release did.
//
// A leader that cannot sign the ledger opens no round: clients would not be shown that
// it is charged, and so not come, and its charge would be for nothing. It hands
// leadership to a node that is ready, at most once in handOnPause, so that two that
// think so of each other do not play with it; if there is none it waits for the key.
// Rounds that are open it closes and releases, which costs nothing more.
//
// # Failed attempts
//
// An attempt that fails has spent its charge. It is followed by another one no
// sooner than a deadline later, and only if the budget then still has room for
// every round to come: what a job was given to spare (jobs.Terms.Spare) is for
// failures, and the rest is for the model. A job without anything to spare is
// held; an operator who wants the attempt all the same opens it by hand.
package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/server/board"
	"github.com/undertone-fl/undertone/server/metrics"
	"github.com/undertone-fl/undertone/server/notary"
	"github.com/undertone-fl/undertone/server/replication"
)

// Node is the replica that the driver acts through.
type Node interface {
	Propose(ctx context.Context, c rounds.Command) (index uint64, err error)
	StageBlob(ctx context.Context, job string, round, attempt int, b []byte) (rounds.Blob, error)
	View(func(m *rounds.Machine, index uint64))
	Members(ctx context.Context) ([]replication.Member, error)
	TransferLeadership(ctx context.Context, to string) error
}

// Config of a Driver.
type Config struct {
	Logger  *slog.Logger
	Metrics *metrics.Metrics
	Tracer  trace.Tracer
	Ledger  Ledger
	// Signs says why this node cannot sign the ledger that there is, nil if it can. A
	// Driver without it asks nobody.
	Signs func() error
}

// Ledger is the ledger that a cluster without one is to have: its origin and public
// key. The zero value is none.
type Ledger struct{ Origin, Key string }

// Driver drives all jobs. See Run.
type Driver struct {
	node   Node
	board  *board.Board
	config Config
	// advancing admits one computation of a state at a time: it uses all cores.
	advancing chan struct{}
}

// New returns a driver.
func New(n Node, b *board.Board, c Config) *Driver {
	return &Driver{n, b, c, make(chan struct{}, 1)}
}

// move is what a job needs next.
type move uint8

const (
	rest    move = iota // nothing before the state changes
	open                // the next attempt
	closing             // of the open round, at its deadline
	release             // of a closed round: advance, and publish
	held                // another attempt would spend what later rounds need
)

func (m move) String() string { return [...]string{"rest", "open", "close", "release", "held"}[m] }

// next says what a job needs next, and how long after j.Since.
func next(j *board.Job) (move, time.Duration) {
	switch j.Last.Phase {
	case rounds.Collecting:
		return closing, j.Deadline()
	case rounds.Closed:
		return release, 0
	}
	round := j.Released + 1
	if j.State != rounds.Running || round > len(j.Spec.Releases) || j.Until > 0 && round > j.Until {
		return rest, 0
	}
	if j.Last.Phase != rounds.Failed {
		return open, 0
	}
	if !affordable(j) {
		return held, 0
	}
	return open, j.Deadline()
}

// affordable reports whether the budget has room for another attempt at the
// next round, and one at each round after it.
func affordable(j *board.Job) bool {
	needed := j.Spent
	for _, r := range j.Spec.Releases[j.Released:] {
		var err error
		if needed, err = needed.Add(r.Charge); err != nil {
			return false
		}
	}
	return needed <= j.Spec.Budget
}

// Held reports whether a job waits for an operator, since another attempt would spend
// what later rounds need.
func Held(j *board.Job) bool {
	m, _ := next(j)
	return m == held
}

// attemptOf returns the attempt that a move is about.
func attemptOf(j *board.Job, m move) (round, attempt int) {
	if m != open {
		return j.Last.Round, j.Last.Attempt
	}
	return j.Released + 1, j.Next
}

// turn is a job's last move, to not make it again at once.
type turn struct {
	busy    bool
	since   time.Time // j.Since when it was made
	move    move
	refused bool      // by the state machine: pointless before the job changes
	again   time.Time // otherwise, when to try again
	pause   time.Duration
}

// outcome is a move that was made.
type outcome struct {
	job   string
	index uint64
	err   error
}

const (
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Run drives until ctx is done, whenever this node leads.
func (d *Driver) Run(ctx context.Context) {
	turns := make(map[string]*turn)
	outcomes := make(chan outcome)
	busy := 0
	var ledger beginning
	var unsigned silence
	var index uint64
	defer func() {
		for ; busy > 0; busy-- {
			<-outcomes
		}
	}()
	for {
		edition, _ := d.board.At(index)
		if !edition.Leading {
			maps.DeleteFunc(turns, func(_ string, t *turn) bool { return !t.busy })
			d.config.Metrics.Held.Reset()
		}
		drives := edition.Leading
		now := time.Now()
		var wake time.Time
		if drives && !d.recorded() {
			if !now.Before(ledger.again) {
				ledger = d.beginLedger(ctx, ledger)
			}
			wake, drives = ledger.again, ledger.drives
		}
		opens := true
		if unsigned = d.signs(edition.Leading, unsigned); unsigned.why != "" {
			opens, wake = false, sooner(wake, d.wait(ctx, &unsigned))
		} else if edition.Leading && d.config.Signs != nil {
			wake = sooner(wake, now.Add(signPause)) // a rotation changes no job
		}
		for i := range edition.Jobs {
			if !drives {
				break
			}
			j := &edition.Jobs[i]
			t := turns[j.Name]
			if t == nil {
				t = new(turn)
				turns[j.Name] = t
			}
			if t.busy {
				continue
			}
			m, after := next(j)
			d.hold(j, t, m)
			if m == rest || m == held || m == open && !opens {
				continue
			}
			due := j.Since.Add(after)
			if t.since.Equal(j.Since) && t.move == m {
				if t.refused {
					continue
				}
				due = later(due, t.again)
			} else {
				t.pause = 0
			}
			if due.After(now) {
				wake = sooner(wake, due)
				continue
			}
			*t = turn{busy: true, since: j.Since, move: m, pause: t.pause}
			busy++
			go func() { outcomes <- d.make(ctx, j, m) }()
		}

		var alarm <-chan time.Time
		if !wake.IsZero() {
			alarm = time.After(wake.Sub(now))
		}
		select {
		case <-ctx.Done():
			return
		case <-edition.Next:
		case <-alarm:
		case o := <-outcomes:
			busy--
			index = max(index, o.index)
			t := turns[o.job]
			t.busy = false
			refusal, ok := errors.AsType[*rounds.Refusal](o.err)
			t.refused = ok && refusal.Reason != rounds.NotStaged
			t.pause = min(max(2*t.pause, firstPause), lastPause)
			t.again = time.Now().Add(t.pause)
		}
	}
}

// recorded reports whether all that is done from now on is in a ledger, if it is to be.
func (d *Driver) recorded() (yes bool) {
	if d.config.Ledger == (Ledger{}) {
		return true
	}
	d.node.View(func(m *rounds.Machine, _ uint64) { yes = m.Ledger() != nil })
	return yes
}

// beginning is what became of the last try to begin the ledger.
type beginning struct {
	drives bool          // it has begun, or is to wait for members to be upgraded
	again  time.Time     // when to try again
	pause  time.Duration // until then
	why    string        // it has not begun
}

func (d *Driver) beginLedger(ctx context.Context, last beginning) beginning {
	_, err := d.node.Propose(ctx, rounds.BeginLedger(d.config.Ledger))
	if err == nil {
		d.config.Logger.Info("ledger begun", "origin", d.config.Ledger.Origin)
		return beginning{drives: true}
	}
	if ctx.Err() == nil && err.Error() != last.why {
		d.config.Logger.Warn("the ledger has not begun, to be tried again", "err", err)
	}
	pause := min(max(2*last.pause, firstPause), lastPause)
	return beginning{errors.Is(err, replication.ErrOldMember), time.Now().Add(pause), pause, err.Error()}
}

const (
	// signPause is how soon a leader looks again whether it can sign.
	signPause = time.Second
	// handOnPause is how soon a node that cannot sign hands leadership on again, and
	// handOnTime what that may take.
	handOnPause = 10 * time.Second
	handOnTime  = 5 * time.Second
)

// silence is that of a leader that cannot sign.
type silence struct {
	why    string    // empty: it can, or does not lead
	handed time.Time // when this node last tried to hand leadership on
}

// signs looks whether a leader can sign, and says so once when that changes.
func (d *Driver) signs(leading bool, last silence) silence {
	now := silence{handed: last.handed}
	if leading && d.config.Signs != nil {
		if err := d.config.Signs(); err != nil && !errors.Is(err, notary.ErrNoLedger) {
			now.why = err.Error()
		}
	}
	switch {
	case now.why == last.why:
	case now.why != "":
		d.config.Metrics.Unsigned.Set(1)
		d.config.Logger.Warn("no round is opened: this node leads, and cannot sign the ledger", "why", now.why)
	default:
		d.config.Metrics.Unsigned.Set(0)
		if leading {
			d.config.Logger.Info("rounds are opened again: this node can sign the ledger")
		}
	}
	return now
}

// wait hands leadership on, if it is time to, and returns when to look again.
func (d *Driver) wait(ctx context.Context, s *silence) time.Time {
	if s.handed.IsZero() || time.Since(s.handed) >= handOnPause {
		s.handed = time.Now()
		d.handOn(ctx)
	}
	return time.Now().Add(signPause)
}

// handOn hands leadership to a node that is ready, and so can sign, if there is one.
func (d *Driver) handOn(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, handOnTime)
	defer cancel()
	members, err := d.node.Members(ctx)
	if err != nil {
		return // it stops, or asks again
	}
	for _, m := range members {
		if m.Leader || !m.Voter || !m.Reachable || m.Diverged || len(m.NotReady) > 0 {
			continue
		}
		err := d.node.TransferLeadership(ctx, m.Name)
		d.config.Logger.Info("leadership handed to a node that can sign the ledger", "to", m.Name, "err", err)
		if err == nil {
			return
		}
	}
}

// sooner is the earlier of two times, of which a may be none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// hold says once that a job is held, and shows it for as long as it is.
func (d *Driver) hold(j *board.Job, t *turn, m move) {
	if was := t.move == held; was == (m == held) {
		return
	}
	if m != held {
		d.config.Metrics.Held.DeleteLabelValues(j.Name)
		return
	}
	*t = turn{since: j.Since, move: held}
	d.config.Metrics.Held.WithLabelValues(j.Name).Set(1)
	d.config.Logger.Warn("job is held: another attempt would spend what later rounds need; an operator may open it by hand",
		"job", j.Name, "round", j.Last.Round, "attempts", j.Last.Attempt, "why", j.Last.Why,
		"spent", j.Spent.String(), "budget", j.Spec.Budget.String())
}

// make makes a move, and reports what became of it.
func (d *Driver) make(ctx context.Context, j *board.Job, m move) outcome {
	round, attempt := attemptOf(j, m)
	ctx, span := d.config.Tracer.Start(ctx, "round "+m.String(), trace.WithAttributes(
		attribute.String("job", j.Name), attribute.Int("round", round), attribute.Int("attempt", attempt)))
	defer span.End()

	var (
		index uint64
		err   error
	)
	switch m {
	case open:
		index, err = d.node.Propose(ctx, rounds.OpenRound{Job: j.Name, Round: round, Attempt: attempt})
	case closing:
		index, err = d.node.Propose(ctx, rounds.CloseRound{Job: j.Name, Round: round, Attempt: attempt})
	case release:
		index, err = d.release(ctx, j)
	}

	log := d.config.Logger.With("job", j.Name, "round", round, "attempt", attempt)
	what := "done"
	switch refused, ok := errors.AsType[*rounds.Refusal](err); {
	case err == nil:
		log.Info("round " + m.String())
	case ok && slices.Contains([]rounds.Reason{rounds.AlreadyOpen, rounds.AlreadyReleased, rounds.NotOpen, rounds.WrongRound}, refused.Reason):
		what = "overtaken" // by an operator, by another leader, or by the last member
	case ok:
		what = "refused"
		log.Warn("round "+m.String()+" refused", "err", err)
	case ctx.Err() != nil:
		what = "stopped"
	default:
		what = "failed"
		log.Warn("round "+m.String()+" failed, to be tried again", "err", err)
	}
	if err != nil {
		span.RecordError(err)
	}
	d.config.Metrics.Actions.WithLabelValues(m.String(), what).Inc()
	return outcome{j.Name, index, err}
}

// release computes the state after a closed round and publishes it, or fails
// the attempt if there is no such state.
func (d *Driver) release(ctx context.Context, j *board.Job) (uint64, error) {
	select {
	case d.advancing <- struct{}{}:
		defer func() { <-d.advancing }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	round, attempt := j.Last.Round, j.Last.Attempt
	var (
		state   []byte
		sum     []int64
		members int
	)
	d.node.View(func(m *rounds.Machine, _ uint64) {
		v, ok := m.Job(j.Name)
		if !ok || len(v.Attempts) == 0 {
			return
		}
		if last := v.Attempts[len(v.Attempts)-1]; last.Round == round && last.Attempt == attempt && last.Phase == rounds.Closed {
			state, sum, members = v.Latest.Bytes, slices.Clone(m.Sum(j.Name)), last.Members
		}
	})
	if sum == nil {
		return 0, &rounds.Refusal{Reason: rounds.NotOpen, Detail: "the attempt is no longer closed"}
	}

	start := time.Now()
	_, span := d.config.Tracer.Start(ctx, "advance")
	next, err := advance(j.Spec, round, state, sum, members)
	span.End()
	d.config.Metrics.AdvanceSeconds.Observe(time.Since(start).Seconds())
	if err != nil {
		d.config.Logger.Error("no state after the round", "job", j.Name, "round", round, "attempt", attempt, "err", err)
		return d.node.Propose(ctx, rounds.FailRound{Job: j.Name, Round: round, Attempt: attempt, Why: oneLine(err)})
	}
	blob, err := d.node.StageBlob(ctx, j.Name, round, attempt, next)
	if err != nil {
		return 0, err
	}
	return d.node.Propose(ctx, rounds.ReleaseRound{Job: j.Name, Round: round, Attempt: attempt, State: blob})
}

// advance is jobs.Advance, with a panic as an error: a sum that the method
// cannot digest fails an attempt, never a server.
func advance(s *rounds.Spec, round int, state []byte, sum []int64, members int) (next []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return jobs.Advance(s, round, state, sum, members)
}

// oneLine is an error as a reason that is replicated.
func oneLine(err error) string {
	const longest = 200
	s := strings.Join(strings.Fields(err.Error()), " ")
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "")
	}
	return s
}
