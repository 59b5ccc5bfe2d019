package service

import (
	"bufio"
	"context"
	"errors"
	"math"
	"strconv"
	"time"

	"google.golang.org/grpc"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/proto/identity"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	rpc "github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server/ingest"
	"github.com/undertone-fl/undertone/server/notary"
	"github.com/undertone-fl/undertone/server/refusal"
)

// Links makes links by which a browser without a certificate reads this node's pages.
type Links interface {
	// Create returns a link for a while, by which somebody reads what who could.
	Create(who identity.Identity, d time.Duration) (url string, expires time.Time, err error)
}

// bookkeeper shows the ledger.
type bookkeeper struct {
	rpc.UnimplementedLedgerServiceServer
	*Service
	downloads atATime
}

// mostDownloads is how many of the whole ledger one identity may have at a time.
const mostDownloads = 2

// ledgerMessage is a checkpoint for somebody who has one of the first size records.
func ledgerMessage(h *notary.Head, size uint64) (*undertonev1.Ledger, error) {
	proof, err := h.Consistency(size)
	return &undertonev1.Ledger{Checkpoint: h.Note, Consistency: hashes(proof), Rotations: h.Rotations, Key: h.Key}, err
}

// reservation is the proof that an attempt is charged, nil where there is none.
func reservation(h *notary.Head, job string, round, attempt int) (*undertonev1.Inclusion, error) {
	in, err := h.Reservation(job, round, attempt)
	if in == nil || err != nil {
		return nil, err
	}
	return &undertonev1.Inclusion{Record: in.Record, Index: uint64(in.Index), Proof: hashes(in.Proof)}, nil
}

func hashes(p ledger.Proof) [][]byte {
	out := make([][]byte, len(p))
	for i := range p {
		out[i] = p[i][:]
	}
	return out
}

// GetCheckpoint implements LedgerService.
func (b *bookkeeper) GetCheckpoint(ctx context.Context, req *undertonev1.GetCheckpointRequest) (*undertonev1.GetCheckpointResponse, error) {
	index := req.MinIndex
	if index == 0 {
		var err error
		if index, err = b.node.Barrier(ctx); err != nil {
			return nil, err
		}
	} else if err := ingest.CatchUp(ctx, b.node, index); err != nil {
		return nil, err
	}
	return b.checkpoint(req.LedgerSize, index)
}

func (b *bookkeeper) checkpoint(size, index uint64) (*undertonev1.GetCheckpointResponse, error) {
	h, err := b.notary.Head()
	if err != nil {
		return nil, err
	}
	l, err := ledgerMessage(h, size)
	return &undertonev1.GetCheckpointResponse{Ledger: l, Index: max(index, h.Index)}, err
}

// DownloadLedger implements LedgerService. It is the ledger as of now: an auditor may
// have seen more of it at another node than this one had applied.
func (b *bookkeeper) DownloadLedger(_ *undertonev1.DownloadLedgerRequest, stream grpc.ServerStreamingServer[undertonev1.DownloadLedgerResponse]) error {
	who, err := callerOf(stream.Context())
	if err != nil {
		return err
	}
	leave, err := b.downloads.enter(who.Identity)
	if err != nil {
		return err
	}
	defer leave()
	if _, err := b.node.Barrier(stream.Context()); err != nil {
		return err
	}
	bundle, err := b.notary.Bundle()
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(pieces(func(b []byte) error {
		return stream.Send(&undertonev1.DownloadLedgerResponse{Chunk: b})
	}), pieceSize)
	if err := ledger.WriteBundle(w, bundle); err != nil {
		return err
	}
	return w.Flush()
}

// RotateKey implements LedgerService. Handing on to the key that signs already is no
// error, as that may be this call's own doing, in an answer that was lost.
func (b *bookkeeper) RotateKey(ctx context.Context, req *undertonev1.RotateKeyRequest) (*undertonev1.RotateKeyResponse, error) {
	who, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	next, err := ledger.ParseKey(req.Key)
	if err != nil {
		return nil, refusal.New(undertonev1.Reason_REASON_MALFORMED, "key: it is no public key of a ledger")
	}
	if _, err := b.node.Barrier(ctx); err != nil {
		return nil, err
	}
	h, err := b.notary.Head()
	if mistake, ok := errors.AsType[*notary.KeyError](err); ok {
		return nil, refusal.New(undertonev1.Reason_REASON_NO_KEY, "this node cannot sign the ledger: %v", mistake)
	}
	if err != nil {
		return nil, err
	}
	if origin := h.Checkpoint.Origin; next.Name() != origin {
		return nil, refusal.New(undertonev1.Reason_REASON_MALFORMED, "key: it is one of %.64q, and the ledger is %q", next.Name(), origin)
	}
	rotation, err := b.notary.Rotation(req.Key)
	if mistake, ok := errors.AsType[*notary.KeyError](err); ok {
		return nil, refusal.New(undertonev1.Reason_REASON_NO_KEY, "this node has not both secret keys, the ledger's and the next: %v", mistake)
	}
	if err != nil {
		return nil, err
	}
	var index uint64
	if !req.Check && h.Key != rotation.Key {
		index, err = b.node.Propose(ctx, rotation)
		b.config.Logger.Info("operator's command", "operator", who.Name, "command", "rotate the ledger's key", "key", rotation.Key, "err", err)
		if err != nil {
			return nil, err
		}
	}
	at, err := b.checkpoint(0, index)
	return &undertonev1.RotateKeyResponse{Ledger: at.GetLedger()}, err
}

// RecordCanary implements LedgerService.
func (b *bookkeeper) RecordCanary(ctx context.Context, req *undertonev1.RecordCanaryRequest) (*undertonev1.RecordCanaryResponse, error) {
	who, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	m, err := measured(req)
	if err != nil {
		return nil, err
	}
	if err := b.checkClaim(req); err != nil {
		return nil, err
	}
	m.By = who.Identity.String()
	if _, err := b.node.Propose(ctx, rounds.RecordCanary{Measured: m}); err != nil {
		return nil, err
	}
	h, err := b.notary.Head()
	if err != nil {
		return nil, err
	}
	at := h.Canary(m)
	if at < 0 {
		return nil, errors.New("service: the measurement is not in the ledger")
	}
	return &undertonev1.RecordCanaryResponse{Record: uint64(at)}, nil
}

// measured is a measurement in integers: the claim to the nearest millionth, and what
// was shown rounded outwards.
func measured(req *undertonev1.RecordCanaryRequest) (m ledger.CanaryMeasured, err error) {
	const (
		millionths = 1e6
		most       = 1e6
		exact      = 1 << 53 // what every reader of JSON can read
	)
	wrong := func(field, want string) error {
		return refusal.New(undertonev1.Reason_REASON_MALFORMED, "%s: want %s", field, want)
	}
	switch { // each so that NaN is refused
	case !(req.ClaimedEpsilon >= 0 && req.ClaimedEpsilon <= most):
		return m, wrong("claimed_epsilon", "a number from 0 to 1e6")
	case !(req.LowerEpsilon >= 0 && req.LowerEpsilon <= most):
		return m, wrong("lower_epsilon", "a number from 0 to 1e6")
	case !(req.UpperEpsilon == 0 || req.UpperEpsilon >= req.LowerEpsilon && req.UpperEpsilon <= most):
		return m, wrong("upper_epsilon", "0, or a number from lower_epsilon to 1e6")
	case !(req.Delta > 0 && req.Delta < 1):
		return m, wrong("delta", "a number between 0 and 1")
	case !(req.Confidence >= 1/millionths && req.Confidence < 1):
		return m, wrong("confidence", "a number between 0 and 1")
	case req.Trials == 0 || req.Trials > exact:
		return m, wrong("trials", "a number from 1 to 2^53")
	case req.MeasuredMs <= 0 || req.MeasuredMs > exact:
		return m, wrong("measured_ms", "milliseconds since 1970")
	}
	return ledger.CanaryMeasured{
		Job:        req.Job,
		Claimed:    uint64(math.Round(req.ClaimedEpsilon * millionths)),
		Lower:      uint64(math.Floor(req.LowerEpsilon * millionths)),
		Upper:      uint64(math.Ceil(req.UpperEpsilon * millionths)),
		Delta:      strconv.FormatFloat(req.Delta, 'g', -1, 64),
		Confidence: uint64(math.Floor(req.Confidence * millionths)),
		Trials:     req.Trials,
		Passed:     req.Passed,
		Measured:   req.MeasuredMs,
		How:        req.How,
	}, nil
}

// checkClaim refuses a measurement that is not of what the ledger says of the job. One that
// found more than is claimed is welcome, and shown as that: to have it made again until it
// finds less would be to choose among measurements. That one took place nobody can check: it is its caller's word, and
// bears the caller's name.
func (b *bookkeeper) checkClaim(req *undertonev1.RecordCanaryRequest) error {
	const (
		clocks    = time.Minute // may be apart
		tolerance = 0.01
	)
	wrong := func(format string, args ...any) error {
		return refusal.New(undertonev1.Reason_REASON_MALFORMED, format, args...)
	}
	if req.MeasuredMs > time.Now().Add(clocks).UnixMilli() {
		return wrong("measured_ms: it is in the future")
	}
	var spec *rounds.Spec
	b.node.View(func(m *rounds.Machine, _ uint64) {
		if j, ok := m.Job(req.Job); ok {
			spec = j.Spec
		}
	})
	if spec == nil {
		return nil // for the state machine to refuse
	}
	if req.Delta != spec.Delta {
		return wrong("delta: it is %g, and that of %s %g", req.Delta, spec.Job, spec.Delta)
	}
	rho := 0.0
	for _, r := range spec.Releases {
		rho += r.Charge.Rho()
	}
	charged := accounting.GaussianEpsilon(math.Sqrt(2*rho), spec.Delta)
	if math.Abs(req.ClaimedEpsilon-charged) > tolerance*charged {
		return wrong("claimed_epsilon: it is %.6g, and an attempt at every round of %s costs %.6g: it is no measurement of this job's noise", req.ClaimedEpsilon, spec.Job, charged)
	}
	return nil
}

// longestLink is how long a link is good for.
const longestLink = 15 * time.Minute

// CreateLink implements LedgerService.
func (b *bookkeeper) CreateLink(ctx context.Context, req *undertonev1.CreateLinkRequest) (*undertonev1.CreateLinkResponse, error) {
	who, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if b.config.Links == nil {
		return nil, refusal.New(undertonev1.Reason_REASON_NO_PAGES, "this node serves no pages")
	}
	d := time.Duration(req.Seconds) * time.Second
	if d == 0 || d > longestLink {
		d = longestLink
	}
	url, expires, err := b.config.Links.Create(who.Identity, d)
	if err != nil {
		return nil, err
	}
	return &undertonev1.CreateLinkResponse{Url: url, ExpiresMs: expires.UnixMilli()}, nil
}
