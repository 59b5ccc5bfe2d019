package rounds_test

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
	"pgregory.net/rapid"
)

// TestPromises drives a machine with random commands, right and wrong ones,
// and holds it against what the commands that it took mean; and its ledger, once it has
// one, against an auditor who trusts nothing but the key that it began with.
func TestPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		t.Repeat(map[string]func(*rapid.T){
			"":        h.check,
			"advance": h.advance,
			"go on":   h.advance, // as often as all the rest
			"proceed": h.advance,
			"create":  h.create,
			"run":     h.run,
			"open":    h.open,
			"collect": h.collect,
			"again":   h.again,
			"stage":   h.stage,
			"close":   h.close,
			"release": h.release,
			"fail":    h.fail,
			"restart": h.restart,

			"begin ledger": h.beginLedger,
			"rotate key":   h.rotateKey,
			"close job":    h.closeJob,
			"measure":      h.measure,
			"audit":        h.audit,
		})
		h.audit(t)
	})
}

// history is a machine, its twin, and what the commands that were taken mean.
type history struct {
	t    *rapid.T
	m    *rounds.Machine
	twin *rounds.Machine // restored from a snapshot, and given every command since
	jobs map[string]*jobHistory
	last rounds.Command // the last one taken

	signer byte              // number of the ledger's key
	former map[byte]bool     // keys that signed before it
	seen   ledger.Checkpoint // by an auditor
}

// jobHistory is naive: it keeps every contribution.
type jobHistory struct {
	spec     *rounds.Spec
	charged  accounting.NanoRho
	released []string                // states, the first before any release
	over     bool                    // closed by an operator
	open     map[string][]int64      // contributions to the open attempt, nil if none is
	closed   bool                    // whether it is closed
	members  map[key]map[string]bool // of all attempts
	seen     map[[2]int]rounds.Phase // of every attempt, the last known
}

func newHistory(t *rapid.T) *history {
	return &history{t: t, m: rounds.NewMachine(), twin: rounds.NewMachine(), jobs: make(map[string]*jobHistory), former: make(map[byte]bool)}
}

// propose applies a command to both machines. A refusal must leave the state
// as it was.
func (h *history) propose(c rounds.Command) *rounds.Refusal {
	before := snapshot(h.m)
	dated := c
	if rapid.Bool().Draw(h.t, "dated") {
		dated = rounds.Dated{At: rapid.Int64Range(0, 1<<40).Draw(h.t, "at"), Command: c}
	}
	effect, err := h.m.Apply(dated)
	twinEffect, twinErr := h.twin.Apply(dated)
	if effect != twinEffect || fmt.Sprint(err) != fmt.Sprint(twinErr) {
		h.t.Fatalf("%+v: restored machine differs: %v and %v", c, err, twinErr)
	}
	if err == nil {
		h.last = c
		return nil
	}
	var refusal *rounds.Refusal
	if !errors.As(err, &refusal) {
		h.t.Fatalf("%+v: %v is no refusal", c, err)
	}
	if after := snapshot(h.m); !reflect.DeepEqual(before, after) {
		h.t.Fatalf("%+v: refused (%v), and changed the state", c, err)
	}
	return refusal
}

// snapshot is m's, in a form that can be compared.
func snapshot(m *rounds.Machine) *rounds.Snapshot {
	s := m.Snapshot()
	if len(s.Clients) == 0 {
		s.Clients = nil
	}
	return s
}

// key is an attempt at a round of a job.
type key struct {
	job            string
	round, attempt int
}

// current is the job's attempt that is open or comes next.
func (h *history) current(job string) key {
	v, _ := h.m.Job(job)
	k := key{job, v.Released + 1, 1}
	if n := len(v.Attempts); n > 0 && v.Attempts[n-1].Round == k.round {
		k.attempt = v.Attempts[n-1].Attempt
		if v.Attempts[n-1].Phase == rounds.Failed {
			k.attempt++
		}
	}
	return k
}

// key draws a current attempt, or one near it.
func (h *history) key(t *rapid.T) key {
	k := h.current(drawJob(t))
	if rapid.IntRange(0, 3).Draw(t, "astray") == 0 {
		k.round += rapid.IntRange(-1, 1).Draw(t, "round")
		k.attempt += rapid.IntRange(-1, 1).Draw(t, "attempt")
	}
	return k
}

func drawJob(t *rapid.T) string { return rapid.SampledFrom([]string{"films", "songs"}).Draw(t, "job") }

var users = []string{"ann", "bob", "cat", "dan", "eve", "fay"}

// advance does what comes next in the life of a job.
func (h *history) advance(t *rapid.T) {
	k := h.current(drawJob(t))
	switch j := h.jobs[k.job]; {
	case j == nil:
		h.createJob(t, k.job)
		h.propose(rounds.Run{Job: k.job})
	case j.open == nil:
		h.openRound(t, k)
	case j.closed:
		h.releaseRound(t, k)
	case len(j.open) < j.spec.NMin:
		h.collectFrom(t, k)
	default:
		h.propose(rounds.CloseRound{Job: k.job, Round: k.round, Attempt: k.attempt})
	}
}

func (h *history) create(t *rapid.T) { h.createJob(t, drawJob(t)) }

func (h *history) createJob(t *rapid.T, name string) {
	releases := rapid.IntRange(1, 4).Draw(t, "releases")
	spec := honest(newSpec(name, releases, 2, 10, accounting.NanoRho(rapid.IntRange(10, 100).Draw(t, "budget"))))
	refusal := h.propose(rounds.CreateJob{Spec: encode(t, spec), State: rounds.BlobOf([]byte("U0"))})
	if refusal == nil && h.jobs[name] == nil {
		h.jobs[name] = &jobHistory{spec: spec, released: []string{"U0"}, members: make(map[key]map[string]bool), seen: make(map[[2]int]rounds.Phase)}
	}
}

func (h *history) run(t *rapid.T) {
	k := h.key(t)
	h.propose(rounds.Run{Job: k.job, Until: rapid.SampledFrom([]int{0, 0, k.round, rounds.NoRound}).Draw(t, "until")})
}

func (h *history) open(t *rapid.T) { h.openRound(t, h.key(t)) }

func (h *history) openRound(t *rapid.T, k key) {
	if h.propose(rounds.OpenRound{Job: k.job, Round: k.round, Attempt: k.attempt}) != nil {
		return
	}
	j := h.jobs[k.job]
	if j.open != nil || j.over {
		t.Fatalf("%v: opened beside another attempt, or after its job", k)
	}
	if k.round != len(j.released) {
		t.Fatalf("%v was opened after round %d", k, len(j.released)-1)
	}
	j.charged += j.spec.Releases[k.round-1].Charge
	j.open = make(map[string][]int64)
	j.members[k] = make(map[string]bool)
}

func (h *history) collect(t *rapid.T) { h.collectFrom(t, h.key(t)) }

func (h *history) collectFrom(t *rapid.T, k key) {
	j := h.jobs[k.job]
	if j == nil {
		return
	}
	users := rapid.SliceOfN(rapid.SampledFrom(users), 1, 3).Draw(t, "members")
	contributions := make([][]int64, len(users))
	var total [2]int64
	var ids []rounds.ClientID
	for i, user := range users {
		// Large ones, so that sums wrap.
		contributions[i] = rapid.SliceOfN(rapid.Int64Range(-1<<15, 1<<15-1), 2, 2).Draw(t, user)
		total[0] += contributions[i][0]
		total[1] += contributions[i][1]
		ids = append(ids, rounds.ClientOf(user))
	}
	refusal := h.propose(rounds.Collect{Job: k.job, Round: k.round, Attempt: k.attempt, Members: ids, Sum: pack(j.spec, total[:]...)})
	if refusal == nil {
		for i, user := range users {
			if j.open == nil || j.closed || j.open[user] != nil {
				t.Fatalf("%v: %s was added twice, or too late", k, user)
			}
			j.open[user] = contributions[i]
			j.members[k][user] = true
		}
		return
	}
	if refusal.Reason == rounds.Counted {
		for i, user := range users {
			if known := j.members[k][user]; known != slices.Contains(refusal.Counted, i) {
				t.Fatalf("%v: %s is in the sum: %v, said to be: %v", k, user, known, !known)
			}
		}
	}
}

// again proposes the last command that was taken once more, as a proposer does
// who does not know its outcome.
func (h *history) again(t *rapid.T) {
	if h.last == nil {
		return
	}
	refusal := h.propose(h.last)
	var want rounds.Reason
	switch c := h.last.(type) {
	case rounds.OpenRound:
		want = rounds.AlreadyOpen
	case rounds.Collect:
		want = rounds.Counted
		if refusal != nil && len(refusal.Counted) != len(c.Members) {
			t.Fatalf("counted %v of %d members", refusal.Counted, len(c.Members))
		}
	case rounds.CloseRound, rounds.FailRound:
		want = rounds.NotOpen
	case rounds.ReleaseRound:
		want = rounds.AlreadyReleased
	}
	if want == 0 && refusal != nil || want != 0 && (refusal == nil || refusal.Reason != want) {
		t.Fatalf("%+v again: %v, want %v", h.last, refusal, want)
	}
}

// stage stages the latest state's successor, in two pieces.
func (h *history) stage(t *rapid.T) {
	k := h.key(t)
	next := k.state()
	blob := rounds.BlobOf(next)
	from := rapid.IntRange(0, len(next)-1).Draw(t, "from")
	h.propose(rounds.Stage{
		Job: k.job, Round: k.round, Attempt: k.attempt,
		Digest: blob.Digest, Size: blob.Size, Offset: int64(from), Piece: next[from:],
	})
}

func (h *history) close(t *rapid.T) {
	k := h.key(t)
	h.propose(rounds.CloseRound{Job: k.job, Round: k.round, Attempt: k.attempt})
}

func (h *history) release(t *rapid.T) { h.releaseRound(t, h.key(t)) }

// state is what the round of k releases.
func (k key) state() []byte { return fmt.Appendf(nil, "U%d.%d", k.round, k.attempt) }

func (h *history) releaseRound(t *rapid.T, k key) {
	blob := rounds.BlobOf(k.state())
	if rapid.IntRange(0, 3).Draw(t, "staged") == 0 {
		blob.Bytes = nil
	}
	if h.propose(rounds.ReleaseRound{Job: k.job, Round: k.round, Attempt: k.attempt, State: blob}) != nil {
		return
	}
	j := h.jobs[k.job]
	switch {
	case !j.closed || len(j.open) < j.spec.NMin:
		t.Fatalf("%v was released with %d contributions, closed: %v", k, len(j.open), j.closed)
	case k.round != len(j.released):
		t.Fatalf("%v was released after round %d", k, len(j.released)-1)
	}
	j.released = append(j.released, string(k.state()))
	j.open, j.closed = nil, false
}

func (h *history) fail(t *rapid.T) {
	k := h.key(t)
	if h.propose(rounds.FailRound{Job: k.job, Round: k.round, Attempt: k.attempt, Why: "no solution"}) == nil {
		h.jobs[k.job].open, h.jobs[k.job].closed = nil, false
	}
}

func (h *history) beginLedger(t *rapid.T) { h.propose(beginLedger(t)) }

func (h *history) rotateKey(t *rapid.T) {
	from, to := h.signer, byte(rapid.IntRange(0, 9).Draw(t, "to"))
	if rapid.IntRange(0, 3).Draw(t, "astray") == 0 {
		from++
	}
	refusal := h.propose(rotation(t, from, to))
	if allowed := h.m.Ledger() != nil && (from == h.signer && !h.former[to] || to == h.signer); allowed != (refusal == nil) {
		t.Fatalf("from key %d to %d, endorsed by %d: %v", h.signer, to, from, refusal)
	}
	if refusal == nil && to != h.signer {
		h.former[h.signer], h.signer = true, to
	}
}

func (h *history) closeJob(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "meant") > 0 {
		return // else few jobs come to their end
	}
	name := drawJob(t)
	if h.propose(rounds.CloseJob{Job: name}) != nil {
		return
	}
	if j := h.jobs[name]; len(j.released) <= len(j.spec.Releases) {
		j.open, j.closed, j.over = nil, false, true
	}
}

func (h *history) measure(t *rapid.T) { h.propose(measured(drawJob(t))) }

// audit holds the ledger against the state, and against what was seen of it before.
func (h *history) audit(t *rapid.T) {
	if h.m.Ledger() == nil {
		return
	}
	signer, _ := ledgerKey(t, h.signer)
	h.seen = audit(t, h.m, signer, h.seen)
}

func (h *history) restart(t *rapid.T) {
	m, err := rounds.Restore(h.m.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(snapshot(m), snapshot(h.m)) {
		t.Fatal("the snapshot of a restored machine differs")
	}
	h.twin = m
}

// check holds the machine against the history.
func (h *history) check(t *rapid.T) {
	if names := slices.Sorted(maps.Keys(h.jobs)); !slices.Equal(names, h.m.Jobs()) {
		t.Fatalf("jobs %v, want %v", h.m.Jobs(), names)
	}
	for name, j := range h.jobs {
		v, _ := h.m.Job(name)
		if v.Spent != j.charged || v.Spent > j.spec.Budget {
			t.Fatalf("%s: %d spent of %d, want %d", name, v.Spent, j.spec.Budget, j.charged)
		}
		if v.Released != len(j.released)-1 || string(v.Latest.Bytes) != j.released[v.Released] {
			t.Fatalf("%s: state %d is %q, want %q", name, v.Released, v.Latest.Bytes, j.released)
		}
		for i, a := range v.Attempts {
			key := [2]int{a.Round, a.Attempt}
			if was := j.seen[key]; was > a.Phase || was == rounds.Released && a.Phase != rounds.Released {
				t.Fatalf("%s: %v went from phase %d to %d", name, key, was, a.Phase)
			}
			j.seen[key] = a.Phase
			if i < len(v.Attempts)-1 && (a.Phase == rounds.Collecting || a.Phase == rounds.Closed) {
				t.Fatalf("%s: %v is open, and not the last", name, key)
			}
		}
		for _, a := range v.Attempts[max(0, len(v.Attempts)-2):] {
			k := key{name, a.Round, a.Attempt}
			for _, user := range users {
				if in, known := h.m.Member(name, k.round, k.attempt, rounds.ClientOf(user)); !known || in != j.members[k][user] {
					t.Fatalf("%v: %s is a member: %v, known: %v, want %v", k, user, in, known, j.members[k][user])
				}
			}
		}
		if len(v.Attempts) > 0 {
			j.follow(t, h.m, v.Attempts[len(v.Attempts)-1])
		}
	}
}

// follow checks the last attempt.
func (j *jobHistory) follow(t *rapid.T, m *rounds.Machine, a rounds.Attempt) {
	sum := m.Sum(j.spec.Job)
	switch a.Phase {
	case rounds.Collecting:
		if j.open == nil || j.closed || a.Members != len(j.open) || len(j.open) >= j.spec.RoundSize {
			t.Fatalf("%d collecting members, want %d, closed: %v", a.Members, len(j.open), j.closed)
		}
	case rounds.Closed:
		j.closed = true
		var want [2]int64
		for _, contribution := range j.open {
			want[0] += contribution[0]
			want[1] += contribution[1]
		}
		j.spec.Lattice.Reduce(want[:])
		if a.Members != len(j.open) || a.Members < j.spec.NMin || !slices.Equal(sum, want[:]) {
			t.Fatalf("%d members with the sum %v, want %d with %v", a.Members, sum, len(j.open), want)
		}
		if a.Sum != pack(j.spec, want[:]...).Digest {
			t.Fatalf("the digest is not that of the sum")
		}
		return
	case rounds.Failed:
		j.open, j.closed = nil, false
	}
	if sum != nil {
		t.Fatalf("a sum in phase %d", a.Phase)
	}
}
