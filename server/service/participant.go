package service

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/proto/identity"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	rpc "github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server/board"
	"github.com/undertone-fl/undertone/server/ingest"
	"github.com/undertone-fl/undertone/server/internal/quota"
	"github.com/undertone-fl/undertone/server/refusal"
	"github.com/undertone-fl/undertone/server/replication"
)

// participant is what clients use.
type participant struct {
	rpc.UnimplementedParticipantServiceServer
	*Service
	polls atATime
}

const (
	longestPoll = time.Minute
	// mostKnown bounds what a poll may list, longestName the job of each.
	mostKnown   = 4096
	longestName = 63
	// mostWaiting is how many polls of one identity may wait at a time: a client
	// needs one, and one that a broken connection left behind.
	mostWaiting = 8
)

// Poll implements ParticipantService. Those who wait share the board's edition,
// and wake when there is another one: not at every contribution.
func (p *participant) Poll(ctx context.Context, req *undertonev1.PollRequest) (*undertonev1.PollResponse, error) {
	who, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if len(req.Known) > mostKnown {
		return nil, refusal.New(undertonev1.Reason_REASON_MALFORMED, "known: more than %d entries", mostKnown)
	}
	for _, k := range req.Known {
		if len(k.Job) > longestName {
			return nil, refusal.New(undertonev1.Reason_REASON_MALFORMED, "known: a job's name of more than %d bytes", longestName)
		}
	}
	leave, err := p.polls.enter(who.Identity)
	if err != nil {
		return nil, err
	}
	defer leave()
	minIndex, ledgerSize, waiting := req.MinIndex, req.LedgerSize, req.WaitMs > 0
	if err := ingest.CatchUp(ctx, p.node, minIndex); err != nil {
		return nil, err
	}
	edition, _ := p.board.At(minIndex)
	known := knownOf(edition, req.Known)
	late := time.NewTimer(min(time.Duration(min(req.WaitMs, uint64(longestPoll.Milliseconds())))*time.Millisecond, longestPoll))
	defer late.Stop()
	proto.Reset(req) // what it says beside that is nothing to keep for a minute
	for {
		edition, index := p.board.At(minIndex)
		switch ready := len(edition.NotReady) == 0; {
		case ready && (!waiting || somethingNew(edition, known)):
			return p.work(edition, index, who.client, ledgerSize)
		case !waiting:
			return nil, notReady(edition.NotReady)
		}
		select {
		case <-edition.Next:
		case <-late.C:
			waiting = false
		case <-p.stopping:
			return nil, replication.ErrStopped
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// atATime is a quota whose refusal says what it is of.
type atATime struct {
	*quota.Quota
	what string // "polls waiting"
}

// enter admits a request until leave is called.
func (a atATime) enter(who identity.Identity) (leave func(), err error) {
	leave, ok := a.Enter(who)
	if !ok {
		e := refusal.New(undertonev1.Reason_REASON_RATE_LIMITED, "%v has %d %s already", who, a.Most(), a.what)
		e.RetryAfter = time.Second
		return nil, e
	}
	return leave, nil
}

// knownOf is what of a client's list is about a job on the board: the rest would
// wait with it for nothing.
func knownOf(e *board.Edition, list []*undertonev1.Participation) map[string]participation {
	last := make(map[string]participation, min(len(list), len(e.Jobs)))
	for _, k := range list {
		if now := (participation{k.Round, k.Attempt}); !now.before(last[k.Job]) {
			last[k.Job] = now
		}
	}
	known := make(map[string]participation)
	for i := range e.Jobs {
		if k, ok := last[e.Jobs[i].Name]; ok {
			known[e.Jobs[i].Name] = k
		}
	}
	return known
}

// participation is in an attempt of a job.
type participation struct{ round, attempt uint32 }

func (p participation) before(q participation) bool {
	return p.round < q.round || p.round == q.round && p.attempt < q.attempt
}

// somethingNew reports whether a round is open that the client does not know.
// Rounds go on in order, so what comes after the latest that it knows is new.
func somethingNew(e *board.Edition, known map[string]participation) bool {
	for i := range e.Jobs {
		j := &e.Jobs[i]
		if !j.Collecting() {
			continue
		}
		if known[j.Name] != (participation{uint32(j.Last.Round), uint32(j.Last.Attempt)}) {
			return true
		}
	}
	return false
}

// work lists what is open, with the ledger's proof that it is charged for somebody who
// has a checkpoint of the first ledgerSize records. The index is one at which the ledger
// is as long: a node that has applied less could not show that it extends this one.
func (p *participant) work(e *board.Edition, index uint64, client rounds.ClientID, ledgerSize uint64) (*undertonev1.PollResponse, error) {
	head, err := p.notary.Head() // later than e, so what is open there is in it
	if err != nil {
		return nil, err
	}
	resp := &undertonev1.PollResponse{Index: max(index, head.Index)}
	if resp.Ledger, err = ledgerMessage(head, ledgerSize); err != nil {
		return nil, err
	}
	now := time.Now()
	for i := range e.Jobs {
		j := &e.Jobs[i]
		if !j.Collecting() {
			continue
		}
		in, err := reservation(head, j.Name, j.Last.Round, j.Last.Attempt)
		if err != nil {
			return nil, err
		}
		resp.Work = append(resp.Work, &undertonev1.Work{
			Job:         j.Name,
			Round:       uint32(j.Last.Round),
			Attempt:     uint32(j.Last.Attempt),
			SpecDigest:  j.SpecDigest[:],
			StateDigest: j.Latest[:],
			StateSize:   uint64(j.LatestSize),
			RemainingMs: uint64(j.Remaining(now).Milliseconds()),
			Reservation: in,
		})
	}
	if len(resp.Work) > 0 {
		p.node.View(func(m *rounds.Machine, _ uint64) {
			for _, w := range resp.Work {
				w.Counted, _ = m.Member(w.Job, int(w.Round), int(w.Attempt), client)
			}
		})
	}
	return resp, nil
}

// GetSpec implements ParticipantService.
func (p *participant) GetSpec(_ context.Context, req *undertonev1.GetSpecRequest) (*undertonev1.GetSpecResponse, error) {
	resp := new(undertonev1.GetSpecResponse)
	err := p.view(req.Job, func(_ *rounds.Machine, job *rounds.JobView, _ uint64) { resp.Spec = job.Raw.Bytes })
	return resp, err
}

// FetchState implements ParticipantService. Only the latest state is kept.
func (p *participant) FetchState(req *undertonev1.FetchStateRequest, stream grpc.ServerStreamingServer[undertonev1.FetchStateResponse]) error {
	if err := ingest.CatchUp(stream.Context(), p.node, req.MinIndex); err != nil {
		return err
	}
	var (
		first undertonev1.FetchStateResponse
		state rounds.Blob
	)
	err := p.view(req.Job, func(_ *rounds.Machine, job *rounds.JobView, index uint64) {
		state = job.Latest // its bytes never change
		first.Version, first.Index = uint32(job.Released), index
	})
	if err != nil {
		return err
	}
	switch {
	case req.Latest && req.Version == 0 && len(req.Digest) == 0:
	case req.Version < first.Version:
		return refusal.New(undertonev1.Reason_REASON_SUPERSEDED, "state %d is no longer kept: %d is the latest", req.Version, first.Version)
	case req.Version > first.Version:
		return refusal.New(undertonev1.Reason_REASON_BEHIND, "this node has not seen state %d", req.Version)
	case len(req.Digest) > 0 && !bytes.Equal(req.Digest, state.Digest[:]):
		return refusal.New(undertonev1.Reason_REASON_WRONG_DIGEST, "state %d has another digest", req.Version)
	}
	if req.Offset > uint64(len(state.Bytes)) {
		return refusal.New(undertonev1.Reason_REASON_MALFORMED, "offset: beyond the %d bytes of the state", len(state.Bytes))
	}
	first.Digest, first.Size = state.Digest[:], uint64(len(state.Bytes))
	rest := state.Bytes[req.Offset:]
	for msg := &first; ; msg = new(undertonev1.FetchStateResponse) {
		n := min(len(rest), pieceSize)
		msg.Chunk, rest = rest[:n], rest[n:]
		if err := stream.Send(msg); err != nil {
			return err
		}
		if len(rest) == 0 {
			return nil
		}
	}
}

// Submit implements ParticipantService.
func (p *participant) Submit(ctx context.Context, req *undertonev1.SubmitRequest) (*undertonev1.SubmitResponse, error) {
	h, err := header(ctx, req.Header)
	if err != nil {
		return nil, err
	}
	r, err := p.ingest.Submit(ctx, h, req.Payload)
	if err != nil {
		return nil, err
	}
	return &undertonev1.SubmitResponse{Index: r.Index, Duplicate: r.Duplicate}, nil
}

// slowestUpload is what a client must manage, in bytes a second.
const slowestUpload = 64 << 10

// errSlow ends an upload that takes too long.
var errSlow = status.Error(codes.DeadlineExceeded, "the upload takes too long")

// SubmitLarge implements ParticipantService.
func (p *participant) SubmitLarge(stream grpc.ClientStreamingServer[undertonev1.SubmitLargeRequest, undertonev1.SubmitLargeResponse]) error {
	ctx := stream.Context()
	pieces := receive(ctx, stream)
	late := time.NewTimer(p.config.UploadTime)
	defer late.Stop()
	next := func() (*undertonev1.SubmitLargeRequest, error) {
		select {
		case r := <-pieces:
			return r.msg, r.err
		case <-late.C:
			return nil, errSlow
		case <-ctx.Done(): // the client is gone, or what it sent was no message
			return nil, ctx.Err()
		}
	}

	msg, err := next()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	h, err := header(ctx, msg.GetHeader())
	if err != nil {
		return err
	}
	upload, receipt, err := p.ingest.Begin(ctx, h)
	if err != nil {
		return err
	}
	if receipt != nil {
		return acknowledge(stream, *receipt)
	}
	late.Reset(p.config.UploadTime + time.Duration(upload.Size()/slowestUpload)*time.Second)
	for {
		msg, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && msg.GetHeader() != nil {
			err = refusal.New(undertonev1.Reason_REASON_MALFORMED, "header: a second one")
		}
		if err == nil {
			err = upload.Write(msg.GetPiece())
		}
		if err != nil {
			upload.Abort()
			return err
		}
	}
	r, err := upload.Commit(ctx)
	if err != nil {
		return err
	}
	return acknowledge(stream, r)
}

func acknowledge(stream grpc.ClientStreamingServer[undertonev1.SubmitLargeRequest, undertonev1.SubmitLargeResponse], r ingest.Receipt) error {
	return stream.SendAndClose(&undertonev1.SubmitLargeResponse{Index: r.Index, Duplicate: r.Duplicate})
}

type received struct {
	msg *undertonev1.SubmitLargeRequest
	err error
}

// receive hands on what a stream brings, so that its reader can stop waiting.
// It ends with the stream, which ends when its handler returns.
func receive(ctx context.Context, stream grpc.ClientStreamingServer[undertonev1.SubmitLargeRequest, undertonev1.SubmitLargeResponse]) <-chan received {
	ch := make(chan received)
	go func() {
		for {
			msg, err := stream.Recv()
			select {
			case ch <- received{msg, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return ch
}

// header checks a header's form. The contribution is the caller's own, whatever
// else the request says.
func header(ctx context.Context, h *undertonev1.SubmitHeader) (ingest.Header, error) {
	who, err := callerOf(ctx)
	if err != nil {
		return ingest.Header{}, err
	}
	if h == nil {
		return ingest.Header{}, refusal.New(undertonev1.Reason_REASON_MALFORMED, "header: missing")
	}
	if len(h.StateDigest) != len(rounds.Digest{}) {
		return ingest.Header{}, refusal.New(undertonev1.Reason_REASON_MALFORMED, "state_digest: %d bytes instead of %d", len(h.StateDigest), len(rounds.Digest{}))
	}
	return ingest.Header{
		Key:      ingest.Key{Job: h.Job, Round: int(h.Round), Attempt: int(h.Attempt)},
		Client:   who.client,
		State:    rounds.Digest(h.StateDigest),
		Checksum: h.Checksum,
		MinIndex: h.MinIndex,
	}, nil
}

func unknownJob(name string) error {
	return refusal.New(undertonev1.Reason_REASON_UNKNOWN_JOB, "no job %.64q", name)
}

func notReady(why []string) error {
	e := refusal.New(undertonev1.Reason_REASON_NO_LEADER, "not ready: %s", strings.Join(why, ", "))
	e.RetryAfter = 200 * time.Millisecond
	return e
}
