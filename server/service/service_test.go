package service_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	rpc "github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server/authority"
	"github.com/undertone-fl/undertone/server/board"
	"github.com/undertone-fl/undertone/server/ingest"
	"github.com/undertone-fl/undertone/server/internal/solo"
	"github.com/undertone-fl/undertone/server/metrics"
	"github.com/undertone-fl/undertone/server/notary"
	"github.com/undertone-fl/undertone/server/replication"
	"github.com/undertone-fl/undertone/server/service"
)

// fixture is a service on a loopback port.
type fixture struct {
	t         *testing.T
	node      *node
	spec      *rounds.Spec
	address   string
	authority *authority.Authority
	metrics   *metrics.Metrics
	keys      string // the file
}

// node is solo's, with a method that panics.
type node struct{ *solo.Node }

func (node) Backup(context.Context, io.Writer) error { panic("out of tape") }

// newFixture serves one job with a round that collects.
func newFixture(t *testing.T, change func(*service.Config)) *fixture {
	t.Helper()
	ca, err := authority.New()
	must(t, err)
	n := &node{solo.New()}
	n.BeginLedger(t)
	spec := n.Create(t, solo.Parameters(), solo.Terms("movies"))
	n.Do(t, rounds.OpenRound{Job: spec.Job, Round: 1, Attempt: 1})
	f := newFixtureOf(t, n, ca, solo.KeyFile(t), change)
	f.spec = spec
	return f
}

// newFixtureOf serves what a node has.
func newFixtureOf(t *testing.T, n *node, ca *authority.Authority, keys string, change func(*service.Config)) *fixture {
	t.Helper()
	bearer, err := ca.Bearer(identity.Node, "node-0", "127.0.0.1")
	must(t, err)
	f := &fixture{t: t, node: n, authority: ca, metrics: metrics.New(), keys: keys}
	log := slog.New(slog.DiscardHandler)
	b := board.New(f.node)
	in := ingest.New(f.node, ingest.Config{Limit: 1 << 20, Logger: log, Metrics: f.metrics, Tracer: noop.NewTracerProvider().Tracer("")})
	config := service.Config{
		Name: "node-0", Credentials: grpctls.Server(bearer, identity.Client, identity.Operator, identity.Auditor),
		ClientRate: 1000, ClientBurst: 1000, Logger: log, Metrics: f.metrics,
	}
	if change != nil {
		change(&config)
	}
	ledger, err := notary.Open(f.node, []string{f.keys})
	must(t, err)
	s := service.New(f.node, b, in, ledger, config)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	f.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { b.Run(ctx); done <- nil }()
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		stopping, stop := context.WithTimeout(context.Background(), 10*time.Second)
		defer stop()
		s.Stop(stopping)
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	return f
}

func (f *fixture) dial(role identity.Role, name string, options ...grpc.DialOption) *grpc.ClientConn {
	f.t.Helper()
	bearer, err := f.authority.Bearer(role, name)
	must(f.t, err)
	conn, err := grpc.NewClient(f.address, append(options, grpc.WithTransportCredentials(grpctls.Client(bearer)))...)
	must(f.t, err)
	f.t.Cleanup(func() { conn.Close() })
	return conn
}

func (f *fixture) client(name string) rpc.ParticipantServiceClient {
	return rpc.NewParticipantServiceClient(f.dial(identity.Client, name))
}

func (f *fixture) payload() []byte {
	return aggregation.Pack(nil, make([]int64, f.spec.Releases[0].Length), f.spec.Width())
}

func (f *fixture) header(payload []byte) *undertonev1.SubmitHeader {
	state := f.node.Latest(f.spec.Job)
	return &undertonev1.SubmitHeader{
		Job: f.spec.Job, Round: 1, Attempt: 1, StateDigest: state[:],
		Checksum: crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)),
	}
}

// refused is how often a reason was counted.
func (f *fixture) refused(reason string) float64 {
	return testutil.ToFloat64(f.metrics.Refused.WithLabelValues(reason))
}

// expect wants a refusal with a status code and a reason, and that it was
// counted.
func (f *fixture) expect(err error, code codes.Code, reason undertonev1.Reason) {
	f.t.Helper()
	if status.Code(err) != code || reasonOf(err) != reason {
		f.t.Errorf("%v, want %v, %v", err, code, reason)
	}
	if label := strings.ToLower(strings.TrimPrefix(reason.String(), "REASON_")); f.refused(label) < 1 {
		f.t.Errorf("%s is not counted", label)
	}
}

func reasonOf(err error) undertonev1.Reason {
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*undertonev1.Refusal); ok {
			return r.Reason
		}
	}
	return undertonev1.Reason_REASON_UNSPECIFIED
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Every method is for the roles that it is for.
func TestRoles(t *testing.T) {
	f := newFixture(t, nil)
	may := map[identity.Role][]string{
		identity.Client:  {"Poll", "GetSpec", "FetchState", "Submit", "SubmitLarge", "GetCheckpoint"},
		identity.Auditor: {"GetSpec", "FetchState", "GetJob", "ListJobs", "GetCluster", "GetCheckpoint", "DownloadLedger", "RecordCanary", "CreateLink"},
		identity.Operator: {"GetSpec", "FetchState", "CreateJob", "OpenJob", "PauseJob", "OpenRound", "CloseRound", "GetJob", "ListJobs", "GetCluster", "RemoveNode", "PromoteNode", "TransferLeadership", "Backup",
			"CloseJob", "GetCheckpoint", "DownloadLedger", "RotateKey", "RecordCanary", "CreateLink"},
	}
	for _, desc := range []grpc.ServiceDesc{rpc.ParticipantService_ServiceDesc, rpc.OperatorService_ServiceDesc, rpc.LedgerService_ServiceDesc} {
		var methods []string
		for _, m := range desc.Methods {
			methods = append(methods, m.MethodName)
		}
		for _, m := range desc.Streams {
			methods = append(methods, m.StreamName)
		}
		for role, allowed := range may {
			conn := f.dial(role, "somebody")
			for _, method := range methods {
				stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/"+desc.ServiceName+"/"+method)
				must(t, err)
				_ = stream.SendMsg(new(emptypb.Empty)) // the answer says why
				must(t, stream.CloseSend())
				err = stream.RecvMsg(new(emptypb.Empty))
				forbidden := reasonOf(err) == undertonev1.Reason_REASON_FORBIDDEN
				if ok := strings.Contains(" "+strings.Join(allowed, " ")+" ", " "+method+" "); ok == forbidden {
					t.Errorf("%s as %s: %v", method, role, err)
				}
			}
		}
	}
}

// A client is who its certificate says, and is counted once.
func TestSubmit(t *testing.T) {
	f := newFixture(t, nil)
	payload := f.payload()
	req := &undertonev1.SubmitRequest{Header: f.header(payload), Payload: payload}
	first, err := f.client("ann").Submit(t.Context(), req)
	must(t, err)
	again, err := f.client("ann").Submit(t.Context(), req)
	must(t, err)
	if first.Duplicate || !again.Duplicate || again.Index < first.Index {
		t.Errorf("%v, then %v", first, again)
	}
	f.node.View(func(m *rounds.Machine, _ uint64) {
		if in, _ := m.Member(f.spec.Job, 1, 1, rounds.ClientOf("ann")); !in || m.Clients() != 1 {
			t.Errorf("ann is counted: %v; %d clients", in, m.Clients())
		}
	})
	if a, d := testutil.ToFloat64(f.metrics.Accepted), testutil.ToFloat64(f.metrics.Duplicate); a != 1 || d != 1 {
		t.Errorf("%v accepted, %v duplicates", a, d)
	}
}

func TestSubmitRefusals(t *testing.T) {
	f := newFixture(t, nil)
	client := f.client("ann")
	good := f.payload()
	outside := aggregation.Pack(nil, append([]int64{int64(f.spec.Releases[0].Largest) + 1}, make([]int64, f.spec.Releases[0].Length-1)...), f.spec.Width())
	for _, c := range []struct {
		name    string
		payload []byte
		change  func(*undertonev1.SubmitRequest)
		code    codes.Code
		reason  undertonev1.Reason
	}{
		{"no header", good, func(r *undertonev1.SubmitRequest) { r.Header = nil }, codes.InvalidArgument, undertonev1.Reason_REASON_MALFORMED},
		{"half a digest", good, func(r *undertonev1.SubmitRequest) { r.Header.StateDigest = r.Header.StateDigest[:16] }, codes.InvalidArgument, undertonev1.Reason_REASON_MALFORMED},
		{"unknown job", good, func(r *undertonev1.SubmitRequest) { r.Header.Job = strings.Repeat("x", 1<<16) }, codes.NotFound, undertonev1.Reason_REASON_UNKNOWN_JOB},
		{"another round", good, func(r *undertonev1.SubmitRequest) { r.Header.Round = 1<<32 - 1 }, codes.FailedPrecondition, undertonev1.Reason_REASON_WRONG_ROUND},
		{"another state", good, func(r *undertonev1.SubmitRequest) { r.Header.StateDigest = make([]byte, 32) }, codes.FailedPrecondition, undertonev1.Reason_REASON_WRONG_DIGEST},
		{"corrupt", good, func(r *undertonev1.SubmitRequest) { r.Header.Checksum++ }, codes.InvalidArgument, undertonev1.Reason_REASON_CORRUPT},
		{"too long", append(good, 0), nil, codes.InvalidArgument, undertonev1.Reason_REASON_TOO_LARGE},
		{"out of range", outside, nil, codes.InvalidArgument, undertonev1.Reason_REASON_OUT_OF_RANGE},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.t = t
			req := &undertonev1.SubmitRequest{Header: f.header(c.payload), Payload: c.payload}
			if c.change != nil {
				c.change(req)
			}
			_, err := client.Submit(t.Context(), req)
			f.expect(err, c.code, c.reason)
		})
	}
	_, err := client.Submit(t.Context(), &undertonev1.SubmitRequest{Payload: make([]byte, 1<<20)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message of a megabyte: %v", err)
	}
	for start := time.Now(); f.refused("message_size") != 1; time.Sleep(time.Millisecond) { // counted after the answer
		if time.Since(start) > 10*time.Second {
			t.Fatal("the message's size is not counted")
		}
	}
}

// raw sends bytes as they are.
type raw struct{}

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (raw) Unmarshal(mem.BufferSlice, any) error { return nil }
func (raw) Name() string                         { return "proto" }

func TestGarbage(t *testing.T) {
	f := newFixture(t, nil)
	conn := f.dial(identity.Client, "mallory", grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{})))
	for _, method := range []string{rpc.ParticipantService_Submit_FullMethodName, rpc.ParticipantService_Poll_FullMethodName} {
		if err := conn.Invoke(t.Context(), method, []byte("\xff\xff\xffno message of ours"), nil); err == nil {
			t.Errorf("%s takes garbage", method)
		}
	}
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, rpc.ParticipantService_SubmitLarge_FullMethodName)
	must(t, err)
	_ = stream.SendMsg([]byte("\xff\xff"))
	if err := stream.RecvMsg(nil); err == nil {
		t.Error("an upload takes garbage")
	}
	if f.refused("garbage") != 3 {
		t.Errorf("%v counted", f.refused("garbage"))
	}
	_, err = f.client("ann").Poll(t.Context(), new(undertonev1.PollRequest))
	must(t, err)
}

// Who floods is refused, whatever connection it uses; others are not.
func TestFlood(t *testing.T) {
	f := newFixture(t, func(c *service.Config) { c.ClientRate, c.ClientBurst = 0.001, 20 })
	for k := range 30 {
		_, err := f.client("mallory").Poll(t.Context(), new(undertonev1.PollRequest))
		if k < 8 && err != nil {
			t.Fatalf("request %d: %v", k, err)
		}
		if k >= 8 && status.Code(err) != codes.Unavailable { // that many connections are open already
			t.Fatalf("connection %d: %v", k, err)
		}
	}
	if f.refused("connections") == 0 {
		t.Error("the connections are not counted")
	}
	client := f.client("eve")
	for k := range 21 {
		_, err := client.Poll(t.Context(), new(undertonev1.PollRequest))
		if k < 20 && err != nil {
			t.Fatalf("request %d: %v", k, err)
		}
		if k == 20 {
			f.expect(err, codes.ResourceExhausted, undertonev1.Reason_REASON_RATE_LIMITED)
		}
	}
	_, err := f.client("eve").Poll(t.Context(), new(undertonev1.PollRequest))
	f.expect(err, codes.ResourceExhausted, undertonev1.Reason_REASON_RATE_LIMITED)
	_, err = f.client("ann").Poll(t.Context(), new(undertonev1.PollRequest))
	must(t, err)
}

// An upload that does not go on is ended, and what it held is free again.
func TestSlowUpload(t *testing.T) {
	f := newFixture(t, func(c *service.Config) { c.UploadTime = 50 * time.Millisecond })
	payload := f.payload()
	header := &undertonev1.SubmitLargeRequest{Part: &undertonev1.SubmitLargeRequest_Header{Header: f.header(payload)}}
	piece := func(b []byte) *undertonev1.SubmitLargeRequest {
		return &undertonev1.SubmitLargeRequest{Part: &undertonev1.SubmitLargeRequest_Piece{Piece: b}}
	}
	for name, messages := range map[string][]*undertonev1.SubmitLargeRequest{
		"nothing": nil, "a header": {header}, "half": {header, piece(payload[:len(payload)/2])},
	} {
		stream, err := f.client("mallory").SubmitLarge(t.Context())
		must(t, err)
		for _, m := range messages {
			must(t, stream.Send(m))
		}
		if err := stream.RecvMsg(new(undertonev1.SubmitLargeResponse)); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("%s, and no more: %v", name, err)
		}
	}
	if v := testutil.ToFloat64(f.metrics.Inflight); v != 0 {
		t.Errorf("%v bytes are still accounted for", v)
	}
}

// An upload whose client goes away holds nothing any more.
func TestLostUpload(t *testing.T) {
	f := newFixture(t, func(c *service.Config) { c.UploadTime = time.Hour })
	payload := f.payload()
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := f.client("ann").SubmitLarge(ctx)
	must(t, err)
	must(t, stream.Send(&undertonev1.SubmitLargeRequest{Part: &undertonev1.SubmitLargeRequest_Header{Header: f.header(payload)}}))
	must(t, stream.Send(&undertonev1.SubmitLargeRequest{Part: &undertonev1.SubmitLargeRequest_Piece{Piece: payload[:8]}}))
	inflight := func(want bool) {
		t.Helper()
		for start := time.Now(); testutil.ToFloat64(f.metrics.Inflight) > 0 != want; time.Sleep(time.Millisecond) {
			if time.Since(start) > 30*time.Second {
				t.Fatalf("bytes in memory: still not %v", want)
			}
		}
	}
	inflight(true)
	cancel()
	inflight(false)
}

func TestSubmitLarge(t *testing.T) {
	f := newFixture(t, nil)
	payload := f.payload()
	send := func(name string, parts ...any) (*undertonev1.SubmitLargeResponse, error) {
		stream, err := f.client(name).SubmitLarge(t.Context())
		must(t, err)
		for _, p := range parts {
			m := new(undertonev1.SubmitLargeRequest)
			switch p := p.(type) {
			case *undertonev1.SubmitHeader:
				m.Part = &undertonev1.SubmitLargeRequest_Header{Header: p}
			case []byte:
				m.Part = &undertonev1.SubmitLargeRequest_Piece{Piece: p}
			}
			if stream.Send(m) != nil {
				break
			}
		}
		return stream.CloseAndRecv()
	}
	h := f.header(payload)
	for k, duplicate := range []bool{false, true} {
		resp, err := send("ann", h, payload[:7], payload[7:])
		must(t, err)
		if resp.Duplicate != duplicate {
			t.Errorf("upload %d: %v", k, resp)
		}
	}
	_, err := send("bob")
	f.expect(err, codes.InvalidArgument, undertonev1.Reason_REASON_MALFORMED)
	_, err = send("bob", payload)
	f.expect(err, codes.InvalidArgument, undertonev1.Reason_REASON_MALFORMED)
	_, err = send("bob", h, payload[:7], h)
	f.expect(err, codes.InvalidArgument, undertonev1.Reason_REASON_MALFORMED)
	_, err = send("bob", h, payload[:len(payload)-1])
	f.expect(err, codes.InvalidArgument, undertonev1.Reason_REASON_MALFORMED)
	_, err = send("bob", h, payload, payload)
	f.expect(err, codes.InvalidArgument, undertonev1.Reason_REASON_TOO_LARGE)
	_, err = send("bob", h, bytes.Repeat([]byte{1}, len(payload)))
	f.expect(err, codes.InvalidArgument, undertonev1.Reason_REASON_CORRUPT)
	if v := testutil.ToFloat64(f.metrics.Inflight); v != 0 {
		t.Errorf("%v bytes are still accounted for", v)
	}
}

// A panic ends a request, and not the server.
func TestPanic(t *testing.T) {
	f := newFixture(t, nil)
	operator := rpc.NewOperatorServiceClient(f.dial(identity.Operator, "ada"))
	stream, err := operator.Backup(t.Context(), new(undertonev1.BackupRequest))
	must(t, err)
	if _, err := stream.Recv(); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "tape") {
		t.Errorf("a panic: %v", err)
	}
	if v := testutil.ToFloat64(f.metrics.Panics); v != 1 {
		t.Errorf("%v panics counted", v)
	}
	_, err = operator.ListJobs(t.Context(), new(undertonev1.ListJobsRequest))
	must(t, err)
}

func TestPoll(t *testing.T) {
	f := newFixture(t, nil)
	client := f.client("ann")
	resp, err := client.Poll(t.Context(), new(undertonev1.PollRequest))
	must(t, err)
	state := f.node.Latest(f.spec.Job)
	if len(resp.Work) != 1 || resp.Work[0].Round != 1 || resp.Work[0].Counted || !bytes.Equal(resp.Work[0].StateDigest, state[:]) || resp.Work[0].RemainingMs == 0 {
		t.Fatalf("%v", resp)
	}
	known := []*undertonev1.Participation{{Job: f.spec.Job, Round: 1, Attempt: 1}}

	start := time.Now()
	_, err = client.Poll(t.Context(), &undertonev1.PollRequest{Known: known, WaitMs: 50})
	must(t, err)
	if waited := time.Since(start); waited < 50*time.Millisecond {
		t.Errorf("nothing is new, and the answer came after %v", waited)
	}

	// Many wait; contributions wake nobody, the next attempt wakes all.
	const waiters = 20
	woken := make(chan error, waiters)
	for k := range waiters {
		client := f.client(fmt.Sprint("waiter-", k))
		go func() {
			resp, err := client.Poll(t.Context(), &undertonev1.PollRequest{Known: known, WaitMs: 60_000})
			if err == nil && (len(resp.Work) != 1 || resp.Work[0].Attempt != 2) {
				err = fmt.Errorf("waiter %d: %v", k, resp)
			}
			woken <- err
		}()
	}
	payload := f.payload()
	_, err = client.Submit(t.Context(), &undertonev1.SubmitRequest{Header: f.header(payload), Payload: payload})
	must(t, err)
	resp, err = client.Poll(t.Context(), &undertonev1.PollRequest{MinIndex: resp.Index + 1})
	must(t, err)
	if !resp.Work[0].Counted {
		t.Error("the contribution is not shown as counted")
	}
	f.node.Do(t, rounds.CloseRound{Job: f.spec.Job, Round: 1, Attempt: 1}) // too few: it fails
	f.node.Do(t, rounds.OpenRound{Job: f.spec.Job, Round: 1, Attempt: 2})
	for range waiters {
		must(t, <-woken)
	}

	_, err = client.Poll(t.Context(), &undertonev1.PollRequest{MinIndex: 1 << 50})
	f.expect(err, codes.Unavailable, undertonev1.Reason_REASON_BEHIND)
	f.node.SetNotReady("no leader")
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		if _, err = client.Poll(t.Context(), new(undertonev1.PollRequest)); err != nil || time.Since(start) > 10*time.Second {
			break
		}
	}
	f.expect(err, codes.Unavailable, undertonev1.Reason_REASON_NO_LEADER)
}

func TestFetchState(t *testing.T) {
	f := newFixture(t, nil)
	client := f.client("ann")
	fetch := func(req *undertonev1.FetchStateRequest) (first *undertonev1.FetchStateResponse, state []byte, err error) {
		req.Job = f.spec.Job
		stream, err := client.FetchState(t.Context(), req)
		must(t, err)
		for {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return first, state, nil
			}
			if err != nil {
				return nil, nil, err
			}
			if first == nil {
				first = m
			}
			state = append(state, m.Chunk...)
		}
	}
	first, state, err := fetch(&undertonev1.FetchStateRequest{Latest: true})
	must(t, err)
	if digest := rounds.BlobOf(state).Digest; !bytes.Equal(first.Digest, digest[:]) || digest != f.node.Latest(f.spec.Job) || first.Version != 0 {
		t.Errorf("%v", first)
	}
	_, rest, err := fetch(&undertonev1.FetchStateRequest{Digest: first.Digest, Offset: 5})
	must(t, err)
	if !bytes.Equal(rest, state[5:]) {
		t.Error("the rest of the state is another")
	}
	_, _, err = fetch(&undertonev1.FetchStateRequest{Version: 1})
	f.expect(err, codes.Unavailable, undertonev1.Reason_REASON_BEHIND)
	_, _, err = fetch(&undertonev1.FetchStateRequest{Digest: make([]byte, 32)})
	f.expect(err, codes.FailedPrecondition, undertonev1.Reason_REASON_WRONG_DIGEST)
	_, _, err = fetch(&undertonev1.FetchStateRequest{Latest: true, Offset: 1 << 60})
	f.expect(err, codes.InvalidArgument, undertonev1.Reason_REASON_MALFORMED)

	for _, name := range []string{"ann", "bob"} {
		payload := f.payload()
		_, err := f.client(name).Submit(t.Context(), &undertonev1.SubmitRequest{Header: f.header(payload), Payload: payload})
		must(t, err)
	}
	f.node.Do(t, rounds.CloseRound{Job: f.spec.Job, Round: 1, Attempt: 1})
	f.node.Do(t, rounds.ReleaseRound{Job: f.spec.Job, Round: 1, Attempt: 1, State: rounds.BlobOf([]byte("next"))})
	_, _, err = fetch(&undertonev1.FetchStateRequest{})
	f.expect(err, codes.FailedPrecondition, undertonev1.Reason_REASON_SUPERSEDED)
	payload := f.payload()
	_, err = client.Submit(t.Context(), &undertonev1.SubmitRequest{Header: f.header(payload), Payload: payload})
	f.expect(err, codes.FailedPrecondition, undertonev1.Reason_REASON_ALREADY_RELEASED)
}

// What an operator does, and what it is told when it may not be done.
func TestOperator(t *testing.T) {
	f := newFixture(t, nil)
	operator := rpc.NewOperatorServiceClient(f.dial(identity.Operator, "ada"))
	ctx := t.Context()
	_, raw := solo.Spec(t, solo.Parameters(), solo.Terms("books"))
	made, err := operator.CreateJob(ctx, &undertonev1.CreateJobRequest{Spec: raw})
	must(t, err)
	if made.Job.State != undertonev1.JobState_JOB_STATE_PAUSED || !bytes.Equal(made.Job.Spec, raw) {
		t.Errorf("%v", made.Job)
	}
	_, err = operator.CreateJob(ctx, &undertonev1.CreateJobRequest{Spec: raw})
	must(t, err) // the same again

	cheaper := bytes.Replace(raw, []byte(`"charge_nano_rho":"`), []byte(`"charge_nano_rho":"1`), 1)
	_, err = operator.CreateJob(ctx, &undertonev1.CreateJobRequest{Spec: cheaper})
	f.expect(err, codes.InvalidArgument, undertonev1.Reason_REASON_MALFORMED)
	_, err = operator.CreateJob(ctx, &undertonev1.CreateJobRequest{Spec: []byte("{")})
	f.expect(err, codes.InvalidArgument, undertonev1.Reason_REASON_MALFORMED)

	paused, err := operator.PauseJob(ctx, &undertonev1.PauseJobRequest{Job: "books"})
	must(t, err)
	if paused.Job.State != undertonev1.JobState_JOB_STATE_PAUSED {
		t.Errorf("paused: %v", paused.Job)
	}
	_, err = operator.OpenRound(ctx, &undertonev1.OpenRoundRequest{Job: "books", Round: 1, Attempt: 1})
	f.expect(err, codes.FailedPrecondition, undertonev1.Reason_REASON_NOT_RUNNING)
	opened, err := operator.OpenJob(ctx, &undertonev1.OpenJobRequest{Job: "books", Rounds: 2})
	must(t, err)
	if opened.Job.State != undertonev1.JobState_JOB_STATE_RUNNING || opened.Job.Until != 2 {
		t.Errorf("%v", opened.Job)
	}
	round, err := operator.OpenRound(ctx, &undertonev1.OpenRoundRequest{Job: "books", Round: 1, Attempt: 1})
	must(t, err)
	if round.Job.SpentNanoRho == 0 || round.Job.RemainingMs == 0 || len(round.Job.Attempts) != 1 {
		t.Errorf("%v", round.Job)
	}
	_, err = operator.OpenRound(ctx, &undertonev1.OpenRoundRequest{Job: "books", Round: 1, Attempt: 1})
	f.expect(err, codes.AlreadyExists, undertonev1.Reason_REASON_ALREADY_OPEN)
	shut, err := operator.CloseRound(ctx, &undertonev1.CloseRoundRequest{Job: "books", Round: 1, Attempt: 1})
	must(t, err)
	if a := shut.Job.Attempts[0]; a.Phase != undertonev1.Phase_PHASE_FAILED || a.Why == "" || shut.Job.SpentNanoRho != a.ChargeNanoRho {
		t.Errorf("%v", shut.Job)
	}
	// The budget has room for one attempt at every round, and no more: sooner or
	// later another one does not fit.
	for attempt := uint32(2); err == nil; attempt++ {
		if _, err = operator.OpenRound(ctx, &undertonev1.OpenRoundRequest{Job: "books", Round: 1, Attempt: attempt}); err == nil {
			_, err = operator.CloseRound(ctx, &undertonev1.CloseRoundRequest{Job: "books", Round: 1, Attempt: attempt})
		}
	}
	f.expect(err, codes.FailedPrecondition, undertonev1.Reason_REASON_NO_BUDGET)

	_, err = operator.GetJob(ctx, &undertonev1.GetJobRequest{Job: "songs"})
	f.expect(err, codes.NotFound, undertonev1.Reason_REASON_UNKNOWN_JOB)
	list, err := operator.ListJobs(ctx, new(undertonev1.ListJobsRequest))
	must(t, err)
	if len(list.Jobs) != 2 || len(list.Jobs[0].Attempts) != 0 || list.Jobs[0].State != undertonev1.JobState_JOB_STATE_EXHAUSTED {
		t.Errorf("%v", list)
	}
	_, err = operator.RemoveNode(ctx, &undertonev1.RemoveNodeRequest{Node: "nobody"})
	f.expect(err, codes.NotFound, undertonev1.Reason_REASON_UNKNOWN_NODE)
	_, err = operator.TransferLeadership(ctx, new(undertonev1.TransferLeadershipRequest))
	f.expect(err, codes.Unavailable, undertonev1.Reason_REASON_NO_LEADER)
}

// A job of any method that the program knows can be created.
func TestCreateCanary(t *testing.T) {
	f := newFixture(t, nil)
	operator := rpc.NewOperatorServiceClient(f.dial(identity.Operator, "ada"))
	spec, err := jobs.NewCanary(jobs.Canary{Dim: 8, Norms: []float64{1, 1}}, solo.Terms("canary"))
	must(t, err)
	_, err = operator.CreateJob(t.Context(), &undertonev1.CreateJobRequest{Spec: jobs.Encode(spec)})
	must(t, err)
	spec.Method, spec.Job = "other", "other"
	_, err = operator.CreateJob(t.Context(), &undertonev1.CreateJobRequest{Spec: jobs.Encode(spec)})
	f.expect(err, codes.InvalidArgument, undertonev1.Reason_REASON_MALFORMED)
}

// A node that differs from the others serves nobody, and says so.
func TestDiverged(t *testing.T) {
	f := newFixture(t, nil)
	f.node.Around = func(rounds.Command, func() (uint64, error)) (uint64, error) { return 0, replication.ErrDiverged }
	payload := f.payload()
	_, err := f.client("ann").Submit(t.Context(), &undertonev1.SubmitRequest{Header: f.header(payload), Payload: payload})
	f.expect(err, codes.Unavailable, undertonev1.Reason_REASON_DIVERGED)
}

// TestIdleStrangers has strangers take every connection there may be, and say
// nothing: a client with a certificate is served all the same.
func TestIdleStrangers(t *testing.T) {
	f := newFixture(t, func(c *service.Config) { c.Connections = 8 })
	for range 16 {
		stranger, err := net.Dial("tcp", f.address)
		must(t, err)
		defer stranger.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second) // half a handshake's time
	defer cancel()
	_, err := f.client("alice").Poll(ctx, &undertonev1.PollRequest{})
	must(t, err)
}

// TestPollsOfOneClient bounds what one identity can keep waiting, and for what.
func TestPollsOfOneClient(t *testing.T) {
	f := newFixture(t, nil)
	client := f.client("mallory")
	_, err := client.Poll(t.Context(), &undertonev1.PollRequest{Known: []*undertonev1.Participation{{Job: strings.Repeat("m", 64)}}})
	f.expect(err, codes.InvalidArgument, undertonev1.Reason_REASON_MALFORMED)

	known := []*undertonev1.Participation{{Job: "elsewhere", Round: 1}, {Job: f.spec.Job, Round: 1, Attempt: 1}}
	const waiting, all = 8, 9
	ended := make(chan error, all)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range all {
		go func() {
			_, err := client.Poll(ctx, &undertonev1.PollRequest{Known: known, WaitMs: 60_000})
			ended <- err
		}()
	}
	f.expect(<-ended, codes.ResourceExhausted, undertonev1.Reason_REASON_RATE_LIMITED)
	_, err = f.client("ann").Poll(t.Context(), new(undertonev1.PollRequest))
	must(t, err)
	cancel()
	for range waiting {
		if err := <-ended; status.Code(err) != codes.Canceled {
			t.Errorf("a poll that was admitted: %v", err)
		}
	}
}
