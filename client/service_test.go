package client_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server/authority"
)

// service is the participants' half of a server over real connections, which
// holds devices to what package client promises: it is stricter than a server,
// which cannot remember every byte that it was sent.
type service struct {
	undertonev1grpc.UnimplementedParticipantServiceServer
	t         *testing.T
	authority *authority.Authority
	addresses []string

	mu    sync.Mutex
	index uint64
	jobs  map[string]*job
	// arrived has the payload of every contribution that arrived in full, by
	// client, job, round and attempt.
	arrived map[string][]byte
	copies  int // of contributions, counting every retry

	// interrupt, if set, may fail a call: before it is looked at, or after it was
	// done and before it is answered.
	interrupt func(call, when string) error
}

// job is a job as the service keeps it.
type job struct {
	raw     []byte
	spec    *rounds.Spec
	states  [][]byte
	attempt int
	open    bool
	members map[string]bool
	sum     []int64
}

// newService serves on so many addresses until the test ends.
func newService(t *testing.T, nodes int) *service {
	t.Helper()
	a, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	s := &service{t: t, authority: a, index: 1, jobs: map[string]*job{}, arrived: map[string][]byte{}}
	for i := range nodes {
		s.listen(a, fmt.Sprintf("node-%d", i+1))
	}
	return s
}

func (s *service) listen(a *authority.Authority, name string) (address string) {
	s.t.Helper()
	bearer, err := a.Bearer(identity.Node, name, "127.0.0.1")
	if err != nil {
		s.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(grpctls.Server(bearer, identity.Client)))
	undertonev1grpc.RegisterParticipantServiceServer(server, s)
	go server.Serve(listener)
	s.t.Cleanup(server.Stop)
	s.addresses = append(s.addresses, listener.Addr().String())
	return listener.Addr().String()
}

// terms of the tests' jobs: one device is a round.
func terms(name string) jobs.Terms {
	return jobs.Terms{
		Job: name, Epsilon: 4, Delta: 1e-6, Adjacency: dp.ZeroOut, Trust: rounds.TrustDistributed,
		NMin: 1, RoundSize: 100, Deadline: time.Hour, Spare: 2,
	}
}

func parameters() jobs.Parameters {
	return jobs.Parameters{
		Config:   lowrank.Config{Dim: 6, Rank: 2, Features: lowrank.Standard, Update: lowrank.Gradient, Rounds: 2},
		Sparsity: 1,
	}
}

// create makes a job.
func (s *service) create(p jobs.Parameters, t jobs.Terms) *job {
	s.t.Helper()
	spec, err := jobs.New(p, t)
	if err != nil {
		s.t.Fatal(err)
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		s.t.Fatal(err)
	}
	state, err := jobs.Start(spec)
	if err != nil {
		s.t.Fatal(err)
	}
	j := &job{raw: raw, spec: spec, states: [][]byte{state}}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index++
	s.jobs[t.Job] = j
	return j
}

// begin opens the next attempt.
func (s *service) begin(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[name]
	j.attempt++
	j.open, j.members, j.sum = true, map[string]bool{}, make([]int64, j.spec.Releases[len(j.states)-1].Length)
	s.index++
}

// fail ends the attempt without a release.
func (s *service) fail(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs[name].open = false
	s.index++
}

// release ends the attempt and advances the model.
func (s *service) release(name string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[name]
	round := len(j.states)
	next, err := jobs.Advance(j.spec, round, j.states[round-1], j.sum, len(j.members))
	if err != nil {
		s.t.Fatal(err)
	}
	j.states = append(j.states, next)
	j.open, j.attempt = false, 0
	s.index++
}

func (s *service) members(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.jobs[name].members)
}

// between calls the test's interruption. A service that is locked could not be
// inspected from there.
func (s *service) between(call, when string) error {
	s.mu.Lock()
	f := s.interrupt
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(call, when)
}

func (s *service) interruptWith(f func(call, when string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interrupt = f
}

// refuse is a status with its reason.
func refuse(code codes.Code, r *undertonev1.Refusal) error {
	st, err := status.New(code, r.GetDetail()).WithDetails(r)
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func (s *service) behind(min uint64) error {
	if min > s.index {
		return refuse(codes.Unavailable, &undertonev1.Refusal{Reason: undertonev1.Reason_REASON_BEHIND})
	}
	return nil
}

func (s *service) Poll(ctx context.Context, r *undertonev1.PollRequest) (*undertonev1.PollResponse, error) {
	if err := s.between("poll", "before"); err != nil {
		return nil, err
	}
	who, err := grpctls.Peer(ctx)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(time.Duration(r.GetWaitMs()) * time.Millisecond)
	for {
		out, fresh, err := s.work(who.Name, r)
		if err != nil || fresh || time.Now().After(deadline) || ctx.Err() != nil {
			return out, err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (s *service) work(who string, r *undertonev1.PollRequest) (out *undertonev1.PollResponse, fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.behind(r.GetMinIndex()); err != nil {
		return nil, false, err
	}
	out = &undertonev1.PollResponse{Index: s.index}
	for name, j := range s.jobs {
		if !j.open {
			continue
		}
		spec, state := sha256.Sum256(j.raw), j.states[len(j.states)-1]
		digest := sha256.Sum256(state)
		out.Work = append(out.Work, &undertonev1.Work{
			Job: name, Round: uint32(len(j.states)), Attempt: uint32(j.attempt),
			SpecDigest: spec[:], StateDigest: digest[:], StateSize: uint64(len(state)),
			RemainingMs: 3_600_000, Counted: j.members[who],
		})
		fresh = fresh || !slices.ContainsFunc(r.GetKnown(), func(p *undertonev1.Participation) bool {
			return p.GetJob() == name && int(p.GetRound()) == len(j.states) && int(p.GetAttempt()) == j.attempt
		})
	}
	return out, fresh, nil
}

func (s *service) GetSpec(_ context.Context, r *undertonev1.GetSpecRequest) (*undertonev1.GetSpecResponse, error) {
	if err := s.between("spec", "before"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.jobs[r.GetJob()]
	if j == nil {
		return nil, refuse(codes.NotFound, &undertonev1.Refusal{Reason: undertonev1.Reason_REASON_UNKNOWN_JOB, Detail: r.GetJob()})
	}
	return &undertonev1.GetSpecResponse{Spec: j.raw}, nil
}

func (s *service) FetchState(r *undertonev1.FetchStateRequest, stream grpc.ServerStreamingServer[undertonev1.FetchStateResponse]) error {
	if err := s.between("state", "before"); err != nil {
		return err
	}
	s.mu.Lock()
	j := s.jobs[r.GetJob()]
	if j == nil {
		s.mu.Unlock()
		return refuse(codes.NotFound, &undertonev1.Refusal{Reason: undertonev1.Reason_REASON_UNKNOWN_JOB, Detail: r.GetJob()})
	}
	version := len(j.states) - 1
	state, index := j.states[version], s.index
	s.mu.Unlock()
	if !r.GetLatest() && int(r.GetVersion()) != version {
		return refuse(codes.FailedPrecondition, &undertonev1.Refusal{Reason: undertonev1.Reason_REASON_SUPERSEDED})
	}
	digest := sha256.Sum256(state)
	for at, first := int(r.GetOffset()), true; at < len(state) || first; first = false {
		end := min(at+1000, len(state))
		part := &undertonev1.FetchStateResponse{Chunk: state[at:end]}
		if first {
			part.Version, part.Digest, part.Size, part.Index = uint32(version), digest[:], uint64(len(state)), index
		}
		if err := stream.Send(part); err != nil {
			return err
		}
		if err := s.between("state", "after"); err != nil {
			return err
		}
		at = end
	}
	return nil
}

func (s *service) Submit(ctx context.Context, r *undertonev1.SubmitRequest) (*undertonev1.SubmitResponse, error) {
	if len(r.GetPayload()) > 256<<10 {
		s.t.Errorf("a payload of %d bytes in one message", len(r.GetPayload()))
	}
	index, duplicate, err := s.take(ctx, r.GetHeader(), r.GetPayload())
	if err != nil {
		return nil, err
	}
	return &undertonev1.SubmitResponse{Index: index, Duplicate: duplicate}, nil
}

func (s *service) SubmitLarge(stream grpc.ClientStreamingServer[undertonev1.SubmitLargeRequest, undertonev1.SubmitLargeResponse]) error {
	var header *undertonev1.SubmitHeader
	var payload []byte
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if h := m.GetHeader(); h != nil {
			if header != nil || payload != nil {
				s.t.Error("a header that is not the first part")
			}
			header = h
		}
		if len(m.GetPiece()) > 256<<10 {
			s.t.Errorf("a piece of %d bytes", len(m.GetPiece()))
		}
		payload = append(payload, m.GetPiece()...)
	}
	index, duplicate, err := s.take(stream.Context(), header, payload)
	if err != nil {
		return err
	}
	return stream.SendAndClose(&undertonev1.SubmitLargeResponse{Index: index, Duplicate: duplicate})
}

// take counts a contribution, after it held it against everything that this
// client sent before.
func (s *service) take(ctx context.Context, h *undertonev1.SubmitHeader, payload []byte) (uint64, bool, error) {
	who, err := grpctls.Peer(ctx)
	if err != nil {
		return 0, false, err
	}
	s.mu.Lock()
	s.copies++
	key := fmt.Sprintf("%s %s %d %d", who.Name, h.GetJob(), h.GetRound(), h.GetAttempt())
	if before, again := s.arrived[key]; again && !bytes.Equal(before, payload) {
		s.t.Errorf("%s: two different contributions were sent", key)
	}
	s.arrived[key] = bytes.Clone(payload)
	s.mu.Unlock()
	if err := s.between("submit", "before"); err != nil {
		return 0, false, err
	}
	index, duplicate, err := s.count(who.Name, key, h, payload)
	if err == nil {
		err = s.between("submit", "after")
	}
	return index, duplicate, err
}

func (s *service) count(who, key string, h *undertonev1.SubmitHeader, payload []byte) (uint64, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.behind(h.GetMinIndex()); err != nil {
		return 0, false, err
	}
	j := s.jobs[h.GetJob()]
	if j == nil || !j.open || int(h.GetRound()) != len(j.states) || int(h.GetAttempt()) != j.attempt {
		return 0, false, refuse(codes.FailedPrecondition, &undertonev1.Refusal{Reason: undertonev1.Reason_REASON_NOT_OPEN, Detail: key})
	}
	if j.members[who] {
		return s.index, true, nil
	}
	if digest := sha256.Sum256(j.states[len(j.states)-1]); !bytes.Equal(digest[:], h.GetStateDigest()) {
		s.t.Errorf("%s: of another state", key)
	}
	if crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)) != h.GetChecksum() {
		s.t.Errorf("%s: damaged on the way", key)
	}
	x := make([]int64, len(j.sum))
	if err := aggregation.Unpack(x, payload, int(j.spec.Lattice.ModulusBits/8)); err != nil {
		s.t.Errorf("%s: %v", key, err)
		return 0, false, refuse(codes.InvalidArgument, &undertonev1.Refusal{Reason: undertonev1.Reason_REASON_MALFORMED, Detail: err.Error()})
	}
	largest := int64(j.spec.Releases[len(j.states)-1].Largest)
	zeros := true
	for i, v := range x {
		if v > largest || v < -largest {
			s.t.Errorf("%s: coordinate %d is %d, of at most %d", key, i, v, largest)
		}
		zeros = zeros && v == 0
		j.sum[i] += v
	}
	if zeros && j.spec.Trust != rounds.TrustCentral {
		s.t.Errorf("%s: it has no noise", key)
	}
	j.members[who] = true
	s.index++
	return s.index, false, nil
}
