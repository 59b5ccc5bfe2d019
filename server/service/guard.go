package service

import (
	"context"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/proto/identity"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	rpc "github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server/refusal"
)

// who may call what. A method that is not here is nobody's.
var (
	clients   = []identity.Role{identity.Client}
	readers   = []identity.Role{identity.Client, identity.Operator, identity.Auditor} // of what is public
	operators = []identity.Role{identity.Operator}
	auditors  = []identity.Role{identity.Operator, identity.Auditor}

	mayCall = map[string][]identity.Role{
		rpc.ParticipantService_Poll_FullMethodName:        clients,
		rpc.ParticipantService_GetSpec_FullMethodName:     readers,
		rpc.ParticipantService_FetchState_FullMethodName:  readers,
		rpc.ParticipantService_Submit_FullMethodName:      clients,
		rpc.ParticipantService_SubmitLarge_FullMethodName: clients,

		rpc.OperatorService_CreateJob_FullMethodName:          operators,
		rpc.OperatorService_OpenJob_FullMethodName:            operators,
		rpc.OperatorService_PauseJob_FullMethodName:           operators,
		rpc.OperatorService_CloseJob_FullMethodName:           operators,
		rpc.OperatorService_OpenRound_FullMethodName:          operators,
		rpc.OperatorService_CloseRound_FullMethodName:         operators,
		rpc.OperatorService_GetJob_FullMethodName:             auditors,
		rpc.OperatorService_ListJobs_FullMethodName:           auditors,
		rpc.OperatorService_GetCluster_FullMethodName:         auditors,
		rpc.OperatorService_RemoveNode_FullMethodName:         operators,
		rpc.OperatorService_PromoteNode_FullMethodName:        operators,
		rpc.OperatorService_TransferLeadership_FullMethodName: operators,
		rpc.OperatorService_Backup_FullMethodName:             operators,

		rpc.LedgerService_GetCheckpoint_FullMethodName:  readers,
		rpc.LedgerService_DownloadLedger_FullMethodName: auditors,
		rpc.LedgerService_RotateKey_FullMethodName:      operators,
		rpc.LedgerService_RecordCanary_FullMethodName:   auditors,
		rpc.LedgerService_CreateLink_FullMethodName:     auditors,
	}
)

// enter admits a request by the caller's role and rate.
func enter(ctx context.Context, method string) error {
	c, err := callerOf(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(mayCall[method], c.Role) {
		return refusal.New(undertonev1.Reason_REASON_FORBIDDEN, "%v may not call %s", c.Identity, method)
	}
	if !c.limiter.Allow() {
		e := refusal.New(undertonev1.Reason_REASON_RATE_LIMITED, "%v sends too many requests", c.Identity)
		e.RetryAfter = time.Duration(float64(time.Second) / float64(c.limiter.Limit()))
		return e
	}
	return nil
}

func (s *Service) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (resp any, err error) {
	defer func() { err = s.answer(info.FullMethod, recover(), err) }()
	if err := enter(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handle(ctx, req)
}

func (s *Service) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	defer func() { err = s.answer(info.FullMethod, recover(), err) }()
	if err := enter(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return handle(srv, stream)
}

// answer turns how a request ended into what the caller is told, and counts it.
func (s *Service) answer(method string, panicked any, err error) error {
	if panicked != nil {
		s.config.Metrics.Panics.Inc()
		s.config.Logger.Error("panic in a request", "method", method, "panic", panicked, "stack", string(debug.Stack()))
		return status.Error(codes.Internal, "internal error: the server's log says more")
	}
	if err == nil {
		return nil
	}
	told := refusal.From(err)
	if e, ok := told.(*refusal.Error); ok {
		s.config.Metrics.Refused.WithLabelValues(label(e.Reason)).Inc()
	} else if status.Code(told) == codes.Internal {
		s.config.Metrics.Refused.WithLabelValues("internal").Inc()
		s.config.Logger.Error("a request failed", "method", method, "err", err)
	}
	return told
}

// label is a reason as a metric's label: "not_open".
func label(r undertonev1.Reason) string {
	return strings.ToLower(strings.TrimPrefix(r.String(), "REASON_"))
}

// codec counts the messages that are none. grpc answers them itself, before any
// interceptor.
type codec struct {
	encoding.CodecV2
	service *Service
}

func (s *Service) codec() codec { return codec{encoding.GetCodecV2(proto.Name), s} }

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	err := c.CodecV2.Unmarshal(data, v)
	if err != nil {
		c.service.config.Metrics.Refused.WithLabelValues("garbage").Inc()
	}
	return err
}

// oversized counts the messages beyond the limit, which grpc answers itself.
type oversized struct{ service *Service }

func (oversized) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (oversized) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (oversized) HandleConn(context.Context, stats.ConnStats)                       {}

func (o oversized) HandleRPC(_ context.Context, s stats.RPCStats) {
	end, ok := s.(*stats.End)
	if !ok || end.Error == nil {
		return
	}
	if st := status.Convert(end.Error); st.Code() == codes.ResourceExhausted && len(st.Details()) == 0 {
		o.service.config.Metrics.Refused.WithLabelValues("message_size").Inc()
	}
}
