package rounds_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/ledger"
	"golang.org/x/mod/sumdb/note"
)

const origin = "rounds.example"

// ledgerKey is a key pair of the ledger's that follows from its number.
func ledgerKey(t interface{ Fatal(...any) }, number byte) (signer note.Signer, public string) {
	return keyOf(t, origin, number)
}

// keyOf is the number-th key of a ledger of that name.
func keyOf(t interface{ Fatal(...any) }, origin string, number byte) (signer note.Signer, public string) {
	secret, public, err := note.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{number}, 64)), origin)
	if err != nil {
		t.Fatal(err)
	}
	if signer, err = note.NewSigner(secret); err != nil {
		t.Fatal(err)
	}
	return signer, public
}

// honest gives a specification so much noise that its charge, of 10 nano-rho at the
// least, pays for it.
func honest(s *rounds.Spec) *rounds.Spec {
	for i := range s.Releases {
		r := &s.Releases[i]
		r.Bound, r.Sigma, r.Largest = 1, 6000<<20, 1<<15-1
		if s.Trust == rounds.TrustCentral {
			r.Largest = r.Bound
		}
	}
	return s
}

func beginLedger(t interface{ Fatal(...any) }) rounds.BeginLedger {
	_, public := ledgerKey(t, 0)
	return rounds.BeginLedger{Origin: origin, Key: public}
}

func rotation(t interface{ Fatal(...any) }, from, to byte) rounds.RotateKey {
	signer, _ := ledgerKey(t, from)
	_, next := ledgerKey(t, to)
	endorsement, err := ledger.Endorse(signer, next)
	if err != nil {
		t.Fatal(err)
	}
	return rounds.RotateKey{Key: next, Endorsement: endorsement}
}

func measured(job string) rounds.RecordCanary {
	return rounds.RecordCanary{Measured: ledger.CanaryMeasured{
		Job: job, By: "auditor eve", Claimed: 2_000_000, Lower: 1_900_000, Delta: "1e-06",
		Confidence: 950_000, Trials: 100_000, Passed: true, Measured: 1_767_225_600_000, How: "test jobs",
	}}
}

// audit verifies a machine's ledger as an auditor does who trusts the first key and kept
// a checkpoint, and holds that what it tells is the machine's state. Returns the
// checkpoint to keep.
func audit(t interface {
	Fatal(...any)
	Fatalf(string, ...any)
}, m *rounds.Machine, signer note.Signer, seen ledger.Checkpoint) ledger.Checkpoint {
	log := m.Ledger()
	root, err := log.Root(log.Size())
	if err != nil {
		t.Fatal(err)
	}
	signed, err := ledger.Checkpoint{Origin: signer.Name(), Size: log.Size(), Root: root}.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	b := &ledger.Bundle{Checkpoint: signed, Records: log.Records(), Specifications: make(map[ledger.Digest][]byte)}
	for _, name := range m.Jobs() {
		v, _ := m.Job(name)
		b.Specifications[ledger.Digest(v.Raw.Digest)] = v.Raw.Bytes
	}
	_, first := keyOf(t, signer.Name(), 0)
	h, err := ledger.Verify(b, first, seen)
	if err != nil {
		t.Fatalf("%v, of\n%s", err, bytes.Join(log.Records(), []byte("\n")))
	}
	if len(h.Jobs) != len(m.Jobs()) {
		t.Fatalf("%d jobs, and the ledger tells of %d", len(m.Jobs()), len(h.Jobs))
	}
	for _, told := range h.Jobs {
		v, _ := m.Job(told.Name)
		over := v.State == rounds.Finished || v.State == rounds.JobClosed
		if told.Spent != v.Spent || told.Released != v.Released || told.Closed != over || len(told.Attempts) != len(v.Attempts) {
			t.Fatalf("the ledger tells %+v of %+v", told, v)
		}
		for i, a := range v.Attempts {
			is := told.Attempts[i]
			status := map[rounds.Phase]ledger.Status{rounds.Released: ledger.StatusReleased, rounds.Failed: ledger.StatusFailed}[a.Phase]
			if status == "" {
				status = ledger.StatusOpen
			}
			same := is.Round == a.Round && is.Attempt == a.Attempt && is.Charge == a.Charge && is.Status == status && is.Why == a.Why
			if same && status != ledger.StatusOpen {
				same = is.Members == a.Members && is.State == ledger.Digest(a.State)
			}
			if !same || status == ledger.StatusReleased && is.Sum != ledger.Digest(a.Sum) {
				t.Fatalf("%s: the ledger tells %+v of %+v", told.Name, is, a)
			}
		}
	}
	return h.Checkpoint
}

// The ledger of a machine that had jobs before it is the one that it would have had from
// the beginning, but for times, for the order among jobs, and for a first state that
// nobody knows any more: that of books, which is released.
func TestLedgerOfWhatWasBefore(t *testing.T) {
	late, early := rounds.NewMachine(), rounds.NewMachine()
	apply(t, early, beginLedger(t))
	enrich(t, late)
	enrich(t, early)
	apply(t, late, beginLedger(t))
	signer, _ := ledgerKey(t, 0)
	audit(t, late, signer, ledger.Checkpoint{})
	audit(t, early, signer, ledger.Checkpoint{})

	known := ledger.Digest(rounds.BlobOf([]byte("U0")).Digest).String()
	unknown := ledger.Digest{}.String()
	for _, name := range late.Jobs() {
		of := func(m *rounds.Machine) (out []string) {
			for _, record := range m.Ledger().Records() {
				if line := string(record); strings.Contains(line, `"job":"`+name+`"`) {
					out = append(out, line)
				}
			}
			return out
		}
		want := of(early)
		if name == "books" {
			for i := range want {
				want[i] = strings.ReplaceAll(want[i], known, unknown)
			}
		}
		if got := of(late); !slices.Equal(got, want) || len(got) < 2 {
			t.Errorf("%s: the ledger has\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// Nothing but the ledger's own key hands it on, and nothing but a job's end and an
// operator ends what is spent on it.
func TestLedgerRefuses(t *testing.T) {
	m := richMachine(t)
	_, public := ledgerKey(t, 0)
	forged := rotation(t, 1, 2)
	endorsed := rotation(t, 0, 1)
	long := measured("films")
	long.Measured.By = strings.Repeat("y", 1000)
	wrong := measured("films")
	wrong.Measured.Delta = "nearly none"
	refused := func(c rounds.Command, reason rounds.Reason) {
		t.Helper()
		before := snapshot(m)
		var refusal *rounds.Refusal
		if _, err := m.Apply(c); !errors.As(err, &refusal) || refusal.Reason != reason || strings.Contains(refusal.Detail, "\n") {
			t.Errorf("%+v: %v, want %v", c, err, reason)
		}
		if !reflect.DeepEqual(before, snapshot(m)) {
			t.Errorf("%+v: refused, and changed the state", c)
		}
	}
	refused(endorsed, rounds.Malformed) // there is no ledger
	refused(measured("films"), rounds.Malformed)
	refused(rounds.BeginLedger{}, rounds.Malformed)
	refused(rounds.BeginLedger{Origin: "another", Key: public}, rounds.Malformed)
	_, unsignable, err := note.GenerateKey(strings.NewReader(strings.Repeat("k", 64)), "a\x01b")
	if err != nil {
		t.Fatal(err)
	}
	refused(rounds.BeginLedger{Origin: "a\x01b", Key: unsignable}, rounds.Malformed)
	refused(rounds.BeginLedger{Origin: origin, Key: public + "\n"}, rounds.Malformed)
	refused(rounds.BeginLedger{Origin: origin, Key: strings.Replace(public, "+", "++", 1)}, rounds.Malformed)
	refused(rounds.Dated{At: 1, Command: rounds.Dated{At: 1, Command: beginLedger(t)}}, rounds.Malformed)
	refused(rounds.Dated{At: 1}, rounds.Malformed)

	apply(t, m, beginLedger(t))
	_, another, err := ledger.NewKey("another")
	if err != nil {
		t.Fatal(err)
	}
	refused(rounds.BeginLedger{Origin: "another", Key: another}, rounds.Malformed)
	refused(forged, rounds.Malformed)
	refused(rounds.RotateKey{Key: endorsed.Key, Endorsement: endorsed.Endorsement + strings.Repeat("x", 3000)}, rounds.Malformed)
	refused(rounds.RotateKey{Key: endorsed.Key + " ", Endorsement: endorsed.Endorsement}, rounds.Malformed)
	refused(rounds.RotateKey{Key: another, Endorsement: endorsed.Endorsement}, rounds.Malformed)
	refused(measured("games"), rounds.UnknownJob)
	refused(long, rounds.Malformed)
	refused(wrong, rounds.Malformed)
	apply(t, m, endorsed)
	refused(rotation(t, 0, 2), rounds.Malformed) // no longer its key
	refused(rotation(t, 1, 0), rounds.Malformed) // its key before: all that it endorsed is public

	refused(rounds.CloseJob{Job: "games"}, rounds.UnknownJob)
	apply(t, m, rounds.CloseJob{Job: "films"})
	refused(rounds.Run{Job: "films"}, rounds.NotRunning)
	refused(rounds.OpenRound{Job: "films", Round: 1, Attempt: 3}, rounds.NotRunning)
	refused(rounds.CloseRound{Job: "films", Round: 1, Attempt: 2}, rounds.NotOpen)
}

// Who may put records there without spending anything does so a bounded number of times.
func TestLedgerIsBounded(t *testing.T) {
	m := richMachine(t)
	apply(t, m, beginLedger(t))
	full := func(c rounds.Command) {
		t.Helper()
		size := m.Ledger().Size()
		var refusal *rounds.Refusal
		if _, err := m.Apply(c); !errors.As(err, &refusal) || refusal.Reason != rounds.TooMany || m.Ledger().Size() != size {
			t.Errorf("one more: %v", err)
		}
	}
	another := func(i int) rounds.RecordCanary {
		c := measured("films")
		c.Measured.Trials = uint64(i + 1)
		return c
	}
	for i := range rounds.MaxMeasurements {
		apply(t, m, another(i))
	}
	full(another(rounds.MaxMeasurements))
	apply(t, m, another(rounds.MaxMeasurements-1)) // again
	apply(t, m, measured("songs"))

	signer, _ := ledgerKey(t, 0)
	var last rounds.RotateKey
	for i := range rounds.MaxRotations + 1 {
		secret, public, err := ledger.NewKey(origin)
		if err != nil {
			t.Fatal(err)
		}
		last.Key = public
		if last.Endorsement, err = ledger.Endorse(signer, public); err != nil {
			t.Fatal(err)
		}
		if i == rounds.MaxRotations {
			break
		}
		apply(t, m, last)
		if signer, err = note.NewSigner(secret); err != nil {
			t.Fatal(err)
		}
	}
	full(last)
	audit(t, m, signer, ledger.Checkpoint{})
	restored, err := rounds.Restore(snapshot(m))
	if err != nil {
		t.Fatal(err)
	}
	m = restored
	full(another(rounds.MaxMeasurements))
	full(last)
}

// A reason that turns the line around was one before there were ledgers, and is none that
// a ledger has: it says the rest.
func TestReasonsAreShown(t *testing.T) {
	m := rounds.NewMachine()
	apply(t, m, rounds.CreateJob{Spec: encode(t, honest(newSpec("films", 1, 2, 10, 60))), State: rounds.BlobOf([]byte("U0"))})
	apply(t, m, rounds.Run{Job: "films"})
	apply(t, m, rounds.OpenRound{Job: "films", Round: 1, Attempt: 1})
	apply(t, m, rounds.FailRound{Job: "films", Round: 1, Attempt: 1, Why: "\u202ewhy\u00ad"})
	apply(t, m, beginLedger(t))
	record := m.Ledger().Records()[3]
	if e, err := ledger.Decode(record); err != nil || e.(*ledger.Failed).Why != "?why?" {
		t.Errorf("%s, %v", record, err)
	}
	if _, err := rounds.Restore(snapshot(m)); err != nil {
		t.Error(err)
	}
}

// Who repeats a command is told nothing else, and records nothing twice.
func TestLedgerRetries(t *testing.T) {
	m := richMachine(t)
	for _, c := range []rounds.Command{
		beginLedger(t), measured("films"), rotation(t, 0, 1), rounds.CloseJob{Job: "films"}, rounds.CloseJob{Job: "books"},
	} {
		apply(t, m, c)
		before := m.Ledger().Size()
		apply(t, m, rounds.Dated{At: math.MaxInt64, Command: c})
		if after := m.Ledger().Size(); after != before {
			t.Errorf("%+v again: %d records more", c, after-before)
		}
	}
	apply(t, m, beginLedger(t)) // by whoever has not heard of the rotation
}

// Records are never older than those before them, nor later than dates are written,
// whatever the proposers' clocks say.
func TestRecordsKeepTheirOrder(t *testing.T) {
	m := rounds.NewMachine()
	apply(t, m, rounds.Dated{At: 1000, Command: beginLedger(t)})
	for i, at := range []int64{2000, 1500, math.MinInt64, 0, 2001, math.MaxInt64} {
		spec := honest(newSpec(string(rune('a'+i)), 1, 2, 10, 60))
		apply(t, m, rounds.Dated{At: at, Command: rounds.CreateJob{Spec: encode(t, spec), State: rounds.BlobOf([]byte("U0"))}})
	}
	var times []int64
	for _, record := range m.Ledger().Records() {
		e, err := ledger.Decode(record)
		if err != nil {
			t.Fatal(err)
		}
		times = append(times, e.At())
	}
	if want := []int64{1000, 2000, 2000, 2000, 2000, 2001, ledger.MaxTime}; !slices.Equal(times, want) {
		t.Errorf("times %v, want %v", times, want)
	}
}

// What the command does without a ledger it does with one, and its effect tells.
func TestEffectHasTheRecords(t *testing.T) {
	with, without := rounds.NewMachine(), rounds.NewMachine()
	apply(t, with, beginLedger(t))
	spec := honest(newSpec("films", 1, 2, 10, 60))
	a, b, c := rounds.ClientOf("ann"), rounds.ClientOf("bob"), rounds.ClientOf("cat")
	sum := pack(spec, 1, 1)
	for _, step := range []struct {
		c       rounds.Command
		records int64
	}{
		{rounds.CreateJob{Spec: encode(t, spec), State: rounds.BlobOf([]byte("U0"))}, 1},
		{rounds.CreateJob{Spec: encode(t, spec), State: rounds.BlobOf([]byte("U0"))}, 0},
		{rounds.Run{Job: "films"}, 0},
		{rounds.OpenRound{Job: "films", Round: 1, Attempt: 1}, 1},
		{rounds.OpenRound{Job: "films", Round: 1, Attempt: 1}, 0},
		{rounds.Collect{Job: "films", Round: 1, Attempt: 1, Members: []rounds.ClientID{a}, Sum: sum}, 0},
		{rounds.CloseRound{Job: "films", Round: 1, Attempt: 1}, 1}, // too few
		{rounds.OpenRound{Job: "films", Round: 1, Attempt: 2}, 1},
		{rounds.FailRound{Job: "films", Round: 1, Attempt: 2, Why: "why"}, 1},
		{rounds.OpenRound{Job: "films", Round: 1, Attempt: 3}, 1},
		{rounds.Collect{Job: "films", Round: 1, Attempt: 3, Members: []rounds.ClientID{a, b, c}, Sum: sum}, 0},
		{rounds.CloseRound{Job: "films", Round: 1, Attempt: 3}, 0},
		{rounds.ReleaseRound{Job: "films", Round: 1, Attempt: 3, State: rounds.BlobOf([]byte("U1"))}, 2},
		{rounds.ReleaseRound{Job: "films", Round: 1, Attempt: 3, State: rounds.BlobOf([]byte("U1"))}, 0},
		{rounds.CloseJob{Job: "films"}, 0},
	} {
		before := with.Ledger().Size()
		effect, err := with.Apply(rounds.Dated{At: 5, Command: step.c})
		old, oldErr := without.Apply(step.c)
		if (err == nil) != (oldErr == nil) {
			t.Fatalf("%+v: %v, and without a ledger %v", step.c, err, oldErr)
		}
		if n := with.Ledger().Size() - before; n != step.records {
			t.Errorf("%+v: %d records, want %d", step.c, n, step.records)
		}
		if (effect == old) != (step.records == 0) {
			t.Errorf("%+v: the effect has its records: %v", step.c, effect != old)
		}
	}
	signer, _ := ledgerKey(t, 0)
	audit(t, with, signer, ledger.Checkpoint{})
}

// What a backup gives up and what begins with it is on record, and a checkpoint from
// before it is followed by one from after it.
func TestLedgerIsRestoredFromABackup(t *testing.T) {
	for _, late := range []bool{false, true} {
		m := rounds.NewMachine()
		signer, _ := ledgerKey(t, 0)
		var seen ledger.Checkpoint
		if !late {
			apply(t, m, beginLedger(t))
			enrich(t, m)
			seen = audit(t, m, signer, seen)
		} else {
			enrich(t, m)
		}
		for era := 1; era <= 3; era++ {
			kept, err := rounds.Backup(snapshot(m))
			if err != nil {
				t.Fatal(err)
			}
			s, err := rounds.Anew(kept, int64(1000*era), nil)
			if err != nil {
				t.Fatal(err)
			}
			if m, err = rounds.Restore(s); err != nil {
				t.Fatal(err)
			}
			if late && era == 2 {
				apply(t, m, beginLedger(t))
			}
			if m.Ledger() != nil {
				seen = audit(t, m, signer, seen)
			}
			films, _ := m.Job("films")
			apply(t, m, rounds.Run{Job: "films"})
			apply(t, m, rounds.OpenRound{Job: "films", Round: 1, Attempt: films.Next})
		}
		audit(t, m, signer, seen)
	}
}

// anotherLedger is one of another origin.
func anotherLedger(t interface{ Fatal(...any) }) *rounds.BeginLedger {
	const name = "another.example"
	_, public := keyOf(t, name, 0)
	return &rounds.BeginLedger{Origin: name, Key: public}
}

// A cluster that is made out of a backup may begin another ledger. It has the history of
// all jobs, verifies, and goes on; restored again, it extends itself.
func TestAnotherLedgerAfterABackup(t *testing.T) {
	for _, recorded := range []bool{true, false} {
		m := rounds.NewMachine()
		if recorded {
			apply(t, m, beginLedger(t))
		}
		enrich(t, m)
		apply(t, m, beginLedger(t))
		apply(t, m, measured("films"))
		before := snapshot(m)
		s, err := rounds.Anew(before, 5000, anotherLedger(t))
		if err != nil {
			t.Fatal(err)
		}
		if m, err = rounds.Restore(s); err != nil {
			t.Fatal(err)
		}
		another := anotherLedger(t)
		signer, _ := keyOf(t, another.Origin, 0)
		seen := audit(t, m, signer, ledger.Checkpoint{})
		if second := m.Ledger().Records()[1]; string(second) != `{"record":"restored","time_ms":5000,"era":1}` {
			t.Errorf("%s", second)
		}
		old, err := ledger.Restore(before.Ledger)
		if err != nil {
			t.Fatal(err)
		}
		if root, err := m.Ledger().Root(1); err != nil {
			t.Fatal(err)
		} else if was, err := old.Root(1); err != nil || was == root {
			t.Errorf("it extends the former one: %v", err)
		}
		// The nodes' own key is to be the new one's.
		if _, err := m.Apply(*another); err != nil {
			t.Error(err)
		}
		if _, err := m.Apply(beginLedger(t)); err == nil {
			t.Error("the former ledger began again")
		}
		films, _ := m.Job("films")
		apply(t, m, rounds.Run{Job: "films"})
		apply(t, m, rounds.OpenRound{Job: "films", Round: 1, Attempt: films.Next})
		seen = audit(t, m, signer, seen)
		if s, err = rounds.Anew(snapshot(m), 6000, nil); err != nil {
			t.Fatal(err)
		}
		if m, err = rounds.Restore(s); err != nil {
			t.Fatal(err)
		}
		audit(t, m, signer, seen)

		if _, err := rounds.Anew(snapshot(m), 7000, another); !errors.Is(err, rounds.ErrSameOrigin) {
			t.Errorf("a second ledger of the same origin: %v", err)
		}
		if _, err := rounds.Anew(snapshot(m), 7000, &rounds.BeginLedger{Origin: "x.example", Key: another.Key}); err == nil {
			t.Error("it began with the key of another")
		}
	}
}

// BenchmarkAttempt opens an attempt and fails it: what the ledger costs a command that
// it records.
func BenchmarkAttempt(b *testing.B) {
	for name, begin := range map[string]bool{"without": false, "with": true} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var m *rounds.Machine
			attempt := 0
			for b.Loop() {
				if attempt++; attempt%30_000 == 1 {
					b.StopTimer()
					m, attempt = cheapJobs(b, 1, begin), 1
					b.StartTimer()
				}
				apply(b, m, rounds.OpenRound{Job: "job-0", Round: 1, Attempt: attempt})
				apply(b, m, rounds.FailRound{Job: "job-0", Round: 1, Attempt: attempt, Why: "again"})
			}
		})
	}
}

// cheapJobs is a machine with jobs that can have as many attempts as there may be.
func cheapJobs(t testing.TB, jobs int, begin bool) *rounds.Machine {
	m := rounds.NewMachine()
	if begin {
		apply(t, m, beginLedger(t))
	}
	for i := range jobs {
		spec := honest(newSpec(fmt.Sprint("job-", i), 1, 2, 10, 1<<40))
		apply(t, m, rounds.CreateJob{Spec: encode(t, spec), State: rounds.BlobOf([]byte("U0"))})
		apply(t, m, rounds.Run{Job: spec.Job})
	}
	return m
}

// TestLongLedger holds the memory of a hundred thousand records, says how long a machine
// takes to be restored with them, and has them verified.
func TestLongLedger(t *testing.T) {
	if testing.Short() {
		t.Skip("a hundred thousand records")
	}
	const records, jobs = 100_000, 2
	measure := func(begin bool) (*rounds.Machine, int64) {
		empty := heap()
		m := cheapJobs(t, jobs, begin)
		for i := range records / 2 / jobs {
			for k := range jobs {
				job := fmt.Sprint("job-", k)
				apply(t, m, rounds.OpenRound{Job: job, Round: 1, Attempt: i + 1})
				apply(t, m, rounds.FailRound{Job: job, Round: 1, Attempt: i + 1, Why: "0 contributions of 2"})
			}
		}
		return m, heap() - empty
	}
	without, plain := measure(false)
	with, all := measure(true)
	begin := time.Now()
	s := with.Snapshot()
	if _, err := rounds.Restore(s); err != nil {
		t.Fatal(err)
	}
	restored := time.Since(begin)
	signer, _ := ledgerKey(t, 0)
	begin = time.Now()
	audit(t, with, signer, ledger.Checkpoint{})
	t.Logf("%d records: %d KiB, %d bytes a record; restored in %v, verified in %v",
		with.Ledger().Size(), (all-plain)>>10, (all-plain)/with.Ledger().Size(), restored, time.Since(begin))
	if used := all - plain; used > 100<<20 {
		t.Errorf("the ledger takes %d bytes", used)
	}
	runtime.KeepAlive(without)
}
