package service_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/proto/identity"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	rpc "github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server/internal/solo"
)

func (f *fixture) books(role identity.Role) rpc.LedgerServiceClient {
	return rpc.NewLedgerServiceClient(f.dial(role, "ada"))
}

// opened is the checkpoint in an answer, and its proof, as whoever has the key reads it.
func (f *fixture) opened(l *undertonev1.Ledger) (ledger.Checkpoint, ledger.Proof) {
	f.t.Helper()
	key, err := ledger.ParseKey(solo.PublicKey)
	must(f.t, err)
	c, err := ledger.OpenCheckpoint(l.GetCheckpoint(), key)
	must(f.t, err)
	return c, proof(l.GetConsistency())
}

func proof(hashes [][]byte) (p ledger.Proof) {
	for _, h := range hashes {
		p = append(p, ledger.Digest(h))
	}
	return p
}

// A poll's answer proves that the ledger goes on from what the client has seen, and that
// the attempt it offers is charged; the client can follow it anywhere from its index on.
func TestPollShowsLedger(t *testing.T) {
	f := newFixture(t, nil)
	client := f.client("ann")
	first, err := client.Poll(t.Context(), new(undertonev1.PollRequest))
	must(t, err)
	seen, none := f.opened(first.Ledger)
	if len(none) > 0 || first.Ledger.Key != solo.PublicKey || len(first.Ledger.Rotations) > 0 {
		t.Errorf("to who has seen nothing: %v", first.Ledger)
	}
	f.node.Do(t, rounds.CloseRound{Job: f.spec.Job, Round: 1, Attempt: 1})
	operator := rpc.NewOperatorServiceClient(f.dial(identity.Operator, "ada"))
	_, err = operator.CloseJob(t.Context(), &undertonev1.CloseJobRequest{Job: f.spec.Job})
	must(t, err)
	terms := solo.Terms("books")
	f.node.Create(t, solo.Parameters(), terms)
	f.node.Do(t, rounds.OpenRound{Job: "books", Round: 1, Attempt: 1})

	resp, err := client.Poll(t.Context(), &undertonev1.PollRequest{MinIndex: first.Index, LedgerSize: uint64(seen.Size), WaitMs: 30_000})
	must(t, err)
	next, extends := f.opened(resp.Ledger)
	must(t, seen.Follow(next, extends))
	if next.Size != seen.Size+4 { // failure, closed, job, attempt
		t.Errorf("%d records after %d", next.Size, seen.Size)
	}
	if len(resp.Work) != 1 {
		t.Fatalf("%v", resp.Work)
	}
	r := resp.Work[0].Reservation
	must(t, next.Includes(r.GetRecord(), int64(r.GetIndex()), proof(r.GetProof())))
	e, err := ledger.Decode(r.Record)
	must(t, err)
	a, ok := e.(*ledger.AttemptCharged)
	if !ok || a.Job != "books" || a.Round != 1 || a.Attempt != 1 || !bytes.Equal(a.State[:], resp.Work[0].StateDigest) || !bytes.Equal(a.Specification[:], resp.Work[0].SpecDigest) {
		t.Errorf("%s is no reservation of %v", r.Record, resp.Work[0])
	}
	f.node.View(func(m *rounds.Machine, index uint64) {
		if resp.Index > index || m.Ledger().Size() < next.Size {
			t.Errorf("index %d of %d", resp.Index, index)
		}
	})
	at, err := f.books(identity.Client).GetCheckpoint(t.Context(), &undertonev1.GetCheckpointRequest{LedgerSize: uint64(seen.Size)})
	must(t, err)
	now, extends := f.opened(at.Ledger)
	must(t, seen.Follow(now, extends))
	if now != next || at.Index < resp.Index {
		t.Errorf("%v at %d, and polled %v at %d", now, at.Index, next, resp.Index)
	}
}

// A node that lacks the ledger's key sends clients elsewhere, rather than show them work
// that they cannot check.
func TestNodeWithoutKey(t *testing.T) {
	f := newFixture(t, nil)
	next := f.rotate()
	must(t, os.WriteFile(f.keys, []byte(solo.SecretKey), 0o600)) // as if it never had the next
	// The notary that rotated knows the key; another one, started now, does not.
	g := newFixtureOf(t, f.node, f.authority, f.keys, nil)
	_, err := g.client("ann").Poll(t.Context(), new(undertonev1.PollRequest))
	g.expect(err, codes.Unavailable, undertonev1.Reason_REASON_NO_KEY)
	_, err = g.books(identity.Operator).RotateKey(t.Context(), &undertonev1.RotateKeyRequest{Key: next, Check: true})
	g.expect(err, codes.Unavailable, undertonev1.Reason_REASON_NO_KEY)
	if !strings.Contains(err.Error(), f.keys+": it has not the key") {
		t.Errorf("an operator is told %v", err)
	}
	// Nor is a round opened by hand that it could not show to be charged.
	f.node.Do(t, rounds.CloseRound{Job: f.spec.Job, Round: 1, Attempt: 1})
	open := &undertonev1.OpenRoundRequest{Job: f.spec.Job, Round: 1, Attempt: 2}
	_, err = rpc.NewOperatorServiceClient(g.dial(identity.Operator, "ada")).OpenRound(t.Context(), open)
	g.expect(err, codes.Unavailable, undertonev1.Reason_REASON_NO_KEY)
	_, err = f.client("ann").Poll(t.Context(), new(undertonev1.PollRequest))
	must(t, err)
}

// rotate has the service hand the ledger on to a new key, and returns it.
func (f *fixture) rotate() (public string) {
	f.t.Helper()
	secret, public, err := ledger.NewKey(solo.Origin)
	must(f.t, err)
	must(f.t, os.WriteFile(f.keys, []byte(solo.SecretKey+"\n"+secret+"\n"), 0o600))
	_, err = f.books(identity.Operator).RotateKey(f.t.Context(), &undertonev1.RotateKeyRequest{Key: public})
	must(f.t, err)
	return public
}

func TestRotateKey(t *testing.T) {
	f := newFixture(t, nil)
	operator := f.books(identity.Operator)
	_, elsewhere, err := ledger.NewKey("elsewhere")
	must(t, err)
	_, unknown, err := ledger.NewKey(solo.Origin)
	must(t, err)
	for key, want := range map[string]undertonev1.Reason{
		"":        undertonev1.Reason_REASON_MALFORMED,
		"no key":  undertonev1.Reason_REASON_MALFORMED,
		elsewhere: undertonev1.Reason_REASON_MALFORMED,
		unknown:   undertonev1.Reason_REASON_NO_KEY,
	} {
		if _, err := operator.RotateKey(t.Context(), &undertonev1.RotateKeyRequest{Key: key}); reasonOf(err) != want {
			t.Errorf("%.40q: %v, want %v", key, err, want)
		}
	}
	next := f.rotate()
	for _, check := range []bool{true, false} { // the same again is no error
		r, err := operator.RotateKey(t.Context(), &undertonev1.RotateKeyRequest{Key: next, Check: check})
		must(t, err)
		if len(r.Ledger.Rotations) != 1 || r.Ledger.Key != next {
			t.Errorf("%d rotations, to %s", len(r.Ledger.Rotations), r.Ledger.Key)
		}
	}
}

// The whole ledger arrives, and is one that verifies.
func TestDownloadLedger(t *testing.T) {
	f := newFixture(t, nil)
	stream, err := f.books(identity.Auditor).DownloadLedger(t.Context(), new(undertonev1.DownloadLedgerRequest))
	must(t, err)
	var file bytes.Buffer
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		file.Write(piece.Chunk)
	}
	b, err := ledger.ReadBundle(bytes.NewReader(file.Bytes()), int64(file.Len()))
	must(t, err)
	h, err := ledger.Verify(b, solo.PublicKey, ledger.Checkpoint{})
	must(t, err)
	if len(h.Jobs) != 1 || h.Jobs[0].Name != f.spec.Job || len(h.Jobs[0].Attempts) != 1 {
		t.Errorf("%+v", h.Jobs)
	}
}

// A measurement is put on record under the name of who calls, once, in whole numbers
// that claim no more than was measured.
func TestRecordCanary(t *testing.T) {
	f := newFixture(t, nil)
	auditor := f.books(identity.Auditor)
	good := func() *undertonev1.RecordCanaryRequest {
		return &undertonev1.RecordCanaryRequest{
			Job: f.spec.Job, ClaimedEpsilon: 7.99999951, LowerEpsilon: 7.87654399, UpperEpsilon: 8.0000001, Delta: 1e-6, Confidence: 0.95,
			Trials: 100_000, Passed: true, MeasuredMs: 1_770_000_000_000, How: "test jobs, in one process",
		}
	}
	first, err := auditor.RecordCanary(t.Context(), good())
	must(t, err)
	again, err := auditor.RecordCanary(t.Context(), good())
	must(t, err)
	if first.Record != again.Record {
		t.Errorf("records %d and %d", first.Record, again.Record)
	}
	f.node.View(func(m *rounds.Machine, _ uint64) {
		e, err := ledger.Decode(m.Ledger().Records()[first.Record])
		must(t, err)
		c := *e.(*ledger.CanaryMeasured)
		c.Stamp = ledger.Stamp{}
		if want := (ledger.CanaryMeasured{
			Job: f.spec.Job, By: "auditor/ada", Claimed: 8_000_000, Lower: 7_876_543, Upper: 8_000_001, Delta: "1e-06", Confidence: 950_000,
			Trials: 100_000, Passed: true, Measured: 1_770_000_000_000, How: "test jobs, in one process",
		}); c != want {
			t.Errorf("%+v", c)
		}
	})
	for name, change := range map[string]func(*undertonev1.RecordCanaryRequest){
		"a claim that is no number": func(r *undertonev1.RecordCanaryRequest) { r.ClaimedEpsilon = math.NaN() },
		"a negative bound":          func(r *undertonev1.RecordCanaryRequest) { r.LowerEpsilon = -1 },
		"a bound without bounds":    func(r *undertonev1.RecordCanaryRequest) { r.LowerEpsilon = math.Inf(1) },
		"bounds that are crossed":   func(r *undertonev1.RecordCanaryRequest) { r.UpperEpsilon = 7.87 },
		"no word on what it was of": func(r *undertonev1.RecordCanaryRequest) { r.How = "" },
		"a word in disguise":        func(r *undertonev1.RecordCanaryRequest) { r.How = "\u202egnitset" },
		"no delta":                  func(r *undertonev1.RecordCanaryRequest) { r.Delta = 0 },
		"certainty":                 func(r *undertonev1.RecordCanaryRequest) { r.Confidence = 1 },
		"no trials":                 func(r *undertonev1.RecordCanaryRequest) { r.Trials = 0 },
		"trials that JSON cannot":   func(r *undertonev1.RecordCanaryRequest) { r.Trials = 1 << 60 },
		"no date":                   func(r *undertonev1.RecordCanaryRequest) { r.MeasuredMs = 0 },
		"a date in the future":      func(r *undertonev1.RecordCanaryRequest) { r.MeasuredMs = time.Now().Add(2 * time.Minute).UnixMilli() },
		"another delta":             func(r *undertonev1.RecordCanaryRequest) { r.Delta = 1e-5 },
		"a smaller claim":           func(r *undertonev1.RecordCanaryRequest) { r.ClaimedEpsilon = 7.9 },
		"a larger claim":            func(r *undertonev1.RecordCanaryRequest) { r.ClaimedEpsilon = 8.1 },
	} {
		req := good()
		change(req)
		if _, err := auditor.RecordCanary(t.Context(), req); reasonOf(err) != undertonev1.Reason_REASON_MALFORMED {
			t.Errorf("%s: %v", name, err)
		}
	}
	// It may find more than is claimed, and say so.
	req := good()
	req.LowerEpsilon, req.UpperEpsilon = 9.5, 0
	_, err = auditor.RecordCanary(t.Context(), req)
	must(t, err)
	req = good()
	req.Job = "nope"
	_, err = auditor.RecordCanary(t.Context(), req)
	f.expect(err, codes.NotFound, undertonev1.Reason_REASON_UNKNOWN_JOB)
}

// A node without pages says so.
func TestNoPages(t *testing.T) {
	f := newFixture(t, nil)
	_, err := f.books(identity.Auditor).CreateLink(t.Context(), new(undertonev1.CreateLinkRequest))
	f.expect(err, codes.FailedPrecondition, undertonev1.Reason_REASON_NO_PAGES)
}

// Rounds up to one that is named can be asked for again, and a job that is closed stays so.
func TestUntilAndClose(t *testing.T) {
	f := newFixture(t, nil)
	operator := rpc.NewOperatorServiceClient(f.dial(identity.Operator, "ada"))
	for _, c := range []struct{ until, want uint32 }{{2, 2}, {2, 2}, {uint32(len(f.spec.Releases)), 0}, {math.MaxUint32, 0}} {
		r, err := operator.OpenJob(t.Context(), &undertonev1.OpenJobRequest{Job: f.spec.Job, Until: c.until})
		must(t, err)
		if r.Job.Until != c.want || r.Job.State != undertonev1.JobState_JOB_STATE_RUNNING {
			t.Errorf("until %d: %d, %v", c.until, r.Job.Until, r.Job.State)
		}
	}
	for range 2 {
		r, err := operator.CloseJob(t.Context(), &undertonev1.CloseJobRequest{Job: f.spec.Job})
		must(t, err)
		if r.Job.State != undertonev1.JobState_JOB_STATE_CLOSED || r.Job.Attempts[0].Phase != undertonev1.Phase_PHASE_FAILED {
			t.Errorf("closed: %v", r.Job)
		}
	}
	_, err := operator.OpenJob(t.Context(), &undertonev1.OpenJobRequest{Job: f.spec.Job})
	f.expect(err, codes.FailedPrecondition, undertonev1.Reason_REASON_NOT_RUNNING)
	_, err = operator.CloseJob(t.Context(), &undertonev1.CloseJobRequest{Job: "nope"})
	f.expect(err, codes.NotFound, undertonev1.Reason_REASON_UNKNOWN_JOB)
}
