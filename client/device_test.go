package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client"
	"github.com/undertone-fl/undertone/client/internal/contract"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp/noise"
	"github.com/undertone-fl/undertone/proto/identity"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/server/authority"
)

// samples of a user: y = x_0 - x_1 + 2 x_3.
func samples() local.Samples {
	var s local.Samples
	for i := range 12 {
		row := make([]float64, 6)
		for j := range row {
			row[j] = float64((i*(j+3)*7+j*j)%11)/5 - 1
		}
		s.X = append(s.X, row...)
		s.Y = append(s.Y, row[0]-row[1]+2*row[3])
	}
	return s
}

// config of a device named so.
func (s *service) config(dir, name string) client.Config {
	s.t.Helper()
	bearer, err := s.authority.Bearer(identity.Client, name)
	if err != nil {
		s.t.Fatal(err)
	}
	return client.Config{
		Dir: dir, Servers: s.Addresses, Bearer: bearer, Samples: client.Fixed(samples()),
		Cap: client.Cap{Epsilon: 20, Delta: 1e-6}, Patience: 20 * time.Second,
	}
}

func open(t *testing.T, c client.Config) *client.Device {
	t.Helper()
	d, err := client.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// syncOne returns the summary of the only job.
func syncOne(t *testing.T, d *client.Device) client.JobSummary {
	t.Helper()
	s, err := d.Sync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Jobs) != 1 {
		t.Fatalf("%d jobs: %+v", len(s.Jobs), s.Jobs)
	}
	return s.Jobs[0]
}

func want(t *testing.T, got client.JobSummary, outcome client.Outcome, errs ...error) {
	t.Helper()
	if got.Outcome != outcome {
		t.Errorf("outcome %q, want %q (%v)", got.Outcome, outcome, got.Err)
	}
	if len(errs) == 0 && got.Err != nil {
		t.Errorf("%v", got.Err)
	}
	for _, e := range errs {
		if !errors.Is(got.Err, e) {
			t.Errorf("got %v, want %v", got.Err, e)
		}
	}
}

func onlyJob(t *testing.T, d *client.Device) client.JobStatus {
	t.Helper()
	s, err := d.Status()
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Jobs) != 1 || len(s.Pending) != 0 {
		t.Fatalf("%+v", s)
	}
	return s.Jobs[0]
}

// TestJobToItsEnd: a device takes part in every round once, keeps its model up to
// date to the last release, and predicts from it offline.
func TestJobToItsEnd(t *testing.T) {
	s := newService(t, 2)
	j := s.Create(parameters(), terms("taste"))
	c := s.config(t.TempDir(), "ann")
	d := open(t, c)
	if _, err := d.Predict("taste", make([]float64, 6), nil); !errors.Is(err, client.ErrNoModel) {
		t.Errorf("before any model: %v", err)
	}
	for round := range j.Spec.Releases {
		s.Begin("taste")
		got := syncOne(t, d)
		want(t, got, client.Contributed)
		if got.Round != round+1 || got.Charge != j.Spec.Releases[round].Charge || got.Model != round || got.Samples != nil {
			t.Errorf("round %d: %+v", round+1, got)
		}
		if again := syncOne(t, d); again.Outcome != client.Contributed || !again.Earlier || again.Charge != 0 {
			t.Errorf("round %d again: %+v", round+1, again)
		}
		s.Release("taste")
	}
	last, err := d.Sync(t.Context())
	if err != nil || !last.Finished || len(last.Jobs) != 1 || last.Jobs[0].Model != len(j.Spec.Releases) {
		t.Errorf("at the end: %+v, %v", last, err)
	}
	if len(s.Arrived) != len(j.Spec.Releases) || s.Copies != len(s.Arrived) {
		t.Errorf("%d contributions arrived, in %d copies", len(s.Arrived), s.Copies)
	}
	st := onlyJob(t, d)
	spec := j.Spec
	total := spec.Releases[0].Charge
	for _, r := range spec.Releases[1:] {
		total += r.Charge
	}
	if st.NanoRho != total || st.Counted != len(spec.Releases) || !(st.Epsilon > 0 && st.Epsilon <= 4) {
		t.Errorf("%+v, of a job of %v", st, total)
	}

	// Offline, from what is on disk.
	x := []float64{1, 0, -1, 2, 0.5, 0}
	online, err := d.Predict("taste", x, nil)
	if err != nil {
		t.Fatal(err)
	}
	offline := open(t, client.Config{Dir: c.Dir, Offline: true})
	y, err := offline.Predict("taste", x, nil)
	if err != nil || y != online {
		t.Errorf("%v and %v, %v", y, online, err)
	}
	if _, err := offline.Sync(t.Context()); !errors.Is(err, client.ErrClosed) {
		t.Errorf("sync offline: %v", err)
	}
}

// TestRetries: through lost requests, lost answers and nodes that refuse for now,
// the same bytes are sent until they are acknowledged, and counted once.
func TestRetries(t *testing.T) {
	for name, failures := range map[string][]error{
		"unavailable": {status.Error(codes.Unavailable, "gone")},
		"no leader":   {contract.Refuse(codes.Unavailable, &undertonev1.Refusal{Reason: undertonev1.Reason_REASON_NO_LEADER, RetryAfterMs: 10})},
		"rate":        {contract.Refuse(codes.ResourceExhausted, &undertonev1.Refusal{Reason: undertonev1.Reason_REASON_RATE_LIMITED, RetryAfterMs: 20})},
		"several": {status.Error(codes.Unavailable, "gone"), status.Error(codes.Internal, "stream"), status.Error(codes.DeadlineExceeded, "slow"),
			contract.Refuse(codes.Unavailable, &undertonev1.Refusal{Reason: undertonev1.Reason_REASON_OVERLOADED})},
	} {
		for _, when := range []string{"before", "after"} {
			t.Run(name+" "+when, func(t *testing.T) {
				s := newService(t, 2)
				s.Create(parameters(), terms("taste"))
				s.Begin("taste")
				left := failures
				s.InterruptWith(func(call, at string) error {
					if call != "submit" || at != when || len(left) == 0 {
						return nil
					}
					err := left[0]
					left = left[1:]
					return err
				})
				want(t, syncOne(t, open(t, s.config(t.TempDir(), "ann"))), client.Contributed)
				if s.Copies != len(failures)+1 || s.Members("taste") != 1 {
					t.Errorf("%d copies, %d members", s.Copies, s.Members("taste"))
				}
			})
		}
	}
}

// TestUnavailable: what could not be sent is kept, and the next Sync, of another
// process, sends it.
func TestUnavailable(t *testing.T) {
	s := newService(t, 1)
	s.Create(parameters(), terms("taste"))
	s.Begin("taste")
	c := s.config(t.TempDir(), "ann")
	c.Patience = 50 * time.Millisecond
	s.InterruptWith(func(call, _ string) error {
		if call == "submit" {
			return status.Error(codes.Unavailable, "gone")
		}
		return nil
	})
	d := open(t, c)
	got := syncOne(t, d)
	want(t, got, "", client.ErrUnavailable)
	if st, err := d.Status(); err != nil || len(st.Pending) != 1 || st.NanoRho != got.Charge || got.Charge == 0 {
		t.Errorf("%+v, %v", st, err)
	}
	d.Close()
	s.InterruptWith(nil)
	want(t, syncOne(t, open(t, c)), client.Contributed)
	if s.Members("taste") != 1 || len(s.Arrived) != 1 {
		t.Errorf("%d members, %d contributions", s.Members("taste"), len(s.Arrived))
	}
}

// TestNobodyThere: without a server Sync fails, in words that name one.
func TestNobodyThere(t *testing.T) {
	s := newService(t, 1)
	c := s.config(t.TempDir(), "ann")
	c.Servers, c.Patience = []string{"127.0.0.1:1"}, 50*time.Millisecond
	_, err := open(t, c).Sync(t.Context())
	if !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), "127.0.0.1:1") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
}

// TestRoundOver: a contribution that comes too late is given up, and stays charged.
func TestRoundOver(t *testing.T) {
	s := newService(t, 1)
	s.Create(parameters(), terms("taste"))
	s.Begin("taste")
	first := true
	s.InterruptWith(func(call, at string) error {
		if call == "submit" && at == "before" && first {
			first = false
			s.Fail("taste")
		}
		return nil
	})
	d := open(t, s.config(t.TempDir(), "ann"))
	got := syncOne(t, d)
	want(t, got, client.Over, client.ErrOver)
	if st := onlyJob(t, d); st.NanoRho != got.Charge || st.Counted != 0 {
		t.Errorf("%+v", st)
	}
	s.Begin("taste") // a second attempt is charged again
	again := syncOne(t, d)
	want(t, again, client.Contributed)
	if again.Attempt != 2 || again.Charge != got.Charge || onlyJob(t, d).NanoRho != 2*got.Charge {
		t.Errorf("%+v, %+v", again, onlyJob(t, d))
	}
}

// TestCountedAfterAll: a closed round that says it has the contribution counts as
// acknowledged.
func TestCountedAfterAll(t *testing.T) {
	s := newService(t, 1)
	s.Create(parameters(), terms("taste"))
	s.Begin("taste")
	yes := true
	s.InterruptWith(func(call, at string) error {
		if call == "submit" && at == "after" {
			return contract.Refuse(codes.FailedPrecondition, &undertonev1.Refusal{Reason: undertonev1.Reason_REASON_NOT_OPEN, Counted: &yes})
		}
		return nil
	})
	want(t, syncOne(t, open(t, s.config(t.TempDir(), "ann"))), client.Contributed)
}

// TestCap: what does not fit the device's own cap is refused before anything is
// drawn or sent, and a higher cap is a matter of the next Open.
func TestCap(t *testing.T) {
	s := newService(t, 1)
	j := s.Create(parameters(), terms("taste"))
	s.Begin("taste")
	c := s.config(t.TempDir(), "ann")
	c.Cap.Epsilon = 2
	d := open(t, c)
	rounds := 0
	for range j.Spec.Releases {
		got := syncOne(t, d)
		if got.Err != nil {
			want(t, got, "", client.ErrCap)
			break
		}
		rounds++
		s.Release("taste")
		s.Begin("taste")
	}
	st := onlyJob(t, d)
	if rounds == 0 || rounds == len(j.Spec.Releases) || len(s.Arrived) != rounds || st.Rounds != rounds || st.Epsilon > 2 {
		t.Errorf("%d rounds, %d contributions: %+v", rounds, len(s.Arrived), st)
	}
	d.Close()
	c.Cap.Epsilon = 20
	want(t, syncOne(t, open(t, c)), client.Contributed)
	// A cap below what is spent already refuses, and does not overlook it.
	c = s.config(t.TempDir(), "bob")
	d = open(t, c)
	want(t, syncOne(t, d), client.Contributed)
	d.Close()
	s.Release("taste")
	s.Begin("taste")
	c.Cap.Epsilon = 0.01
	want(t, syncOne(t, open(t, c)), "", client.ErrCap)
}

// TestBudget: however many attempts a server opens, the device discloses to a job
// no more than the job's own budget, be its cap as high as it may.
func TestBudget(t *testing.T) {
	s := newService(t, 1)
	j := s.Create(parameters(), terms("taste"))
	c := s.config(t.TempDir(), "ann")
	c.Cap.Epsilon = 1000
	d := open(t, c)
	for attempt := 1; ; attempt++ {
		s.Begin("taste")
		got := syncOne(t, d)
		if got.Err != nil {
			want(t, got, "", client.ErrBudget)
			break
		}
		if attempt == 100 {
			t.Fatal("there is no end to it")
		}
		s.Fail("taste")
	}
	charge := j.Spec.Releases[0].Charge
	if st := onlyJob(t, d); st.NanoRho > j.Spec.Budget || st.NanoRho+charge <= j.Spec.Budget || st.Attempts != len(s.Arrived) {
		t.Errorf("%+v, %d contributions, of a budget of %v", st, len(s.Arrived), j.Spec.Budget)
	}
}

// TestCountedElsewhereTooOften: contributions that a server says were made elsewhere
// are charged up to the job's budget, and the record stays one that can be read.
func TestCountedElsewhereTooOften(t *testing.T) {
	s := newService(t, 1)
	j := s.Create(parameters(), terms("taste"))
	c := s.config(t.TempDir(), "ann")
	d := open(t, c)
	for attempt := 1; ; attempt++ {
		s.Begin("taste")
		s.Count("taste", "ann")
		got := syncOne(t, d)
		if errors.Is(got.Err, client.ErrBudget) {
			break
		}
		want(t, got, client.Elsewhere, client.ErrElsewhere)
		if attempt == 100 {
			t.Fatal("there is no end to it")
		}
	}
	d.Close()
	if st := onlyJob(t, open(t, c)); st.NanoRho > j.Spec.Budget || len(s.Arrived) != 0 {
		t.Errorf("%+v, of a budget of %v", st, j.Spec.Budget)
	}
}

// TestAbsurdBudget: a charge near the end of what can be counted is never recorded.
func TestAbsurdBudget(t *testing.T) {
	s := newService(t, 1)
	j := s.Create(parameters(), terms("taste"))
	j.Spec.Releases[0].Charge, j.Spec.Budget = 1<<63, 1<<63+1<<62
	var err error
	if j.Raw, err = json.Marshal(j.Spec); err != nil {
		t.Fatal(err)
	}
	s.Begin("taste")
	s.Count("taste", "ann")
	d := open(t, s.config(t.TempDir(), "ann"))
	want(t, syncOne(t, d), "", client.ErrSpec)
	if st, err := d.Status(); err != nil || st.NanoRho != 0 {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestUnusableSamples: whatever is wrong with the samples, the device contributes
// a noised vector like any other, and says so at home only.
func TestUnusableSamples(t *testing.T) {
	broken := samples()
	broken.X = broken.X[1:]
	for name, source := range map[string]client.Samples{
		"shape": client.Fixed(broken),
		"error": func(string, int) (local.Samples, error) { return local.Samples{}, errors.New("no such table") },
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, 1)
			j := s.Create(parameters(), terms("taste"))
			s.Begin("taste")
			c := s.config(t.TempDir(), "ann")
			c.Samples = source
			d := open(t, c)
			got := syncOne(t, d)
			want(t, got, client.Contributed)
			if got.Samples == nil || got.Model != 0 {
				t.Errorf("%+v", got)
			}
			for _, payload := range s.Arrived {
				if len(payload) != j.Spec.Releases[0].Length*int(j.Spec.Lattice.ModulusBits/8) {
					t.Errorf("%d bytes", len(payload))
				}
			}
			if _, err := d.Predict("taste", make([]float64, 6), nil); err != nil {
				t.Errorf("the shared part alone: %v", err)
			}
		})
	}
}

// TestFit: samples that have come since count once they are fitted, without a
// server, and stay fitted.
func TestFit(t *testing.T) {
	s := newService(t, 1)
	s.Create(parameters(), terms("taste"))
	c := s.config(t.TempDir(), "ann")
	now := samples()
	c.Samples = func(string, int) (local.Samples, error) { return now, nil }
	d := open(t, c)
	if err := d.Fit("taste"); !errors.Is(err, client.ErrNoModel) {
		t.Errorf("before any model: %v", err)
	}
	s.Begin("taste")
	want(t, syncOne(t, d), client.Contributed)
	s.Release("taste")
	if _, err := d.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	x := []float64{1, 0, -1, 2, 0.5, 0}
	predict := func(d *client.Device) float64 {
		t.Helper()
		y, err := d.Predict("taste", x, nil)
		if err != nil {
			t.Fatal(err)
		}
		return y
	}
	before := predict(d)
	now = samples()
	for i := range now.Y {
		now.Y[i] *= 3
	}
	if y := predict(d); y != before {
		t.Errorf("%v before it is fitted, and was %v", y, before)
	}
	if err := d.Fit("taste"); err != nil {
		t.Fatal(err)
	}
	after := predict(d)
	if after == before {
		t.Errorf("%v whatever the samples", after)
	}
	offline := open(t, client.Config{Dir: c.Dir, Offline: true})
	if y := predict(offline); y != after {
		t.Errorf("%v on disk, %v in memory", y, after)
	}
	if err := offline.Fit("taste"); !errors.Is(err, client.ErrClosed) {
		t.Errorf("offline: %v", err)
	}
	now.X = now.X[1:]
	if err := d.Fit("taste"); !errors.Is(err, local.ErrSamples) {
		t.Errorf("samples of the wrong shape: %v", err)
	}
}

// TestTwoHistories: what was shown once of a job may not change. Then the device
// takes no part in it any more, not even after a restart.
func TestTwoHistories(t *testing.T) {
	for name, forge := range map[string]func(*service){
		"state": func(s *service) {
			j := s.Jobs["taste"]
			s.Fail("taste")
			j.States[0] = append([]byte(" "), j.States[0]...) // as valid, and another one
			s.Begin("taste")
		},
		"specification": func(s *service) {
			other := terms("taste")
			other.RoundSize++
			s.Create(parameters(), other)
			s.Begin("taste")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, 1)
			s.Create(parameters(), terms("taste"))
			s.Begin("taste")
			c := s.config(t.TempDir(), "ann")
			d := open(t, c)
			want(t, syncOne(t, d), client.Contributed)
			honest := *s.Jobs["taste"]
			states := append([][]byte(nil), honest.States...)
			forge(s)
			want(t, syncOne(t, d), "", client.ErrTwoHistories)
			d.Close()
			honest.States, honest.Attempt = states, 5
			s.Jobs["taste"] = &honest
			s.Begin("taste")
			want(t, syncOne(t, open(t, c)), "", client.ErrTwoHistories)
			if len(s.Arrived) != 1 {
				t.Errorf("%d contributions", len(s.Arrived))
			}
		})
	}
}

// TestBackwards: a node that shows an earlier round is not believed, whatever index
// it claims.
func TestBackwards(t *testing.T) {
	s := newService(t, 1)
	j := s.Create(parameters(), terms("taste"))
	s.Begin("taste")
	d := open(t, s.config(t.TempDir(), "ann"))
	want(t, syncOne(t, d), client.Contributed)
	s.Release("taste")
	s.Begin("taste")
	want(t, syncOne(t, d), client.Contributed)
	s.Fail("taste")
	j.States = j.States[:1]
	j.Attempt = 9
	s.Begin("taste")
	got := syncOne(t, d)
	want(t, got, "", client.ErrBackwards)
	if len(s.Arrived) != 2 {
		t.Errorf("%d contributions", len(s.Arrived))
	}
}

// TestIndexIsCarried: an answer from before what was seen is refused, over nodes
// and restarts.
func TestIndexIsCarried(t *testing.T) {
	s := newService(t, 1)
	s.Create(parameters(), terms("taste"))
	s.Begin("taste")
	c := s.config(t.TempDir(), "ann")
	c.Patience = 50 * time.Millisecond
	d := open(t, c)
	want(t, syncOne(t, d), client.Contributed)
	d.Close()
	s.Index -= 2
	if _, err := open(t, c).Sync(t.Context()); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

// TestWrongBytes: a model or a specification with another digest than announced is
// no ground to contribute.
func TestWrongBytes(t *testing.T) {
	for name, forge := range map[string]func(*service, *contract.Job){
		"state": func(s *service, j *contract.Job) {
			s.InterruptWith(func(call, at string) error {
				if call == "state" && at == "before" { // announced is what Poll saw
					s.Mu.Lock()
					j.States[0][len(j.States[0])/2] ^= 1
					s.Mu.Unlock()
				}
				return nil
			})
		},
		"specification": func(s *service, j *contract.Job) {
			s.InterruptWith(func(call, at string) error {
				if call == "spec" {
					s.Mu.Lock()
					j.Raw = append(j.Raw, ' ')
					s.Mu.Unlock()
				}
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, 1)
			j := s.Create(parameters(), terms("taste"))
			s.Begin("taste")
			forge(s, j)
			d := open(t, s.config(t.TempDir(), "ann"))
			want(t, syncOne(t, d), "", client.ErrDigest)
			if st, err := d.Status(); err != nil || st.NanoRho != 0 || len(s.Arrived) != 0 {
				t.Errorf("%+v, %v", st, err)
			}
		})
	}
}

// TestTooLarge: a model that no phone could hold is not asked for.
func TestTooLarge(t *testing.T) {
	s := newService(t, 1)
	s.Create(parameters(), terms("taste")).Size = 256<<20 + 1
	s.Begin("taste")
	s.InterruptWith(func(call, _ string) error {
		if call == "state" {
			t.Error("it was asked for")
		}
		return nil
	})
	c := s.config(t.TempDir(), "ann")
	c.Patience = 50 * time.Millisecond
	want(t, syncOne(t, open(t, c)), "", client.ErrTooLarge)
}

// TestLyingSpecification: claims are recomputed before anything is charged.
func TestLyingSpecification(t *testing.T) {
	s := newService(t, 1)
	j := s.Create(parameters(), terms("taste"))
	j.Spec.Releases[0].Charge /= 2
	var err error
	if j.Raw, err = json.Marshal(j.Spec); err != nil {
		t.Fatal(err)
	}
	s.Begin("taste")
	want(t, syncOne(t, open(t, s.config(t.TempDir(), "ann"))), "", client.ErrSpec)
	if len(s.Arrived) != 0 {
		t.Error("a contribution all the same")
	}
}

// TestAccept: the app has the last word on a job.
func TestAccept(t *testing.T) {
	s := newService(t, 1)
	s.Create(parameters(), terms("taste"))
	s.Begin("taste")
	c := s.config(t.TempDir(), "ann")
	c.Accept = func(s *rounds.Spec) error { return fmt.Errorf("trust is %s", s.Trust) }
	want(t, syncOne(t, open(t, c)), "", client.ErrDeclined)
	c = s.config(t.TempDir(), "ann")
	c.Jobs = []string{"weather"}
	got := syncOne(t, open(t, c))
	if got.Job != "weather" {
		t.Errorf("%+v", got)
	}
	want(t, got, "", client.ErrUnknownJob)
	if len(s.Arrived) != 0 {
		t.Error("a contribution all the same")
	}
}

// TestManyDeclined: a poll lists the latest declined attempt of a job, and not all
// that ever were, of which a server takes so many only.
func TestManyDeclined(t *testing.T) {
	s := newService(t, 1)
	s.Create(parameters(), terms("taste"))
	c := s.config(t.TempDir(), "ann")
	asked := 0
	c.Accept = func(*rounds.Spec) error { asked++; return errors.New("not today") }
	d := open(t, c)
	for range 5 {
		s.Begin("taste")
		want(t, syncOne(t, d), "", client.ErrDeclined)
		s.Fail("taste")
	}
	s.Begin("taste")
	for range 3 {
		want(t, syncOne(t, d), "", client.ErrDeclined)
	}
	if s.Known != 1 || asked != 6 {
		t.Errorf("%d attempts were listed, %d looked at", s.Known, asked)
	}
}

// TestElsewhere: an identity that contributed from another folder is charged here
// as well, and contributes no second vector.
func TestElsewhere(t *testing.T) {
	s := newService(t, 1)
	s.Create(parameters(), terms("taste"))
	s.Begin("taste")
	want(t, syncOne(t, open(t, s.config(t.TempDir(), "ann"))), client.Contributed)
	d := open(t, s.config(t.TempDir(), "ann"))
	got := syncOne(t, d)
	want(t, got, client.Elsewhere, client.ErrElsewhere)
	if got.Charge == 0 || len(s.Arrived) != 1 || s.Copies != 1 {
		t.Errorf("%+v, %d copies", got, s.Copies)
	}
}

// TestSeeded: with seeded noise a device sends, bit for bit, what anybody computes
// who has its samples and the seed.
func TestSeeded(t *testing.T) {
	s := newService(t, 1)
	j := s.Create(parameters(), terms("taste"))
	s.Begin("taste")
	c := s.config(t.TempDir(), "ann")
	c.Seeded = func(_ string, round, _ int) *noise.Seeded { return noise.NewSeeded(5, uint64(round)) }
	want(t, syncOne(t, open(t, c)), client.Contributed)

	state, err := jobs.State(j.Spec, 0, j.States[0])
	if err != nil {
		t.Fatal(err)
	}
	x := make([]float64, j.Spec.Releases[0].Length)
	contributor := local.Contributor{Solver: local.Solver{Sparsity: parameters().Sparsity}}
	if err := contributor.Contribute(x, state, samples()); err != nil {
		t.Fatal(err)
	}
	mechanism, err := local.DeviceMechanism(j.Spec, 1, noise.NewSeeded(5, 1))
	if err != nil {
		t.Fatal(err)
	}
	z := make([]int64, len(x))
	if err := mechanism.Encode(z, x); err != nil {
		t.Fatal(err)
	}
	for _, payload := range s.Arrived {
		if !bytes.Equal(payload, aggregation.Pack(nil, z, int(j.Spec.Lattice.ModulusBits/8))) {
			t.Error("other bytes were sent")
		}
	}
}

// TestTrustModes: with central trust the contribution is within the bound, without
// noise; the service holds that it is within what each mode allows.
func TestTrustModes(t *testing.T) {
	for _, trust := range []rounds.Trust{rounds.TrustCentral, rounds.TrustLocal} {
		t.Run(string(trust), func(t *testing.T) {
			s := newService(t, 1)
			term := terms("taste")
			term.Trust, term.NMin = trust, 10
			s.Create(parameters(), term)
			s.Begin("taste")
			c := s.config(t.TempDir(), "ann")
			c.Trust = []rounds.Trust{trust}
			d := open(t, c)
			want(t, syncOne(t, d), client.Contributed)
			if st := onlyJob(t, d); st.Trust != trust || st.NMin != 10 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// TestCentralIsOptIn: a device that was not told otherwise sends nothing that has no
// noise.
func TestCentralIsOptIn(t *testing.T) {
	s := newService(t, 1)
	term := terms("taste")
	term.Trust = rounds.TrustCentral
	s.Create(parameters(), term)
	s.Begin("taste")
	got := syncOne(t, open(t, s.config(t.TempDir(), "ann")))
	want(t, got, "", client.ErrDeclined)
	if !strings.Contains(got.Err.Error(), "trust mode is central") || got.Charge != 0 || len(s.Arrived) != 0 {
		t.Errorf("%+v, %d contributions", got, len(s.Arrived))
	}
}

// TestTrustIsNarrowed: a contribution without noise that waits to be sent stays where
// it is, once the user no longer trusts servers with it.
func TestTrustIsNarrowed(t *testing.T) {
	s := newService(t, 1)
	term := terms("taste")
	term.Trust = rounds.TrustCentral
	s.Create(parameters(), term)
	s.Begin("taste")
	c := s.config(t.TempDir(), "ann")
	c.Trust, c.Patience = []rounds.Trust{rounds.TrustCentral}, 50*time.Millisecond
	client.FailAt(&c, func(step, path string) error {
		if step == "sync-folder" && filepath.Base(path) == "outbox" {
			return syscall.EIO
		}
		return nil
	})
	d := open(t, c)
	want(t, syncOne(t, d), "", syscall.EIO)
	d.Close()
	client.FailAt(&c, nil)
	c.Trust = nil
	d = open(t, c)
	want(t, syncOne(t, d), "", client.ErrDeclined)
	if st, err := d.Status(); err != nil || len(st.Pending) != 1 || len(s.Arrived) != 0 {
		t.Errorf("%+v, %v; %d contributions", st, err, len(s.Arrived))
	}
}

// TestLargeContribution goes in pieces, and a broken model download goes on where
// it was.
func TestLargeContribution(t *testing.T) {
	s := newService(t, 2)
	p := parameters()
	p.Dim, p.Update = 200, lowrank.LeastSquares
	j := s.Create(p, terms("wide"))
	size := 0
	for _, r := range j.Spec.Releases {
		size = max(size, r.Length*int(j.Spec.Lattice.ModulusBits/8))
	}
	d := open(t, s.config(t.TempDir(), "ann"))
	parts := 0
	s.InterruptWith(func(call, at string) error {
		if call == "state" && at == "after" {
			if parts++; parts%3 == 0 {
				return status.Error(codes.Unavailable, "broken")
			}
		}
		return nil
	})
	largest := 0
	for range j.Spec.Releases {
		s.Begin("wide")
		want(t, syncOne(t, d), client.Contributed)
		s.Release("wide")
	}
	for _, payload := range s.Arrived {
		largest = max(largest, len(payload))
	}
	if largest != size || largest < 300<<10 || parts < 6 {
		t.Errorf("at most %d bytes of %d; %d parts", largest, size, parts)
	}
}

// TestDamagedFiles: a damaged record stops the device; a damaged contribution is
// given up, never made again; a damaged model is fetched and fitted again.
func TestDamagedFiles(t *testing.T) {
	s := newService(t, 1)
	s.Create(parameters(), terms("taste"))
	s.Begin("taste")
	c := s.config(t.TempDir(), "ann")
	c.Patience = 50 * time.Millisecond
	s.InterruptWith(func(call, _ string) error {
		if call == "submit" {
			return status.Error(codes.Unavailable, "gone")
		}
		return nil
	})
	d := open(t, c)
	want(t, syncOne(t, d), "", client.ErrUnavailable)
	d.Close()
	s.InterruptWith(nil)

	flip(t, filepath.Join(c.Dir, "outbox", "job-taste.1.1"))
	d = open(t, c)
	got := syncOne(t, d)
	if got.Outcome != client.Lost {
		t.Errorf("%+v", got)
	}
	if s.Members("taste") != 0 || onlyJob(t, d).NanoRho == 0 {
		t.Errorf("%d members; %+v", s.Members("taste"), onlyJob(t, d))
	}
	d.Close()

	flip(t, filepath.Join(c.Dir, "models", "job-taste"))
	public, err := filepath.Glob(filepath.Join(c.Dir, "public", "*"))
	if err != nil || len(public) < 2 {
		t.Fatal(public, err)
	}
	for _, path := range public {
		flip(t, path)
	}
	d = open(t, c)
	if _, err := d.Predict("taste", make([]float64, 6), nil); !errors.Is(err, client.ErrCorrupt) {
		t.Errorf("%v", err)
	}
	syncOne(t, d)
	if _, err := d.Predict("taste", make([]float64, 6), nil); err != nil {
		t.Error(err)
	}
	d.Close()

	flip(t, filepath.Join(c.Dir, "record"))
	if _, err := client.Open(c); !errors.Is(err, client.ErrCorrupt) || !strings.Contains(err.Error(), "record") {
		t.Errorf("%v", err)
	}
	if err := os.Remove(filepath.Join(c.Dir, "record")); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Open(c); !errors.Is(err, client.ErrCorrupt) {
		t.Errorf("without a record: %v", err)
	}
}

// flip flips a bit in the middle of a file.
func flip(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 4
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDiskFull: at whichever step the disk is full, Sync fails in words that name
// the file, nothing is sent that is not stored and charged, and once there is
// room the device goes on.
func TestDiskFull(t *testing.T) {
	s := newService(t, 1)
	s.Create(parameters(), terms("taste"))
	s.Begin("taste")
	for n := 0; ; n++ {
		c := s.config(t.TempDir(), fmt.Sprintf("user-%d", n))
		steps, full := 0, true
		client.FailAt(&c, func(step, path string) error {
			if steps++; full && steps > n {
				return &os.PathError{Op: step, Path: path, Err: syscall.ENOSPC}
			}
			return nil
		})
		d, err := client.Open(c)
		if err == nil {
			got, syncErr := d.Sync(t.Context())
			if err = syncErr; err == nil && len(got.Jobs) == 1 {
				err = got.Jobs[0].Err
			}
			if err == nil {
				if n < 20 {
					t.Errorf("only %d steps", n)
				}
				return
			}
		}
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), c.Dir) {
			t.Fatalf("step %d: %v", n, err)
		}
		full = false
		if d == nil {
			d = open(t, c)
		} else {
			t.Cleanup(func() { d.Close() })
		}
		got := syncOne(t, d)
		want(t, got, client.Contributed)
		if st := onlyJob(t, d); st.Attempts != 1 || st.Counted != 1 {
			t.Fatalf("step %d: %+v", n, st)
		}
	}
}

// TestFolders: a folder is one identity's, and one device's at a time.
func TestFolders(t *testing.T) {
	s := newService(t, 1)
	dir := t.TempDir()
	d := open(t, s.config(dir, "ann"))
	if _, err := client.Open(s.config(dir, "ann")); !errors.Is(err, client.ErrLocked) {
		t.Errorf("twice: %v", err)
	}
	d.Close()
	if _, err := client.Open(s.config(dir, "bob")); !errors.Is(err, client.ErrIdentity) {
		t.Errorf("another's: %v", err)
	}
	if _, err := d.Sync(t.Context()); !errors.Is(err, client.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestCertificates: what is wrong with a certificate is said clearly, on either
// side of the connection.
func TestCertificates(t *testing.T) {
	s := newService(t, 1)
	c := s.config(t.TempDir(), "ann")
	c.Bearer, c.Identity = nil, identity.In(filepath.Join(t.TempDir(), "nowhere"))
	var file *identity.FileError
	if _, err := client.Open(c); !errors.As(err, &file) {
		t.Errorf("missing: %v", err)
	}
	operator, err := s.authority.Bearer(identity.Operator, "olga")
	if err != nil {
		t.Fatal(err)
	}
	c.Bearer = operator
	if _, err := client.Open(c); !errors.Is(err, client.ErrForbidden) {
		t.Errorf("an operator's: %v", err)
	}
	other, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := other.Bearer(identity.Client, "ann")
	if err != nil {
		t.Fatal(err)
	}
	c.Bearer, c.Patience = stranger, 50*time.Millisecond
	if _, err := open(t, c).Sync(t.Context()); !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a stranger's: %v", err)
	}
}

// TestConfigMistakes name the field.
func TestConfigMistakes(t *testing.T) {
	s := newService(t, 1)
	for field, spoil := range map[string]func(*client.Config){
		"dir":     func(c *client.Config) { c.Dir = "" },
		"servers": func(c *client.Config) { c.Servers = []string{"localhost"} },
		"samples": func(c *client.Config) { c.Samples = nil },
		"cap":     func(c *client.Config) { c.Cap.Delta = 2 },
		"trust":   func(c *client.Config) { c.Trust = []rounds.Trust{"blind"} },
		"wait":    func(c *client.Config) { c.Wait = time.Hour },

		"patience":   func(c *client.Config) { c.Patience = -1 },
		"ledger key": func(c *client.Config) { c.LedgerKey = "example.com+0+x" },
	} {
		c := s.config(t.TempDir(), "ann")
		spoil(&c)
		var mistake *client.ConfigError
		if _, err := client.Open(c); !errors.As(err, &mistake) || mistake.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestRun takes part in rounds as they open, until it is told to stop.
func TestRun(t *testing.T) {
	s := newService(t, 2)
	j := s.Create(parameters(), terms("taste"))
	c := s.config(t.TempDir(), "ann")
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	c.Wait = 100 * time.Millisecond
	finished := false
	s.Begin("taste")
	c.Report = func(got *client.Summary) {
		if got.Finished {
			finished = true
			stop()
			return
		}
		if s.Members("taste") == 1 && len(s.Jobs["taste"].States) <= len(j.Spec.Releases) {
			s.Release("taste")
			if len(s.Jobs["taste"].States) <= len(j.Spec.Releases) {
				s.Begin("taste")
			}
		}
	}
	if err := open(t, c).Run(ctx); err != nil {
		t.Fatal(err)
	}
	if !finished || len(s.Arrived) != len(j.Spec.Releases) {
		t.Errorf("%d contributions", len(s.Arrived))
	}
}
