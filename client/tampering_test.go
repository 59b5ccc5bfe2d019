package client_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/client"
	"github.com/undertone-fl/undertone/client/internal/contract"
	"github.com/undertone-fl/undertone/dp/ledger"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// tampering is what a server does to its ledger before it opens the second attempt that
// a device sees, and what the device makes of it.
type tampering struct {
	name  string
	forge func(*testing.T, *service)
	want  error
	sync  bool // want is the error of Sync, not of the job
	forks bool // there are two histories: servers cannot make up for it
}

func tamperings() []tampering {
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
	return []tampering{
		// The ledger.
		{"no ledger", func(_ *testing.T, s *service) { s.Ledger = nil },
			client.ErrLedger, true, false},
		{"a flipped bit in the signature", shown(func(l *undertonev1.Ledger) {
			digit := &l.GetCheckpoint()[len(l.GetCheckpoint())-8] // of base64, another of which it becomes
			*digit = map[bool]byte{true: 'B', false: 'A'}[*digit == 'A']
		}),
			client.ErrLedger, true, false},
		{"a flipped bit in the size", shown(func(l *undertonev1.Ledger) {
			c := l.GetCheckpoint()
			c[strings.IndexByte(string(c), '\n')+1] ^= 1
		}), client.ErrLedger, true, false},
		{"a flipped bit in the root", shown(func(l *undertonev1.Ledger) { l.GetCheckpoint()[len("test.example/ledger\n5\n")+9] ^= 1 }),
			client.ErrLedger, true, false},
		{"a note that is too large", shown(func(l *undertonev1.Ledger) { l.Checkpoint = append(l.Checkpoint, make([]byte, 1<<16)...) }),
			client.ErrLedger, true, false},
		{"a proof that is too long", shown(func(l *undertonev1.Ledger) { l.Consistency = slices.Repeat(l.Consistency, 200) }),
			client.ErrLedger, true, false},
		{"a hash of another length", shown(func(l *undertonev1.Ledger) { l.Consistency[0] = l.Consistency[0][1:] }),
			client.ErrLedger, true, false},
		{"signed with another key", func(t *testing.T, s *service) {
			other := must(contract.NewLedger())(t)
			for _, record := range s.Ledger.Records()[1:] {
				other.Append(must(ledger.Decode(record))(t), 0)
			}
			s.Ledger = other
		}, client.ErrLedger, true, false},
		{"rotated without the old key", rotated(false),
			client.ErrLedger, true, false},
		{"rotated, and the second rotation not endorsed", rotated(true, false),
			client.ErrLedger, true, false},
		{"a rotation that is none", func(t *testing.T, s *service) {
			rotated(true)(t, s)
			shown(func(l *undertonev1.Ledger) { l.Rotations[0] = s.Ledger.Records()[0] })(t, s)
		}, client.ErrLedger, true, false},
		{"truncated", func(t *testing.T, s *service) {
			short := must(s.Ledger.First(s.Ledger.Size() - 2))(t)
			s.answers(func(out *undertonev1.PollResponse) { out.Ledger = must(short.Show(0))(t) })
		}, client.ErrBackwards, true, false},
		{"an old checkpoint again", func(t *testing.T, s *service) {
			old := must(s.Ledger.Show(0))(t)
			s.answers(func(out *undertonev1.PollResponse) { out.Ledger = old })
		}, client.ErrReservation, false, false},
		{"truncated, and grown again", func(t *testing.T, s *service) {
			s.Ledger = must(s.Ledger.First(s.Ledger.Size() - 1))(t)
			s.Ledger.Append(&ledger.Failed{Job: "taste", Round: 1, Attempt: 1, Why: "another reason"}, 0)
		}, client.ErrTwoHistories, true, true},
		{"a record changed", func(t *testing.T, s *service) {
			records := s.Ledger.Records()
			s.Ledger = must(s.Ledger.First(2))(t)
			c := must(ledger.Decode(records[2]))(t).(*ledger.AttemptCharged)
			c.Charge--
			s.Ledger.Append(c, 0)
			s.Ledger.Append(must(ledger.Decode(records[3]))(t), 0)
		}, client.ErrTwoHistories, true, true},
		{"a record dropped", func(t *testing.T, s *service) {
			records := s.Ledger.Records()
			s.Ledger = must(s.Ledger.First(2))(t)
			s.Ledger.Append(must(ledger.Decode(records[3]))(t), 0)
		}, client.ErrTwoHistories, true, true},
		{"a flipped bit in the proof", shown(func(l *undertonev1.Ledger) { flip(l.GetConsistency()[0]) }),
			client.ErrTwoHistories, true, false},
		{"a proof left out", shown(func(l *undertonev1.Ledger) { l.Consistency = nil }),
			client.ErrTwoHistories, true, false},

		// The reservation.
		{"no reservation", work(func(w *undertonev1.Work) { w.Reservation = nil }),
			client.ErrReservation, false, false},
		{"a flipped bit in the reservation", work(func(w *undertonev1.Work) { flip(w.GetReservation().GetRecord()) }),
			client.ErrReservation, false, false},
		{"a flipped bit in its proof", work(func(w *undertonev1.Work) { flip(w.GetReservation().GetProof()[0]) }),
			client.ErrReservation, false, false},
		{"a reservation that is malformed", work(func(w *undertonev1.Work) { w.Reservation.Proof[0] = nil }),
			client.ErrReservation, false, false},
		{"a reservation out of the ledger", work(func(w *undertonev1.Work) { w.Reservation.Index = 1 << 63 }),
			client.ErrReservation, false, false},
		{"another kind of record", func(t *testing.T, s *service) {
			s.answers(func(out *undertonev1.PollResponse) {
				out.Work[0].Reservation = must(s.Ledger.Reservation(1))(t)
			})
		}, client.ErrReservation, false, false},
		{"the reservation of the attempt before", func(t *testing.T, s *service) {
			s.answers(func(out *undertonev1.PollResponse) {
				out.Work[0].Reservation = must(s.Ledger.Reservation(2))(t)
			})
		}, client.ErrReservation, false, false},
		{"of another job", charged(func(c *ledger.AttemptCharged) { c.Job = "weather" }),
			client.ErrReservation, false, false},
		{"of another round", charged(func(c *ledger.AttemptCharged) { c.Round = 2 }),
			client.ErrReservation, false, false},
		{"of another specification", charged(func(c *ledger.AttemptCharged) { c.Specification[0] ^= 1 }),
			client.ErrReservation, false, false},
		{"of another state", charged(func(c *ledger.AttemptCharged) { c.State[0] ^= 1 }),
			client.ErrReservation, false, false},
		{"an understated charge", charged(func(c *ledger.AttemptCharged) { c.Charge-- }),
			client.ErrReservation, false, false},
		{"an overstated charge", charged(func(c *ledger.AttemptCharged) { c.Charge++ }),
			client.ErrReservation, false, false},
		{"spending understated", charged(func(c *ledger.AttemptCharged) { c.Spent-- }),
			client.ErrReservation, false, false},
		{"spending refunded", charged(func(c *ledger.AttemptCharged) { c.Spent -= c.Charge }),
			client.ErrReservation, false, false},
		{"spending beyond the budget", charged(func(c *ledger.AttemptCharged) { c.Spent = 1e15 + 1 }),
			client.ErrBudget, false, false},
	}
}

var update = flag.Bool("update", false, "write TAMPERING.md")

const tamperingPage = "TAMPERING.md"

// TestTampering does to a device what TAMPERING.md lists, and has the device say what
// stands there. Each took part in one attempt, which failed, before it is shown another,
// with what is forged: then it neither draws nor sends anything.
func TestTampering(t *testing.T) {
	var page strings.Builder
	page.WriteString(`# Tampering

What servers can do to the ledger that a device is shown, and what the device says. Each
row is applied by code to a real exchange (` + "`go test ./client -run TestTampering`, and `-update`" + `
writes this page); addresses and digests are left out. What an error is about is asked for
again, and until it verifies nothing is drawn, charged or sent. The last column is what
becomes of it once servers show the honest history again: after ErrTwoHistories they have to
show one ledger that extends both of the checkpoints that were signed, and where there are
two histories nobody can.

| | tampering | error | message | and then |
|---|---|---|---|---|
`)
	all, done := tamperings(), 0
	for i, c := range all {
		t.Run(c.name, func(t *testing.T) {
			done++
			err, later := c.catch(t)
			then := "goes on"
			if later != nil {
				then = plain(later)
			}
			fmt.Fprintf(&page, "| %d | %s | %s | %s | %s |\n", i+1, c.name, c.errorName(t), plain(err), then)
		})
	}
	page.WriteString(`
A fork, each side of it shown to half of the devices, satisfies both halves. The first
device that is shown the other side, or that compares its checkpoint with one from there
(` + "`Device.Compare`, `undertone-agent compare`" + `), has caught it: ` + "`TestForkedHistory`, `TestCompare`" + `.
`)
	if t.Failed() || done < len(all) {
		return
	}
	if *update {
		if err := os.WriteFile(tamperingPage, []byte(page.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have := must(os.ReadFile(tamperingPage))(t); string(have) != page.String() {
		t.Errorf("%s is another than this test writes with -update", tamperingPage)
	}
}

// errorName is what package client calls the error.
func (c *tampering) errorName(t *testing.T) string {
	for name, err := range map[string]error{
		"ErrLedger": client.ErrLedger, "ErrBackwards": client.ErrBackwards, "ErrTwoHistories": client.ErrTwoHistories,
		"ErrReservation": client.ErrReservation, "ErrBudget": client.ErrBudget,
	} {
		if c.want == err {
			return name
		}
	}
	t.Fatalf("%v has no name here", c.want)
	return ""
}

var (
	address = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	short   = regexp.MustCompile(`\b[0-9a-f]{8}\b`) // of digests and keys
)

// plain is an error without what differs from run to run.
func plain(err error) string {
	return short.ReplaceAllString(address.ReplaceAllString(fmt.Sprint(err), "node-1:7300"), "...")
}

// catch returns what the device says, and what once the servers are honest again.
func (c *tampering) catch(t *testing.T) (err, later error) {
	t.Helper()
	s := newService(t, 1)
	s.Create(parameters(), terms("taste"))
	s.Begin("taste")
	config := s.config(t.TempDir(), "ann")
	config.Patience = 50 * time.Millisecond
	d := open(t, config)
	want(t, syncOne(t, d), client.Contributed)
	s.Fail("taste")
	if _, err := d.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, honest := onlyJob(t, d), s.Ledger
	c.forge(t, s)
	s.Begin("taste")
	got, err := d.Sync(t.Context())
	if job := got.Jobs[0]; !c.sync {
		if err != nil || job.Charge != 0 || job.Round != 1 || job.Attempt != 2 {
			t.Errorf("%+v, %v", job, err)
		}
		err = job.Err
	}
	if !errors.Is(err, c.want) || strings.Contains(fmt.Sprint(err), "\n") {
		t.Errorf("%v", err)
	}
	if after := onlyJob(t, d); after != before || len(s.Arrived) != 1 {
		t.Errorf("%+v, and was %+v; %d contributions", after, before, len(s.Arrived))
	}

	s.answers(nil)
	s.reserves(nil)
	s.Ledger = honest
	s.Begin("taste")
	got, later = d.Sync(t.Context())
	switch now := must(d.Status())(t).Ledger; {
	case !c.forks:
		if want(t, got.Jobs[0], client.Contributed); later != nil || now.Fork != nil {
			t.Errorf("%v, %+v", later, now)
		}
	case !errors.Is(later, client.ErrTwoHistories) || !client.ForGood(later) || len(s.Arrived) != 1 || now.Fork == nil:
		t.Errorf("%v, %d contributions, %+v", later, len(s.Arrived), now)
	}
	return err, later
}
