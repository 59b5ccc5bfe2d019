package client_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
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

// reserves has every attempt's record changed that is opened from now on.
func (s *service) reserves(change func(*ledger.AttemptCharged)) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.Reserve = change
}

// TestTampering: what a server may do to its ledger, and what a device says to it. Each
// device took part in one attempt, which failed, before it is shown the next one with
// what is forged. It neither draws nor sends anything.
func TestTampering(t *testing.T) {
	work := func(change func(*undertonev1.Work)) func(*testing.T, *service) {
		return func(_ *testing.T, s *service) {
			s.answers(func(out *undertonev1.PollResponse) {
				for _, w := range out.GetWork() {
					change(w)
				}
			})
		}
	}
	rotated := func(endorsed ...bool) func(*testing.T, *service) {
		return func(t *testing.T, s *service) {
			s.Ledger = must(s.Ledger.First(s.Ledger.Size()))(t)
			for _, e := range endorsed {
				if err := s.Ledger.Rotate(e); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	shown := func(change func(*undertonev1.Ledger)) func(*testing.T, *service) {
		return func(_ *testing.T, s *service) {
			s.answers(func(out *undertonev1.PollResponse) { change(out.GetLedger()) })
		}
	}
	charged := func(change func(*ledger.AttemptCharged)) func(*testing.T, *service) {
		return func(_ *testing.T, s *service) { s.reserves(change) }
	}
	flip := func(b []byte) { b[len(b)/2] ^= 4 }
	for name, c := range map[string]struct {
		forge   func(*testing.T, *service) // before the second attempt is opened
		want    error
		message string
		sync    bool // the error is that of Sync, not of the job
	}{
		// The ledger.
		"no ledger": {func(_ *testing.T, s *service) { s.Ledger = nil },
			client.ErrLedger, "no ledger to rely on: it shows none", true},
		"a flipped bit in the signature": {shown(func(l *undertonev1.Ledger) { c := l.GetCheckpoint(); c[len(c)-8] ^= 4 }),
			client.ErrLedger, "not signed with the log's key", true},
		"a flipped bit in the size": {shown(func(l *undertonev1.Ledger) {
			c := l.GetCheckpoint()
			c[strings.IndexByte(string(c), '\n')+1] ^= 1
		}), client.ErrLedger, "not signed with the log's key", true},
		"a flipped bit in the root": {shown(func(l *undertonev1.Ledger) { flip(l.GetCheckpoint()[:len("test.example/ledger\n5\n")+20]) }),
			client.ErrLedger, "not signed with the log's key", true},
		"a note that is too large": {shown(func(l *undertonev1.Ledger) { l.Checkpoint = append(l.Checkpoint, make([]byte, 1<<16)...) }),
			client.ErrLedger, "it is malformed", true},
		"a proof that is too long": {shown(func(l *undertonev1.Ledger) { l.Consistency = slices.Repeat(l.Consistency, 200) }),
			client.ErrLedger, "it is malformed", true},
		"a hash of another length": {shown(func(l *undertonev1.Ledger) { l.Consistency[0] = l.Consistency[0][1:] }),
			client.ErrLedger, "it is malformed", true},
		"signed with another key": {func(t *testing.T, s *service) {
			other := must(contract.NewLedger())(t)
			for _, record := range s.Ledger.Records()[1:] {
				other.Append(must(ledger.Decode(record))(t), 0)
			}
			s.Ledger = other
		}, client.ErrLedger, "not signed with the log's key", true},
		"rotated without the old key": {rotated(false),
			client.ErrLedger, "not signed with the log's key", true},
		"rotated, and the second rotation not endorsed": {rotated(true, false),
			client.ErrLedger, "no endorsement by the one before", true},
		"a rotation that is none": {func(t *testing.T, s *service) {
			rotated(true)(t, s)
			shown(func(l *undertonev1.Ledger) { l.Rotations[0] = s.Ledger.Records()[0] })(t, s)
		}, client.ErrLedger, "no record of a rotation", true},
		"truncated": {func(t *testing.T, s *service) {
			short := must(s.Ledger.First(s.Ledger.Size() - 2))(t)
			s.answers(func(out *undertonev1.PollResponse) { out.Ledger = must(short.Show(0))(t) })
		}, client.ErrBackwards, "2 records of the ledger, after 4", true},
		"an old checkpoint again": {func(t *testing.T, s *service) {
			old := must(s.Ledger.Show(0))(t)
			s.answers(func(out *undertonev1.PollResponse) { out.Ledger = old })
		}, client.ErrReservation, "", false},
		"truncated, and grown again": {func(t *testing.T, s *service) {
			s.Ledger = must(s.Ledger.First(s.Ledger.Size() - 1))(t)
			s.Ledger.Append(&ledger.Failed{Job: "taste", Round: 1, Attempt: 1, Why: "another reason"}, 0)
		}, client.ErrTwoHistories, "does not extend the 4 records seen before", true},
		"a record changed": {func(t *testing.T, s *service) {
			records := s.Ledger.Records()
			s.Ledger = must(s.Ledger.First(2))(t)
			c := must(ledger.Decode(records[2]))(t).(*ledger.AttemptCharged)
			c.Charge--
			s.Ledger.Append(c, 0)
			s.Ledger.Append(must(ledger.Decode(records[3]))(t), 0)
		}, client.ErrTwoHistories, "does not extend the 4 records seen before", true},
		"a record dropped": {func(t *testing.T, s *service) {
			records := s.Ledger.Records()
			s.Ledger = must(s.Ledger.First(2))(t)
			s.Ledger.Append(must(ledger.Decode(records[3]))(t), 0)
		}, client.ErrTwoHistories, "does not extend the 4 records seen before", true},
		"a flipped bit in the proof": {shown(func(l *undertonev1.Ledger) { flip(l.GetConsistency()[0]) }),
			client.ErrTwoHistories, "does not extend the 4 records seen before", true},
		"a proof left out": {shown(func(l *undertonev1.Ledger) { l.Consistency = nil }),
			client.ErrTwoHistories, "does not extend the 4 records seen before", true},

		// The reservation.
		"no reservation": {work(func(w *undertonev1.Work) { w.Reservation = nil }),
			client.ErrReservation, "none is shown", false},
		"a flipped bit in the reservation": {work(func(w *undertonev1.Work) { flip(w.GetReservation().GetRecord()) }),
			client.ErrReservation, "record 4 is another one", false},
		"a flipped bit in its proof": {work(func(w *undertonev1.Work) { flip(w.GetReservation().GetProof()[0]) }),
			client.ErrReservation, "record 4 is another one", false},
		"a reservation that is malformed": {work(func(w *undertonev1.Work) { w.Reservation.Proof[0] = nil }),
			client.ErrReservation, "none is shown", false},
		"a reservation out of the ledger": {work(func(w *undertonev1.Work) { w.Reservation.Index = 1 << 63 }),
			client.ErrReservation, "is not in the log", false},
		"another kind of record": {func(t *testing.T, s *service) {
			s.answers(func(out *undertonev1.PollResponse) {
				out.Work[0].Reservation = must(s.Ledger.Reservation(1))(t)
			})
		}, client.ErrReservation, "record 1 is of another kind", false},
		"the reservation of the attempt before": {func(t *testing.T, s *service) {
			s.answers(func(out *undertonev1.PollResponse) {
				out.Work[0].Reservation = must(s.Ledger.Reservation(2))(t)
			})
		}, client.ErrReservation, "it is that of taste round 1 attempt 1", false},
		"of another job": {charged(func(c *ledger.AttemptCharged) { c.Job = "weather" }),
			client.ErrReservation, "it is that of weather round 1 attempt 2", false},
		"of another round": {charged(func(c *ledger.AttemptCharged) { c.Round = 2 }),
			client.ErrReservation, "it is that of taste round 2 attempt 2", false},
		"of another specification": {charged(func(c *ledger.AttemptCharged) { c.Specification[0] ^= 1 }),
			client.ErrReservation, "it is that of the specification", false},
		"of another state": {charged(func(c *ledger.AttemptCharged) { c.State[0] ^= 1 }),
			client.ErrReservation, "it is that of the model", false},
		"an understated charge": {charged(func(c *ledger.AttemptCharged) { c.Charge-- }),
			client.ErrReservation, "and the specification", false},
		"an overstated charge": {charged(func(c *ledger.AttemptCharged) { c.Charge++ }),
			client.ErrReservation, "and the specification", false},
		"spending understated": {charged(func(c *ledger.AttemptCharged) { c.Spent-- }),
			client.ErrReservation, "this device alone was charged", false},
		"spending refunded": {charged(func(c *ledger.AttemptCharged) { c.Spent -= c.Charge }),
			client.ErrReservation, "this device alone was charged", false},
		"spending beyond the budget": {charged(func(c *ledger.AttemptCharged) { c.Spent = 1e15 + 1 }),
			client.ErrBudget, "beyond the job's own budget", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, 1)
			s.Create(parameters(), terms("taste"))
			s.Begin("taste")
			c0 := s.config(t.TempDir(), "ann")
			c0.Patience = 50 * time.Millisecond
			d := open(t, c0)
			want(t, syncOne(t, d), client.Contributed)
			s.Fail("taste")
			if _, err := d.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			before, honest := onlyJob(t, d), s.Ledger
			c.forge(t, s)
			s.Begin("taste")
			got, err := d.Sync(t.Context())
			if c.sync {
				if err == nil {
					t.Fatalf("%+v", got)
				}
			} else {
				if err != nil {
					t.Fatal(err)
				}
				err = got.Jobs[0].Err
				if got.Jobs[0].Charge != 0 || got.Jobs[0].Round != 1 || got.Jobs[0].Attempt != 2 {
					t.Errorf("%+v", got.Jobs[0])
				}
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.message) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
			t.Log(err)
			if after := onlyJob(t, d); after != before || len(s.Arrived) != 1 {
				t.Errorf("%+v, and was %+v; %d contributions", after, before, len(s.Arrived))
			}

			// What is not for good is over once the servers are honest again.
			s.answers(nil)
			s.reserves(nil)
			s.Ledger = honest
			s.Begin("taste")
			if got, err := d.Sync(t.Context()); c.want != client.ErrTwoHistories {
				want(t, got.Jobs[0], client.Contributed)
			} else if !errors.Is(err, c.want) || len(s.Arrived) != 1 {
				t.Errorf("%v, %d contributions", err, len(s.Arrived))
			}
		})
	}
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

	// It is for good, whoever is honest later, and nobody is even asked.
	bob.Close()
	s.InterruptWith(func(call, _ string) error {
		t.Errorf("%s was called", call)
		return nil
	})
	bob = open(t, bobConfig)
	if _, err := bob.Sync(t.Context()); !errors.Is(err, client.ErrTwoHistories) {
		t.Errorf("%v", err)
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
	for old.Size() <= s.Ledger.Size() {
		old.Append(&ledger.Failed{Job: "taste"}, 0)
	}
	s.Ledger = old
	refused(ann, "not signed with the log's key")
	refused(bob, "not signed with the log's key")
}

// TestUpgrade: a record of before there were ledgers is read, and what waits in the
// outbox then goes as it would have, once the ledger has its attempt.
func TestUpgrade(t *testing.T) {
	for name, reserved := range map[string]bool{"reserved": true, "not reserved": false} {
		t.Run(name, func(t *testing.T) {
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
			if reserved {
				want(t, syncOne(t, d), client.Contributed)
			} else {
				s.answers(func(out *undertonev1.PollResponse) { out.Work[0].Reservation = nil })
				want(t, syncOne(t, d), "", client.ErrReservation)
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
	remembered, forgot := 0, 0
	for n := 1; ; n++ {
		if testing.Short() && n%4 != 0 {
			continue
		}
		name := fmt.Sprintf("user-%d", n)
		p := s.process(name)
		arrived := len(s.Arrived)
		killed := p.run(n, func(int) {})
		st := must(open(t, client.Config{Dir: p.dir, Offline: true}).Status())(t)
		if sent := len(s.Arrived) > arrived; (sent || st.NanoRho > 0) && (st.Ledger == nil || st.Ledger.Size != honest.Size()) {
			t.Fatalf("killed before step %d: sent: %v, %+v", n, sent, st)
		}
		if !killed {
			break
		}
		s.Ledger = other
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
		s.Ledger = honest
	}
	if remembered < 3 || forgot < 1 {
		t.Errorf("killed %d times before it was remembered, and %d times after", forgot, remembered)
	}
}
