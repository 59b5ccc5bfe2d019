package faults

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// history is what all clients were told, and what the servers showed: enough to
// decide whether the promises held.
type history struct {
	mu         sync.Mutex
	attempts   map[attemptKey]*attemptHistory
	jobs       map[string]*jobHistory
	violations []string

	// check says whether an attempt's calls have an order that leads to its members;
	// a test may set another.
	check func(a *attemptHistory, members []int) porcupine.CheckResult
}

type attemptHistory struct {
	calls  []*call
	closed time.Time // when somebody first saw it closed
}

// call is one Submit, from its beginning to its answer.
type call struct {
	client     int
	begin, end time.Time
	answer     answer
}

type kind int

const (
	unknown kind = iota // no answer, or none that tells the outcome
	counted
	refused // the attempt is over
)

type answer struct {
	kind      kind
	duplicate bool
	told, in  bool // with refused: whether the client was told if it is in the sum, and what
}

// jobHistory is what was seen of a job, which may only grow.
type jobHistory struct {
	spec     *rounds.Spec
	states   map[int][]byte // digests, by version
	released int
	spent    uint64
	shown    *undertonev1.Job // last
}

func newHistory() *history {
	return &history{attempts: map[attemptKey]*attemptHistory{}, jobs: map[string]*jobHistory{}, check: linearizable}
}

func (h *history) violation(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.violations = append(h.violations, fmt.Sprintf(format, args...))
}

func (h *history) attempt(k attemptKey) *attemptHistory {
	a := h.attempts[k]
	if a == nil {
		a = &attemptHistory{}
		h.attempts[k] = a
	}
	return a
}

// begin records that a call is made; the function that it returns, its answer.
func (h *history) begin(k attemptKey, client int) func(answer) {
	c := &call{client: client, begin: time.Now()}
	h.mu.Lock()
	a := h.attempt(k)
	a.calls = append(a.calls, c)
	h.mu.Unlock()
	return func(answer answer) {
		h.mu.Lock()
		defer h.mu.Unlock()
		c.end, c.answer = time.Now(), answer
	}
}

// acknowledged reports whether a call of the client was.
func (h *history) acknowledged(k attemptKey, client int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.attempt(k).calls {
		if c.client == client && c.answer.kind == counted {
			return true
		}
	}
	return false
}

// sawOpen records an attempt that collects, and the state that it starts from.
func (h *history) sawOpen(k attemptKey, state []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.attempt(k)
	h.sawState(k.job, k.round-1, state)
}

// sawState holds that the bytes of a version never change (promise 1). The caller
// has the lock.
func (h *history) sawState(job string, version int, digest []byte) {
	j := h.jobs[job]
	if j == nil {
		return
	}
	if before, seen := j.states[version]; !seen {
		j.states[version] = bytes.Clone(digest)
	} else if !bytes.Equal(before, digest) {
		h.violations = append(h.violations, fmt.Sprintf("%s: state %d was %x and is %x", job, version, before[:4], digest[:4]))
	}
}

// sawJob holds that what one node showed after another does not go backwards
// where it claims to be as new, and that spending is never understated
// (promises 1, 2, 6).
func (h *history) sawJob(j *undertonev1.Job) {
	h.mu.Lock()
	defer h.mu.Unlock()
	spec, err := rounds.ParseSpec(j.Spec)
	if err != nil {
		h.violations = append(h.violations, "a job's specification does not parse: "+err.Error())
		return
	}
	seen := h.jobs[spec.Job]
	if seen == nil {
		return
	}
	h.sawState(spec.Job, int(j.Released), j.StateDigest)
	if int(j.Released) < seen.released {
		h.violations = append(h.violations, fmt.Sprintf("%s: released rounds went from %d to %d", spec.Job, seen.released, j.Released))
	}
	if j.SpentNanoRho < seen.spent {
		h.violations = append(h.violations, fmt.Sprintf("%s: spent went from %d to %d nano-rho", spec.Job, seen.spent, j.SpentNanoRho))
	}
	seen.released, seen.spent, seen.shown = int(j.Released), j.SpentNanoRho, j
	var charged uint64
	next := 1
	for i, a := range j.Attempts {
		charged += uint64(spec.Releases[a.Round-1].Charge)
		k := attemptKey{spec.Job, int(a.Round), int(a.Attempt)}
		if a.Phase != undertonev1.Phase_PHASE_COLLECTING {
			if at := h.attempt(k); at.closed.IsZero() {
				at.closed = time.Now()
			}
		}
		if int(a.Round) != next {
			h.violations = append(h.violations, fmt.Sprintf("%v: round %d was to come", k, next))
		}
		switch a.Phase {
		case undertonev1.Phase_PHASE_RELEASED:
			if int(a.Members) < spec.NMin {
				h.violations = append(h.violations, fmt.Sprintf("%v: released with %d members, fewer than %d", k, a.Members, spec.NMin))
			}
			h.sawState(spec.Job, next, a.StateDigest)
			next++
		case undertonev1.Phase_PHASE_FAILED:
		default:
			if i < len(j.Attempts)-1 {
				h.violations = append(h.violations, fmt.Sprintf("%v: not ended, but another was opened", k))
			}
		}
	}
	if charged != j.SpentNanoRho {
		h.violations = append(h.violations, fmt.Sprintf("%s: %d nano-rho spent, attempts were charged %d", spec.Job, j.SpentNanoRho, charged))
	}
	if charged > uint64(spec.Budget) {
		h.violations = append(h.violations, fmt.Sprintf("%s: %d nano-rho spent of %d", spec.Job, charged, spec.Budget))
	}
}

// tally is what an attempt comes to.
type tally struct {
	acknowledged, unknown int
	released              bool
}

// settle checks an attempt that is over: that its sum is that of a set of
// contributions, each once, which holds every acknowledged one (promise 3), and
// that all calls of all clients can have happened in one order that leads there.
func (h *history) settle(spec *rounds.Spec, a *undertonev1.Attempt) tally {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := attemptKey{spec.Job, int(a.Round), int(a.Attempt)}
	seen := h.attempt(k)
	var out tally
	in, maybe := map[int]bool{}, map[int]bool{}
	for _, c := range seen.calls {
		switch {
		case c.answer.kind == counted, c.answer.told && c.answer.in:
			in[c.client] = true
		case c.answer.kind == unknown, c.answer.kind == refused && !c.answer.told:
			maybe[c.client] = true
		}
	}
	for c := range in {
		delete(maybe, c)
	}
	out.acknowledged, out.unknown = len(in), len(maybe)
	out.released = a.Phase == undertonev1.Phase_PHASE_RELEASED
	if len(a.SumDigest) == 0 {
		// An attempt that failed before it was closed has none, and said so.
		if a.Phase != undertonev1.Phase_PHASE_FAILED {
			h.violations = append(h.violations, fmt.Sprintf("%v: %v without the digest of a sum", k, a.Phase))
		}
		return out
	}
	members := match(spec, k, a, slices.Sorted(maps.Keys(in)), slices.Sorted(maps.Keys(maybe)))
	if members == nil {
		h.violations = append(h.violations, fmt.Sprintf("%v: the sum of %d members is none of contributions that hold the %d acknowledged ones once each",
			k, a.Members, len(in)))
		return out
	}
	switch h.check(seen, members) {
	case porcupine.Illegal:
		h.violations = append(h.violations, fmt.Sprintf("%v: no order of the calls explains their answers: %s", k, seen.describe(members)))
	case porcupine.Unknown:
		h.violations = append(h.violations, fmt.Sprintf("%v: no order of the calls was found in %v: %s", k, checkTime, seen.describe(members)))
	}
	return out
}

// match finds the subset of the clients that may be in a sum which, with those
// that are, has the attempt's digest; nil if there is none.
func match(spec *rounds.Spec, k attemptKey, a *undertonev1.Attempt, in, maybe []int) []int {
	length, width := spec.Releases[k.round-1].Length, int(spec.Lattice.ModulusBits/8)
	more := int(a.Members) - len(in)
	if more < 0 || more > len(maybe) {
		return nil
	}
	sum := make([]int64, length)
	add := func(client int, sign int64) {
		for i, v := range contribution(k, client, length) {
			sum[i] += sign * v
		}
	}
	for _, c := range in {
		add(c, 1)
	}
	chosen := slices.Clone(in)
	var search func(from, more int) []int
	search = func(from, more int) []int {
		if more == 0 {
			reduced := slices.Clone(sum)
			spec.Lattice.Reduce(reduced)
			if d := sha256.Sum256(aggregation.Pack(nil, reduced, width)); bytes.Equal(d[:], a.SumDigest) {
				return chosen
			}
			return nil
		}
		for i := from; i+more <= len(maybe); i++ {
			add(maybe[i], 1)
			chosen = append(chosen, maybe[i])
			if found := search(i+1, more-1); found != nil {
				return found
			}
			chosen = chosen[:len(chosen)-1]
			add(maybe[i], -1)
		}
		return nil
	}
	return search(0, more)
}

// describe lists the calls, by their beginning, in milliseconds from the first.
func (h *attemptHistory) describe(members []int) string {
	calls := slices.SortedFunc(slices.Values(h.calls), func(a, b *call) int { return a.begin.Compare(b.begin) })
	var out strings.Builder
	since := func(t time.Time) int64 { return t.Sub(calls[0].begin).Milliseconds() }
	for _, c := range calls {
		what := "no answer"
		switch a := c.answer; {
		case a.kind == counted && a.duplicate:
			what = "counted before"
		case a.kind == counted:
			what = "counted"
		case a.kind == refused && a.told:
			what = fmt.Sprintf("over, counted %t", a.in)
		case a.kind == refused:
			what = "over"
		}
		fmt.Fprintf(&out, "client %d from %d to %d: %s; ", c.client, since(c.begin), since(c.end), what)
	}
	fmt.Fprintf(&out, "seen closed at %d with members %v", since(h.closed), members)
	return out.String()
}

// roundState is an attempt to the model: the set of clients in its sum, a bit
// each, and whether it still collects.
type roundState struct {
	members uint64
	closed  bool
}

// closing is the operation that ends collecting with a set of members.
type closing struct{ members uint64 }

// model is what an attempt does, one operation after the other.
var model = porcupine.Model{
	Init: func() any { return roundState{} },
	Step: func(state, input, output any) (bool, any) {
		s := state.(roundState)
		if end, ok := input.(closing); ok {
			return !s.closed && s.members == end.members, roundState{s.members, true}
		}
		bit := uint64(1) << input.(int)
		switch a := output.(answer); {
		case a.kind == counted:
			// As a duplicate or not: a server may itself have sent twice.
			if s.members&bit != 0 {
				return true, s
			}
			return !s.closed, roundState{s.members | bit, s.closed}
		case a.kind == refused && a.told:
			return s.closed && (s.members&bit != 0) == a.in, s
		case a.kind == refused:
			return s.closed, s
		default:
			// No answer: it may have been counted, or may not.
			return true, s
		}
	},
	Equal: func(a, b any) bool { return a == b },
}

// checkTime is how long an order of the calls is searched for.
const checkTime = time.Minute

// linearizable says whether the calls have an order; Unknown, if none was found in
// that time. A call without an answer has one only if its client is a member: it
// may take effect at any time after it began.
func linearizable(h *attemptHistory, members []int) porcupine.CheckResult {
	var set uint64
	for _, c := range members {
		set |= 1 << c
	}
	const never = int64(1) << 62
	at := func(t time.Time) int64 { return t.UnixNano() }
	var ops []porcupine.Operation
	for i, c := range h.calls {
		op := porcupine.Operation{ClientId: i, Input: c.client, Call: at(c.begin), Output: c.answer, Return: at(c.end)}
		if c.answer.kind == unknown {
			if set&(1<<c.client) == 0 {
				continue
			}
			op.Output, op.Return = answer{kind: counted}, never
		}
		ops = append(ops, op)
	}
	// Nobody saw when it closed: only that it had, at some time.
	ops = append(ops, porcupine.Operation{ClientId: len(h.calls), Input: closing{set}, Output: answer{}, Return: at(h.closed)})
	return porcupine.CheckOperationsTimeout(model, ops, checkTime)
}
