package client_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/client"
	"github.com/undertone-fl/undertone/client/internal/contract"
	"github.com/undertone-fl/undertone/dp/ledger"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// must returns what does not fail.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// answers has every answer changed from now on.
func (s *service) answers(change func(out *undertonev1.PollResponse)) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.Answer = nil
	if change != nil {
		s.Answer = func(_ string, out *undertonev1.PollResponse) { change(out) }
	}
}

// shows has everybody shown a ledger from now on.
func (s *service) shows(l *contract.Ledger) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.Ledger = l
}

// reserves has every attempt's record changed that is opened from now on.
func (s *service) reserves(change func(*ledger.AttemptCharged)) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.Reserve = change
}

// TestForkedHistory: two histories, each shown to half of the clients, keep both halves
// content. The first who meets the other's keeps the evidence, and sends nothing more.
func TestForkedHistory(t *testing.T) {
	s := newService(t, 1)
	s.Create(parameters(), terms("taste"))
	s.Begin("taste")
	annConfig, bobConfig := s.config(t.TempDir(), "ann"), s.config(t.TempDir(), "bob")
	ann, bob := open(t, annConfig), open(t, bobConfig)
	both := func() {
		t.Helper()
		want(t, syncOne(t, ann), client.Contributed)
		want(t, syncOne(t, bob), client.Contributed)
		s.Fail("taste")
	}
	both()
	s.Fork("bob")
	s.Begin("taste")
	both()

	seen := must(bob.Status())(t).Ledger
	if others := must(ann.Status())(t).Ledger; others.Size != seen.Size || others.Root == seen.Root {
		t.Fatalf("%+v and %+v", others, seen)
	}
	bobs := s.Shown["bob"]
	delete(s.Shown, "bob")
	s.Begin("taste")
	_, err := bob.Sync(t.Context())
	if !errors.Is(err, client.ErrTwoHistories) || !strings.Contains(err.Error(), s.Addresses[0]) {
		t.Fatalf("%v", err)
	}
	want(t, syncOne(t, ann), client.Contributed)

	// The evidence convinces who has the key.
	st := must(bob.Status())(t).Ledger
	if st.Fork == nil || st.Note != seen.Note || st.Fork.Server != s.Addresses[0] {
		t.Fatalf("%+v", st)
	}
	key := must(ledger.ParseKey(st.Key))(t)
	first := must(ledger.OpenCheckpoint([]byte(st.Note), key))(t)
	second := must(ledger.OpenCheckpoint([]byte(st.Fork.Note), must(ledger.ParseKey(st.Fork.Key))(t)))(t)
	if err := first.Follow(second, st.Fork.Proof); !errors.Is(err, ledger.ErrFork) {
		t.Errorf("%v", err)
	}

	// Nobody can show a ledger that extends both: neither those who show one history now,
	// nor those who go back to the other, nor after a restart.
	other := s.Ledger
	bob.Close()
	bob = open(t, bobConfig)
	bobs.Append(&ledger.Failed{Job: "taste"}, 0) // so that no two are of one size
	for _, l := range []*contract.Ledger{other, bobs, other} {
		s.shows(l)
		s.Begin("taste")
		_, err := bob.Sync(t.Context())
		if fork := forkOf(t, err); fork.Proven || fork.Again == nil || !client.ForGood(err) {
			t.Errorf("%+v, %v", fork, err)
		}
		if again := must(bob.Status())(t).Ledger; again.Note != st.Note || again.Fork.Note != st.Fork.Note || again.Fork.Proven {
			t.Errorf("the evidence is another: %+v", again)
		}
	}
	if err := bob.Run(t.Context()); !errors.Is(err, client.ErrTwoHistories) {
		t.Errorf("%v", err)
	}
	if _, err := bob.Predict("taste", make([]float64, 6), nil); err != nil {
		t.Error(err)
	}
	if len(s.Arrived) != 5 {
		t.Errorf("%d contributions", len(s.Arrived))
	}
}

// forkOf is the *ForkError that a Sync failed with.
func forkOf(t *testing.T, err error) *client.ForkError {
	t.Helper()
	fork, ok := errors.AsType[*client.ForkError](err)
	if !ok || !errors.Is(err, client.ErrTwoHistories) {
		t.Fatalf("%v is no fork", err)
	}
	return fork
}

// TestProofLeftOutOnce: a device that was given no proof, or a wrong one, sends nothing
// until it has seen one ledger that extends both checkpoints; then it goes on as if both
// had been shown in order. A node that lies is no reason to ask no other.
func TestProofLeftOutOnce(t *testing.T) {
	for name, spoil := range map[string]func(*undertonev1.Ledger){
		"none":  func(l *undertonev1.Ledger) { l.Consistency = nil },
		"wrong": func(l *undertonev1.Ledger) { l.Consistency[0][0] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, 2)
			s.Create(parameters(), terms("taste"))
			c := s.config(t.TempDir(), "ann")
			d := open(t, c)
			if _, err := d.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			kept := must(d.Status())(t).Ledger
			s.Begin("taste")
			spoilt := 0
			s.answers(func(out *undertonev1.PollResponse) {
				if spoilt++; len(out.GetLedger().GetConsistency()) > 0 {
					spoil(out.Ledger)
				}
			})
			_, err := d.Sync(t.Context())
			if fork := forkOf(t, err); fork.Proven || fork.Again != nil || client.ForGood(err) || spoilt != 1 {
				t.Errorf("%+v after %d answers: %v", fork, spoilt, err)
			}
			st := must(d.Status())(t)
			if l := st.Ledger; l.Note != kept.Note || l.Fork == nil || l.Fork.Proven || st.NanoRho != 0 {
				t.Errorf("%+v", st)
			}
			// Nobody can be asked.
			s.InterruptWith(func(call, _ string) error { return status.Error(codes.Unavailable, "gone") })
			d.Close()
			c.Patience = 50 * time.Millisecond
			d = open(t, c)
			_, err = d.Sync(t.Context())
			if forkOf(t, err); client.ForGood(err) || !errors.Is(err, client.ErrUnavailable) {
				t.Errorf("%v", err)
			}
			s.InterruptWith(nil)
			// The first who is asked leaves the proofs out again, and the other does not.
			spoilt = 0
			s.answers(func(out *undertonev1.PollResponse) {
				if spoilt++; spoilt <= 2 {
					out.Ledger.Consistency = nil
				}
			})
			want(t, syncOne(t, d), client.Contributed)
			if l := must(d.Status())(t).Ledger; l.Fork != nil || l.Size != s.Ledger.Size() {
				t.Errorf("%+v", l)
			}
		})
	}
}

// TestRunGoesOnAfterAWrongProof: one wrong answer does not end Run.
func TestRunGoesOnAfterAWrongProof(t *testing.T) {
	s := newService(t, 1)
	s.Create(parameters(), terms("taste"))
	c := s.config(t.TempDir(), "ann")
	ctx, stop := context.WithCancel(t.Context())
	c.Report = func(sum *client.Summary) {
		if len(sum.Jobs) > 0 && sum.Jobs[0].Outcome == client.Contributed {
			stop()
		}
	}
	d := open(t, c)
	if _, err := d.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Begin("taste")
	asked := 0
	s.answers(func(out *undertonev1.PollResponse) {
		if asked++; asked == 1 {
			out.Ledger.Consistency = nil
		}
	})
	if err := d.Run(ctx); err != nil || ctx.Err() == nil {
		t.Errorf("%v", err)
	}
}

// TestProvenFork: two roots of one size are proof, and nobody is asked any more. They are
// found also among what is shown to one who asks.
func TestProvenFork(t *testing.T) {
	for name, found := range map[string]bool{"shown": false, "found by asking": true} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, 1)
			s.Create(parameters(), terms("taste"))
			d := open(t, s.config(t.TempDir(), "ann"))
			s.Fork("others")
			other := s.Shown["others"]
			sync := func() error { _, err := d.Sync(t.Context()); return err }
			if err := sync(); err != nil {
				t.Fatal(err)
			}
			kept := s.Ledger
			if found {
				other.Append(&ledger.Failed{Job: "taste"}, 0)
			}
			s.shows(other)
			fork := forkOf(t, sync())
			if fork.Proven == found {
				t.Fatalf("%+v", fork)
			}
			if found {
				// Each is shown what it believes, and both have grown.
				kept.Append(&ledger.Failed{Job: "taste"}, 0)
				kept.Append(&ledger.Failed{Job: "taste"}, 0)
				s.answers(func(out *undertonev1.PollResponse) {
					if s.Seen == uint64(fork.Kept) {
						out.Ledger = must(kept.Show(s.Seen))(t)
					}
				})
				other.Append(&ledger.Failed{Job: "taste"}, 0)
				if fork = forkOf(t, sync()); !fork.Proven || fork.Kept != kept.Size() || fork.Other != other.Size() {
					t.Fatalf("%+v", fork)
				}
			}
			s.InterruptWith(func(call, _ string) error {
				t.Errorf("%s was called", call)
				return nil
			})
			if err := sync(); !forkOf(t, err).Proven || !client.ForGood(err) {
				t.Error(err)
			}
			if l := must(d.Status())(t).Ledger; !l.Fork.Proven {
				t.Errorf("%+v", l)
			}
		})
	}
}

// unsent opens a device with a contribution that it could not send.
func (s *service) unsent(c client.Config) *client.Device {
	s.t.Helper()
	s.InterruptWith(func(call, _ string) error {
		if call == "submit" {
			return status.Error(codes.Unavailable, "gone")
		}
		return nil
	})
	d := open(s.t, c)
	want(s.t, syncOne(s.t, d), "", client.ErrUnavailable)
	s.InterruptWith(nil)
	s.Copies = 0
	return d
}

// TestOutboxAndLedger: what waits to be sent is sent once the ledger was verified, never
// before, and not at all after a fork.
func TestOutboxAndLedger(t *testing.T) {
	for name, over := range map[string]bool{"while it is open": false, "when it is over": true} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, 1)
			s.Create(parameters(), terms("taste"))
			s.Begin("taste")
			c := s.config(t.TempDir(), "ann")
			c.Patience = 50 * time.Millisecond
			d := s.unsent(c)
			if over {
				s.Fail("taste")
			}
			waits := func() {
				t.Helper()
				if st := must(d.Status())(t); len(st.Pending) != 1 || s.Copies != 0 {
					t.Errorf("%d copies were sent: %+v", s.Copies, st)
				}
			}
			s.answers(func(out *undertonev1.PollResponse) { out.Ledger = nil })
			if _, err := d.Sync(t.Context()); !errors.Is(err, client.ErrLedger) {
				t.Errorf("%v", err)
			}
			waits()
			if !over {
				s.answers(func(out *undertonev1.PollResponse) { out.Work[0].Reservation = nil })
				want(t, syncOne(t, d), "", client.ErrReservation)
				waits()
				d.Close()
				d = open(t, c) // which asks again
			}
			s.answers(nil)
			s.Ledger = must(s.Ledger.First(2))(t)
			s.Ledger.Append(&ledger.Failed{Job: "taste", Round: 1, Attempt: 1}, 0)
			if _, err := d.Sync(t.Context()); !errors.Is(err, client.ErrTwoHistories) {
				t.Errorf("%v", err)
			}
			waits()
		})
	}

	s := newService(t, 1)
	s.Create(parameters(), terms("taste"))
	s.Begin("taste")
	c := s.config(t.TempDir(), "ann")
	c.Patience = 50 * time.Millisecond
	d := s.unsent(c)
	want(t, syncOne(t, d), client.Contributed)
}

// TestNodesDiffer: a node that lags behind, has begun no ledger or shows one that does
// not verify is passed over for another.
func TestNodesDiffer(t *testing.T) {
	for name, spoil := range map[string]func(out *undertonev1.PollResponse, short *undertonev1.Ledger){
		"behind": func(out *undertonev1.PollResponse, short *undertonev1.Ledger) { out.Ledger = short },
		"empty":  func(out *undertonev1.PollResponse, _ *undertonev1.Ledger) { out.Ledger = nil },
		"forged": func(out *undertonev1.PollResponse, _ *undertonev1.Ledger) { out.Ledger.Checkpoint[30] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, 2)
			s.Create(parameters(), terms("taste"))
			d := open(t, s.config(t.TempDir(), "ann"))
			if _, err := d.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			short := must(must(s.Ledger.First(1))(t).Show(0))(t)
			s.Begin("taste")
			asked := 0
			s.answers(func(out *undertonev1.PollResponse) {
				if asked++; asked == 1 {
					spoil(out, short)
				}
			})
			want(t, syncOne(t, d), client.Contributed)
			if asked != 2 {
				t.Errorf("asked %d times", asked)
			}
		})
	}
}

// TestLedgerKeys: a device follows the key that it was given, or first saw, along the
// rotations that each key endorsed, and never back.
func TestLedgerKeys(t *testing.T) {
	s := newService(t, 1)
	s.Create(parameters(), terms("taste"))
	first, firstKey := s.Ledger, s.Ledger.Key
	ann, bob := s.config(t.TempDir(), "ann"), s.config(t.TempDir(), "bob")
	ann.LedgerKey = firstKey + "\n"
	key := func(c client.Config, pinned bool) string {
		t.Helper()
		d := open(t, c)
		defer d.Close()
		if _, err := d.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		st := must(d.Status())(t).Ledger
		if st.Pinned != pinned || st.Size != s.Ledger.Size() {
			t.Errorf("%+v", st)
		}
		return st.Key
	}
	refused := func(c client.Config, message string) {
		t.Helper()
		d := open(t, c)
		defer d.Close()
		if _, err := d.Sync(t.Context()); !errors.Is(err, client.ErrLedger) || !strings.Contains(err.Error(), message) {
			t.Errorf("%v", err)
		}
	}
	if key(ann, true) != firstKey || key(bob, false) != firstKey {
		t.Error("another key")
	}
	old := must(first.First(first.Size()))(t) // with its signer
	for range 2 {
		if err := s.Ledger.Rotate(true); err != nil {
			t.Fatal(err)
		}
	}
	last := s.Ledger.Key
	if key(ann, true) != last || key(bob, false) != last {
		t.Error("the rotations were not followed")
	}
	// Who comes later, with either key, or none.
	for _, pin := range []string{firstKey, last, ""} {
		c := s.config(t.TempDir(), "ann")
		if c.LedgerKey = pin; key(c, pin != "") != last {
			t.Errorf("pinned to %q: another key", pin)
		}
	}
	// Bob is given a key at last: the one that his led to, or came from, or a wrong one.
	wrong := must(contract.NewLedger())(t)
	bob.LedgerKey = wrong.Key
	refused(bob, "the key that is pinned: ledger: not signed with the log's key")
	for _, pin := range []string{last, firstKey} {
		if bob.LedgerKey = pin; key(bob, true) != last {
			t.Error("another key")
		}
	}
	c := s.config(t.TempDir(), "ann")
	c.LedgerKey = wrong.Key
	refused(c, "not signed with the log's key")
	// A key that was handed on signs no more.
	honest := s.Ledger
	back := must(honest.First(honest.Size()))(t)
	for old.Size() <= honest.Size() {
		old.Append(&ledger.Failed{Job: "taste"}, 0)
	}
	s.Ledger = old
	refused(ann, "not signed with the log's key")
	refused(bob, "not signed with the log's key")
	// Not even where the last key hands back to it: its endorsements would be good again.
	if err := back.RotateTo(old); err != nil {
		t.Fatal(err)
	}
	s.Ledger = back
	refused(ann, "the next key signed before")
	// Also where the rotations from before are not shown.
	back.Rotations = back.Rotations[len(back.Rotations)-1:]
	refused(ann, "the next key signed before")
}

// TestFormerLedger: a device follows another ledger only if its owner gives it the key of
// that, and remembers the former one, with the fork that it saw there. Charges and the cap
// stay.
func TestFormerLedger(t *testing.T) {
	s := newService(t, 2)
	s.Create(parameters(), terms("taste"))
	s.Begin("taste")
	c := s.config(t.TempDir(), "ann")
	d := open(t, c)
	want(t, syncOne(t, d), client.Contributed)
	s.Fail("taste")
	if _, err := d.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	// What goes on is a backup that is older than what was seen.
	first := s.Ledger
	short := must(first.First(first.Size() - 1))(t)
	short.Append(&ledger.Restored{Era: 1}, 0)
	short.Append(&ledger.Failed{Job: "taste"}, 0)
	s.shows(short)
	_, err := d.Sync(t.Context())
	forkOf(t, err)
	before := must(d.Status())(t)
	s.Anew("next.example/ledger", 0)
	next := s.Ledger
	refused := func(pin string, is error, message string) {
		t.Helper()
		d.Close()
		c.LedgerKey = pin
		d = open(t, c)
		if _, err := d.Sync(t.Context()); !errors.Is(err, is) || !strings.Contains(err.Error(), message) {
			t.Errorf("%v", err)
		}
		if st := must(d.Status())(t); st.Ledger.Note != before.Ledger.Note || st.Former != nil {
			t.Errorf("%+v", st)
		}
	}
	refused("", client.ErrOtherLedger, `, "next.example/ledger", and this device follows "test.example/ledger": to follow that one`)
	refused(must(contract.NewLedgerOf("next.example/ledger"))(t).Key, client.ErrLedger, "not signed with the log's key")
	refused(must(contract.NewLedgerOf("third.example/ledger"))(t).Key, client.ErrLedger, "not signed with the log's key")

	d.Close()
	c.LedgerKey = next.Key
	d = open(t, c)
	s.Begin("taste")
	want(t, syncOne(t, d), client.Contributed)
	after := must(d.Status())(t)
	if l := after.Ledger; l.Origin != "next.example/ledger" || !l.Pinned || l.Fork != nil || l.Size != next.Size() {
		t.Errorf("%+v", l)
	}
	if f := after.Former; len(f) != 1 || f[0].Note != before.Ledger.Note || f[0].Fork == nil || f[0].Fork.Note != before.Ledger.Fork.Note {
		t.Errorf("%+v", after.Former)
	}
	if after.NanoRho != 2*before.NanoRho || after.Cap != before.Cap {
		t.Errorf("%v after %v", after.NanoRho, before.NanoRho)
	}
	// It is what is followed now, also without the key; and who goes back to the former
	// one finds there what was.
	d.Close()
	c.LedgerKey = ""
	d = open(t, c)
	s.Fail("taste")
	if _, err := d.Sync(t.Context()); err != nil {
		t.Error(err)
	}
	followed := must(d.Status())(t).Ledger
	s.shows(short)
	_, err = d.Sync(t.Context())
	if !errors.Is(err, client.ErrOtherLedger) || !client.ForGood(err) {
		t.Errorf("%v", err)
	}
	d.Close()
	c.LedgerKey = first.Key
	d = open(t, c)
	_, err = d.Sync(t.Context())
	forkOf(t, err)
	if st := must(d.Status())(t); st.Ledger.Note != followed.Note {
		t.Errorf("%+v", st.Ledger)
	}
	first.Append(&ledger.Restored{Era: 1}, 0)
	s.shows(first)
	if _, err = d.Sync(t.Context()); err == nil {
		t.Error("the fork of the former ledger is forgotten")
	}
}

// TestFormerLedgerUnderstates: what a new ledger does not know was spent, the device does.
func TestFormerLedgerUnderstates(t *testing.T) {
	s := newService(t, 1)
	j := s.Create(parameters(), terms("taste"))
	s.Begin("taste")
	c := s.config(t.TempDir(), "ann")
	d := open(t, c)
	want(t, syncOne(t, d), client.Contributed)
	s.Fail("taste")
	d.Close()
	s.Anew("next.example/ledger", 2)
	j.Spent = 0
	c.LedgerKey = s.Ledger.Key
	d = open(t, c)
	s.Begin("taste")
	want(t, syncOne(t, d), "", client.ErrReservation)
	if st := onlyJob(t, d); st.Attempts != 1 || len(s.Arrived) != 1 {
		t.Errorf("%+v", st)
	}
}

// TestUpgrade: a record of before there were ledgers is read, and what waits in the
// outbox then goes as it would have, once the ledger has its attempt.
func TestUpgrade(t *testing.T) {
	for _, name := range []string{"reserved", "not reserved", "over"} {
		t.Run(name, func(t *testing.T) {
			reserved := name == "reserved"
			s := newService(t, 1)
			s.Create(parameters(), terms("taste"))
			s.Begin("taste")
			c := s.config(t.TempDir(), "ann")
			c.Patience = 50 * time.Millisecond
			d := s.unsent(c)
			before := must(d.Status())(t)
			d.Close()
			if err := client.Downgrade(filepath.Join(c.Dir, "record")); err != nil {
				t.Fatal(err)
			}
			d = open(t, c)
			if st := must(d.Status())(t); st.Ledger != nil || st.NanoRho != before.NanoRho || len(st.Pending) != 1 {
				t.Fatalf("%+v", st)
			}
			switch name {
			case "reserved":
				want(t, syncOne(t, d), client.Contributed)
			case "not reserved":
				s.answers(func(out *undertonev1.PollResponse) { out.Work[0].Reservation = nil })
				want(t, syncOne(t, d), "", client.ErrReservation)
			case "over": // or so the server says, which would take the contribution all the same
				s.answers(func(out *undertonev1.PollResponse) { out.Work = nil })
				want(t, syncOne(t, d), client.Over, client.ErrReservation)
			}
			if st := must(d.Status())(t); st.Ledger == nil || st.NanoRho != before.NanoRho || (s.Copies == 1) != reserved {
				t.Errorf("%d copies: %+v", s.Copies, st)
			}
		})
	}
}

// TestKilledWhileItWitnesses kills a device's process before every step that it takes on
// disk. Whatever it sent, it sent under a checkpoint that it remembers: its next life
// refuses another history, and only a life that saw none and sent nothing takes it for
// the first.
func TestKilledWhileItWitnesses(t *testing.T) {
	s := newService(t, 1)
	s.Create(parameters(), terms("taste"))
	s.Begin("taste")
	honest := s.Ledger
	other := must(honest.First(honest.Size()))(t)
	other.Append(&ledger.Failed{Job: "weather"}, 0) // other from the next record on
	honest.Append(&ledger.Failed{Job: "taste"}, 0)
	remembered, forgot, pace := 0, 0, 2
	if testing.Short() {
		pace = 5
	}
	for n := 1; ; n += pace {
		name := fmt.Sprintf("user-%d", n)
		p := s.process(name)
		killed := p.run(n, func(int) {})
		st := must(open(t, client.Config{Dir: p.dir, Offline: true}).Status())(t)
		s.Mu.Lock()
		_, sent := s.Arrived[name+" taste 1 1"]
		s.Mu.Unlock()
		if (sent || st.NanoRho > 0) && (st.Ledger == nil || st.Ledger.Size != honest.Size()) {
			t.Fatalf("killed before step %d: sent: %v, %+v", n, sent, st)
		}
		if !killed {
			break
		}
		s.shows(other)
		if st.Ledger != nil {
			remembered++
			d := open(t, s.config(p.dir, name))
			if _, err := d.Sync(t.Context()); !errors.Is(err, client.ErrTwoHistories) {
				t.Errorf("killed before step %d: %v", n, err)
			}
			d.Close()
		} else {
			forgot++
		}
		s.shows(honest)
	}
	if remembered < 3 || forgot < 1 {
		t.Errorf("killed %d times before it was remembered, and %d times after", forgot, remembered)
	}
}

// TestCompare: who keeps to one of two histories finds out from anybody's checkpoint of
// the other, and from no checkpoint of its own.
func TestCompare(t *testing.T) {
	s := newService(t, 1)
	s.Create(parameters(), terms("taste"))
	note := func(d *client.Device) []byte { return []byte(must(d.Status())(t).Ledger.Note) }
	ann, bob, eve := open(t, s.config(t.TempDir(), "ann")), open(t, s.config(t.TempDir(), "bob")), open(t, s.config(t.TempDir(), "eve"))
	sync := func() {
		t.Helper()
		for _, d := range []*client.Device{ann, bob, eve} {
			if _, err := d.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	sync()
	early := note(ann)
	s.Begin("taste")
	sync()
	common := note(ann)
	s.Fork("eve")
	s.Fail("taste") // one more record
	sync()
	for name, theirs := range map[string][]byte{"an early one": early, "one before the fork": common, "bob's": note(bob), "her own": note(ann)} {
		if err := ann.Compare(t.Context(), theirs); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A rotation later, and while the ledger grows.
	if err := s.Ledger.Rotate(true); err != nil {
		t.Fatal(err)
	}
	grown := 0
	s.answers(func(*undertonev1.PollResponse) {
		if grown++; grown < 4 {
			s.Ledger.Append(&ledger.Failed{Job: "taste"}, 0)
		}
	})
	if err := ann.Compare(t.Context(), note(ann)); err != nil {
		t.Error(err)
	}
	s.answers(nil)

	other := must(contract.NewLedger())(t)
	for name, theirs := range map[string][]byte{"another ledger's": must(other.Note())(t), "nothing": nil, "text": []byte("none\n")} {
		if err := bob.Compare(t.Context(), theirs); !errors.Is(err, client.ErrLedger) || errors.Is(err, client.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := open(t, client.Config{Dir: t.TempDir(), Offline: true}).Compare(t.Context(), common); !errors.Is(err, client.ErrClosed) {
		t.Errorf("offline: %v", err)
	}
	theirs := note(eve)
	for range 2 {
		if err := bob.Compare(t.Context(), theirs); !errors.Is(err, client.ErrTwoHistories) {
			t.Errorf("%v", err)
		}
	}
	if st := must(bob.Status())(t).Ledger; st.Fork == nil || st.Fork.Note != string(theirs) {
		t.Errorf("%+v", st)
	}
	if _, err := bob.Sync(t.Context()); !errors.Is(err, client.ErrTwoHistories) {
		t.Errorf("%v", err)
	}
}

// TestCompareWithLiar: a server that shows each checkpoint the history that it belongs to
// says so itself.
func TestCompareWithLiar(t *testing.T) {
	s := newService(t, 1)
	s.Create(parameters(), terms("taste"))
	ann, eve := open(t, s.config(t.TempDir(), "ann")), open(t, s.config(t.TempDir(), "eve"))
	s.Fork("eve")
	if _, err := eve.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	theirs := must(eve.Status())(t).Ledger
	s.Begin("taste")
	want(t, syncOne(t, ann), client.Contributed)
	other := s.Shown["eve"]
	s.answers(func(out *undertonev1.PollResponse) {
		if s.Seen == uint64(theirs.Size) {
			out.Ledger = must(other.Show(s.Seen))(t)
		}
	})
	if err := ann.Compare(t.Context(), []byte(theirs.Note)); !errors.Is(err, client.ErrTwoHistories) {
		t.Fatal(err)
	}
	st := must(ann.Status())(t).Ledger
	if key := must(ledger.ParseKey(st.Key))(t); must(ledger.OpenCheckpoint([]byte(st.Fork.Note), key))(t).Size != st.Size {
		t.Errorf("%+v", st.Fork)
	}
	// If they were never of one size there would be no verdict, and no peace.
	bob := open(t, s.config(t.TempDir(), "bob"))
	other.Append(&ledger.Failed{Job: "taste"}, 0)
	if err := bob.Compare(t.Context(), []byte(theirs.Note)); !errors.Is(err, client.ErrUnavailable) {
		t.Error(err)
	}
}
