package rounds

import (
	"cmp"
	"crypto/sha256"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
)

// maxAttempts bounds a job's attempts, which are all kept, with why they failed: it
// is eight times the most rounds, and at 1.2 KB each they fit one record of a
// snapshot.
const maxAttempts = 1 << 15

// job is a job's state. At most its last attempt is open: collecting or closed.
type job struct {
	spec *Spec
	raw  Blob

	runs  bool // whether there was a Run, and not with NoRound since
	until int  // the last round that may be opened if it runs; 0: all

	closed bool // for good

	released int
	latest   Blob
	filter   accounting.Filter
	attempts []Attempt
	era      int                   // the machine's
	canary   ledger.CanaryMeasured // the last one on record, without its stamp
	measured int                   // how many are

	// Of the open attempt. Once it is closed, sum never changes: it is dropped,
	// not used again, and so may be shared.
	sum    []int64
	staged staging

	// Clients' numbers, of the last attempt and the one before; nil if there is
	// none.
	members, before *roaring.Bitmap
}

func newJob(spec *Spec, raw, state []byte) *job {
	return &job{
		spec:   spec,
		raw:    BlobOf(raw),
		latest: BlobOf(state),
		filter: accounting.Filter{Budget: spec.Budget},
	}
}

func (j *job) state() JobState {
	switch {
	case j.finished():
		return Finished
	case j.closed:
		return JobClosed
	case !j.isOpen() && (len(j.attempts) >= maxAttempts || j.next().Charge > j.filter.Remaining()):
		return Exhausted
	case j.paused():
		return Paused
	}
	return Running
}

func (j *job) finished() bool { return j.released == len(j.spec.Releases) }

// paused reports whether the round after those released may not be opened.
func (j *job) paused() bool { return !j.runs || j.until > 0 && j.released >= j.until }

// last is the attempt that was opened last, nil if none was.
func (j *job) last() *Attempt {
	if len(j.attempts) == 0 {
		return nil
	}
	return &j.attempts[len(j.attempts)-1]
}

func (j *job) isOpen() bool {
	a := j.last()
	return a != nil && a.isOpen()
}

// next is the attempt that comes after the last one, unless that is open or
// the job is finished.
func (j *job) next() Attempt {
	return Attempt{Round: j.released + 1, Attempt: j.nextNumber(), Phase: Collecting, Charge: j.current().Charge}
}

// nextNumber is the number of the next attempt at the round after those
// released. They count from 1, or from where the era begins.
func (j *job) nextNumber() int {
	first := j.era*eraAttempts + 1
	if last := j.last(); last != nil && last.Round == j.released+1 {
		return max(first, last.Attempt+1)
	}
	return first
}

// current is the release of the round after those released: that of the open
// attempt, if there is one.
func (j *job) current() *Release { return &j.spec.Releases[j.released] }

// attempt finds an attempt that was opened.
func (j *job) attempt(round, attempt int) (*Attempt, *Refusal) {
	key := Attempt{Round: round, Attempt: attempt}
	i, found := slices.BinarySearchFunc(j.attempts, key, func(a, b Attempt) int {
		return cmp.Or(cmp.Compare(a.Round, b.Round), cmp.Compare(a.Attempt, b.Attempt))
	})
	switch {
	case found:
		return &j.attempts[i], nil
	case round < 1 || attempt < 1:
		return nil, refuse(Malformed, "%v: they count from 1", key)
	case round <= j.released:
		return nil, refuse(AlreadyReleased, "round %d is released", round)
	case j.isOpen():
		return nil, refuse(WrongRound, "%v: %v is open", key, *j.last())
	case j.finished():
		return nil, refuse(WrongRound, "%v: the job is finished", key)
	case j.closed:
		return nil, refuse(WrongRound, "%v: the job is closed", key)
	}
	if next := j.next(); round != next.Round || attempt != next.Attempt {
		return nil, refuse(WrongRound, "%v: %v comes next", key, next)
	}
	return nil, refuse(NotOpen, "%v was never opened", key)
}

// open opens the attempt that comes next, and charges for it.
func (j *job) open(round, attempt int) *Refusal {
	a, refusal := j.attempt(round, attempt)
	switch {
	case a != nil && a.isOpen():
		return refuse(AlreadyOpen, "%v was opened", *a)
	case a != nil:
		return a.over()
	case j.finished() && refusal.Reason == WrongRound:
		return refuse(NotRunning, "all %d rounds are released", j.released)
	case j.closed && refusal.Reason == WrongRound:
		return refuse(NotRunning, "the job is closed")
	case refusal.Reason != NotOpen:
		return refusal
	case j.state() == Paused:
		return refuse(NotRunning, "round %d may not be opened yet", round)
	}
	next := j.next()
	if len(j.attempts) >= maxAttempts {
		return refuse(NoBudget, "%v: a job has %d attempts at most", next, maxAttempts)
	}
	if err := j.filter.Reserve(next.Charge); err != nil {
		return refuse(NoBudget, "%v costs %d nano-rho, and %d of %d are left",
			next, uint64(next.Charge), uint64(j.filter.Remaining()), uint64(j.filter.Budget))
	}
	j.attempts = append(j.attempts, next)
	j.sum = make([]int64, j.current().Length)
	j.before, j.members = j.members, roaring.New()
	return nil
}

// sumSize is the size of a packed sum of the open attempt, in bytes.
func (j *job) sumSize() int64 { return int64(len(j.sum)) * int64(j.spec.Width()) }

// close ends collecting, with enough members.
func (j *job) close() {
	a := j.last()
	j.spec.Lattice.Reduce(j.sum)
	a.Phase = Closed
	a.Sum = sumDigest(j.sum, j.spec.Width())
	j.staged = nil // sums that came too late
}

// release publishes the state after the closed attempt's round.
func (j *job) release(state Blob) {
	a := j.last()
	a.Phase = Released
	a.State = state.Digest
	j.released++
	j.latest = state
	j.sum, j.staged = nil, nil
}

// fail gives the open attempt up.
func (j *job) fail(why string) {
	a := j.last()
	a.Phase = Failed
	a.Why = why
	j.sum, j.staged = nil, nil
}

// membersOf returns an attempt's members, nil if they are not known.
func (j *job) membersOf(round, attempt int) *roaring.Bitmap {
	for i, members := range []*roaring.Bitmap{j.members, j.before} {
		if k := len(j.attempts) - 1 - i; k >= 0 && j.attempts[k].Round == round && j.attempts[k].Attempt == attempt {
			return members
		}
	}
	return nil
}

// over is the refusal of what an attempt that does not collect is too late for.
func (a Attempt) over() *Refusal {
	switch a.Phase {
	case Released:
		return refuse(AlreadyReleased, "%v is released", a)
	case Failed:
		return refuse(NotOpen, "%v failed: %s", a, a.Why)
	}
	return refuse(NotOpen, "%v is closed", a)
}

// sumDigest is the digest of a packed sum.
func sumDigest(sum []int64, width int) (d Digest) {
	const batch = 4096 // coordinates
	h := sha256.New()
	packed := make([]byte, 0, min(len(sum), batch)*width)
	for some := range slices.Chunk(sum, batch) {
		h.Write(aggregation.Pack(packed, some, width))
	}
	h.Sum(d[:0])
	return d
}

// validLine reports whether s is one line of text for a person.
func validLine(s string) bool {
	return len(s) > 0 && len(s) <= MaxWhy && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
