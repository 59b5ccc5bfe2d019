// Package contract holds devices to what package client promises: a small service
// for the tests of the client and of the agent, over real connections, that is
// stricter than a server, which cannot remember every byte that it was sent.
package contract

import (
	"bytes"
	"cmp"
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
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
)

// Service is the participants' half of a server. Mu guards its fields.
type Service struct {
	undertonev1grpc.UnimplementedParticipantServiceServer
	t         testing.TB
	Addresses []string

	Mu    sync.Mutex
	Index uint64
	Jobs  map[string]*Job
	// Arrived has the payload of every contribution that arrived in full, by
	// client, job, round and attempt.
	Arrived map[string][]byte
	Copies  int // of contributions, counting every retry
	// What the last poll said: how many attempts it listed, and of how many records of
	// the ledger its client had a checkpoint.
	Known int
	Seen  uint64

	// Ledger is what is shown, nil: none; Shown what some clients are shown instead.
	Ledger *Ledger
	Shown  map[string]*Ledger
	// Reserve may change what is recorded of an attempt, and Answer what a client is
	// told.
	Reserve func(*ledger.AttemptCharged)
	Answer  func(who string, out *undertonev1.PollResponse)

	interrupt func(call, when string) error
}

// Job is a job as the service keeps it.
type Job struct {
	Raw     []byte // the specification
	Spec    *rounds.Spec
	States  [][]byte // released
	Size    uint64   // of the last of them, as Poll claims it; 0: what it is
	Attempt int
	Spent   accounting.NanoRho

	open     bool
	reserved int64 // the record of the attempt
	members  map[string]bool
	sum      []int64
}

// New serves until the test ends, a node of each bearer on a port of 127.0.0.1.
func New(t testing.TB, nodes ...*identity.Bearer) *Service {
	t.Helper()
	s := &Service{t: t, Index: 1, Jobs: map[string]*Job{}, Arrived: map[string][]byte{}, Shown: map[string]*Ledger{}}
	var err error
	if s.Ledger, err = NewLedger(); err != nil {
		t.Fatal(err)
	}
	for _, bearer := range nodes {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer(grpc.Creds(grpctls.Server(bearer, identity.Client)))
		undertonev1grpc.RegisterParticipantServiceServer(server, s)
		go server.Serve(listener)
		t.Cleanup(server.Stop)
		s.Addresses = append(s.Addresses, listener.Addr().String())
	}
	return s
}

// Create makes a job.
func (s *Service) Create(p jobs.Parameters, t jobs.Terms) *Job {
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
	j := &Job{Raw: raw, Spec: spec, States: [][]byte{state}}
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.Index++
	s.Jobs[t.Job] = j
	s.record(&ledger.JobCreated{Job: t.Job, Specification: sha256.Sum256(raw), State: sha256.Sum256(state), Budget: spec.Budget})
	return j
}

// Begin opens the next attempt.
func (s *Service) Begin(name string) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	j := s.Jobs[name]
	j.Attempt++
	round := len(j.States)
	release := j.Spec.Releases[round-1]
	j.open, j.members, j.sum = true, map[string]bool{}, make([]int64, release.Length)
	j.Spent += release.Charge
	charged := &ledger.AttemptCharged{
		Job: name, Round: round, Attempt: j.Attempt,
		Specification: sha256.Sum256(j.Raw), State: sha256.Sum256(j.States[round-1]),
		Charge: release.Charge, Spent: j.Spent,
	}
	if s.Reserve != nil {
		s.Reserve(charged)
	}
	j.reserved = s.record(charged)
	s.Index++
}

// Count has a client in the open attempt's sum that sent nothing.
func (s *Service) Count(name, client string) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.Jobs[name].members[client] = true
}

// Fail ends the attempt without a release.
func (s *Service) Fail(name string) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	j := s.Jobs[name]
	j.open = false
	s.record(&ledger.Failed{Job: name, Round: len(j.States), Attempt: j.Attempt, Members: len(j.members), Why: "the test's"})
	s.Index++
}

// Release ends the attempt and advances the model.
func (s *Service) Release(name string) {
	s.t.Helper()
	s.Mu.Lock()
	defer s.Mu.Unlock()
	j := s.Jobs[name]
	round := len(j.States)
	next, err := jobs.Advance(j.Spec, round, j.States[round-1], j.sum, len(j.members))
	if err != nil {
		s.t.Fatal(err)
	}
	s.record(&ledger.Released{
		Job: name, Round: round, Attempt: j.Attempt, Members: len(j.members), State: sha256.Sum256(next), Charge: j.Spec.Releases[round-1].Charge,
	})
	j.States = append(j.States, next)
	j.open, j.Attempt = false, 0
	s.Index++
}

// Left is the number of rounds that a job has not released.
func (s *Service) Left(name string) int {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	j := s.Jobs[name]
	return len(j.Spec.Releases) + 1 - len(j.States)
}

// Members is the number of devices in the open attempt's sum.
func (s *Service) Members(name string) int {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	return len(s.Jobs[name].members)
}

// between calls the test's interruption. A service that is locked could not be
// inspected from there.
func (s *Service) between(call, when string) error {
	s.Mu.Lock()
	f := s.interrupt
	s.Mu.Unlock()
	if f == nil {
		return nil
	}
	return f(call, when)
}

// InterruptWith has f fail calls, or do worse: f is told which (poll, spec, state,
// submit), and whether before it is looked at or after it was done and before it is
// answered. nil: no more.
func (s *Service) InterruptWith(f func(call, when string) error) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.interrupt = f
}

// Refuse is a status with its reason.
func Refuse(code codes.Code, r *undertonev1.Refusal) error {
	st, err := status.New(code, r.GetDetail()).WithDetails(r)
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func (s *Service) behind(min uint64) error {
	if min > s.Index {
		return Refuse(codes.Unavailable, &undertonev1.Refusal{Reason: undertonev1.Reason_REASON_BEHIND})
	}
	return nil
}

func (s *Service) Poll(ctx context.Context, r *undertonev1.PollRequest) (*undertonev1.PollResponse, error) {
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

func (s *Service) work(who string, r *undertonev1.PollRequest) (out *undertonev1.PollResponse, fresh bool, err error) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.Known, s.Seen = len(r.GetKnown()), r.GetLedgerSize()
	if err := s.behind(r.GetMinIndex()); err != nil {
		return nil, false, err
	}
	out = &undertonev1.PollResponse{Index: s.Index}
	for name, j := range s.Jobs {
		if !j.open {
			continue
		}
		spec, state := sha256.Sum256(j.Raw), j.States[len(j.States)-1]
		digest := sha256.Sum256(state)
		out.Work = append(out.Work, &undertonev1.Work{
			Job: name, Round: uint32(len(j.States)), Attempt: uint32(j.Attempt),
			SpecDigest: spec[:], StateDigest: digest[:], StateSize: cmp.Or(j.Size, uint64(len(state))),
			RemainingMs: 3_600_000, Counted: j.members[who],
		})
		fresh = fresh || !slices.ContainsFunc(r.GetKnown(), func(p *undertonev1.Participation) bool {
			return p.GetJob() == name && int(p.GetRound()) == len(j.States) && int(p.GetAttempt()) == j.Attempt
		})
	}
	if err := s.show(who, r.GetLedgerSize(), out); err != nil {
		return nil, false, err
	}
	if s.Answer != nil {
		s.Answer(who, out)
	}
	return out, fresh, nil
}

func (s *Service) GetSpec(_ context.Context, r *undertonev1.GetSpecRequest) (*undertonev1.GetSpecResponse, error) {
	if err := s.between("spec", "before"); err != nil {
		return nil, err
	}
	s.Mu.Lock()
	defer s.Mu.Unlock()
	j := s.Jobs[r.GetJob()]
	if j == nil {
		return nil, Refuse(codes.NotFound, &undertonev1.Refusal{Reason: undertonev1.Reason_REASON_UNKNOWN_JOB, Detail: r.GetJob()})
	}
	return &undertonev1.GetSpecResponse{Spec: j.Raw}, nil
}

func (s *Service) FetchState(r *undertonev1.FetchStateRequest, stream grpc.ServerStreamingServer[undertonev1.FetchStateResponse]) error {
	if err := s.between("state", "before"); err != nil {
		return err
	}
	s.Mu.Lock()
	j := s.Jobs[r.GetJob()]
	if j == nil {
		s.Mu.Unlock()
		return Refuse(codes.NotFound, &undertonev1.Refusal{Reason: undertonev1.Reason_REASON_UNKNOWN_JOB, Detail: r.GetJob()})
	}
	version := len(j.States) - 1
	state, index := j.States[version], s.Index
	s.Mu.Unlock()
	if !r.GetLatest() && int(r.GetVersion()) != version {
		return Refuse(codes.FailedPrecondition, &undertonev1.Refusal{Reason: undertonev1.Reason_REASON_SUPERSEDED})
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

func (s *Service) Submit(ctx context.Context, r *undertonev1.SubmitRequest) (*undertonev1.SubmitResponse, error) {
	if len(r.GetPayload()) > 256<<10 {
		s.t.Errorf("a payload of %d bytes in one message", len(r.GetPayload()))
	}
	index, duplicate, err := s.take(ctx, r.GetHeader(), r.GetPayload())
	if err != nil {
		return nil, err
	}
	return &undertonev1.SubmitResponse{Index: index, Duplicate: duplicate}, nil
}

func (s *Service) SubmitLarge(stream grpc.ClientStreamingServer[undertonev1.SubmitLargeRequest, undertonev1.SubmitLargeResponse]) error {
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
func (s *Service) take(ctx context.Context, h *undertonev1.SubmitHeader, payload []byte) (uint64, bool, error) {
	who, err := grpctls.Peer(ctx)
	if err != nil {
		return 0, false, err
	}
	s.Mu.Lock()
	s.Copies++
	key := fmt.Sprintf("%s %s %d %d", who.Name, h.GetJob(), h.GetRound(), h.GetAttempt())
	if before, again := s.Arrived[key]; again && !bytes.Equal(before, payload) {
		s.t.Errorf("%s: two different contributions were sent", key)
	}
	s.Arrived[key] = bytes.Clone(payload)
	s.Mu.Unlock()
	if err := s.between("submit", "before"); err != nil {
		return 0, false, err
	}
	index, duplicate, err := s.count(who.Name, key, h, payload)
	if err == nil {
		err = s.between("submit", "after")
	}
	return index, duplicate, err
}

func (s *Service) count(who, key string, h *undertonev1.SubmitHeader, payload []byte) (uint64, bool, error) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	if err := s.behind(h.GetMinIndex()); err != nil {
		return 0, false, err
	}
	j := s.Jobs[h.GetJob()]
	if j == nil || !j.open || int(h.GetRound()) != len(j.States) || int(h.GetAttempt()) != j.Attempt {
		return 0, false, Refuse(codes.FailedPrecondition, &undertonev1.Refusal{Reason: undertonev1.Reason_REASON_NOT_OPEN, Detail: key})
	}
	if j.members[who] {
		return s.Index, true, nil
	}
	if digest := sha256.Sum256(j.States[len(j.States)-1]); !bytes.Equal(digest[:], h.GetStateDigest()) {
		s.t.Errorf("%s: of another state", key)
	}
	if crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)) != h.GetChecksum() {
		s.t.Errorf("%s: damaged on the way", key)
	}
	x := make([]int64, len(j.sum))
	if err := aggregation.Unpack(x, payload, int(j.Spec.Lattice.ModulusBits/8)); err != nil {
		s.t.Errorf("%s: %v", key, err)
		return 0, false, Refuse(codes.InvalidArgument, &undertonev1.Refusal{Reason: undertonev1.Reason_REASON_MALFORMED, Detail: err.Error()})
	}
	largest := int64(j.Spec.Releases[len(j.States)-1].Largest)
	zeros := true
	for i, v := range x {
		if v > largest || v < -largest {
			s.t.Errorf("%s: coordinate %d is %d, of at most %d", key, i, v, largest)
		}
		zeros = zeros && v == 0
		j.sum[i] += v
	}
	if zeros && j.Spec.Trust != rounds.TrustCentral {
		s.t.Errorf("%s: it has no noise", key)
	}
	j.members[who] = true
	s.Index++
	return s.Index, false, nil
}
