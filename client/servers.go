package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
)

const (
	// chunk is the size of the pieces of a large contribution; what fits one goes
	// in a single call.
	chunk = 256 << 10
	// largestState is the most bytes that a released model may have: what a phone
	// can hold, about ten million numbers.
	largestState = 256 << 20

	// try is how long one server has to answer; a transfer has a second more for
	// every slowest bytes.
	try     = 10 * time.Second
	slowest = 128 << 10

	firstPause, longestPause = 50 * time.Millisecond, 3 * time.Second
)

// servers are connections to the nodes of one cluster, made when they are needed.
type servers struct {
	nodes []node
	good  atomic.Int64 // the node that answered last
	// patience is how long to go on trying.
	patience time.Duration
}

type node struct {
	address string
	conn    *grpc.ClientConn
	undertonev1grpc.ParticipantServiceClient
}

func newServers(addresses []string, bearer *identity.Bearer, patience time.Duration) (*servers, error) {
	s := &servers{patience: patience}
	for _, address := range addresses {
		conn, err := grpc.NewClient(address,
			grpc.WithTransportCredentials(grpctls.Client(bearer)),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           grpcbackoff.Config{BaseDelay: firstPause, Multiplier: 1.6, Jitter: 0.5, MaxDelay: longestPause},
				MinConnectTimeout: try / 2,
			}),
			// A phone changes networks without a word.
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: try}),
			grpc.WithDisableServiceConfig(),
		)
		if err != nil {
			s.close()
			return nil, &ConfigError{"servers", fmt.Sprintf("%q: %v", address, err)}
		}
		s.nodes = append(s.nodes, node{address, conn, undertonev1grpc.NewParticipantServiceClient(conn)})
	}
	// Devices that start together spread over the nodes.
	s.good.Store(rand.Int64N(int64(len(s.nodes))))
	return s, nil
}

// checkAddresses fails with a *ConfigError.
func checkAddresses(addresses []string) error {
	if len(addresses) == 0 {
		return &ConfigError{"servers", "none is named"}
	}
	for _, a := range addresses {
		host, port, err := net.SplitHostPort(a)
		if err != nil || host == "" || port == "" {
			return &ConfigError{"servers", fmt.Sprintf("%q is not host:port", a)}
		}
	}
	return nil
}

func (s *servers) close() {
	for _, n := range s.nodes {
		n.conn.Close()
	}
}

// call tries f on one node after another, beginning with the last good one,
// until it succeeds, fails for a reason that no other node and no time will mend,
// failed with ErrLedger at every node, or patience ends. Each try has timeout. Fails
// with a *RefusedError, ErrUnavailable, f's own error, or that of ctx.
func (s *servers) call(ctx context.Context, timeout time.Duration, f func(context.Context, node) error) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval, pauses.RandomizationFactor = firstPause, longestPause, 0.5
	_, err := backoff.Retry(ctx, func() (struct{}, error) { return struct{}{}, s.around(ctx, timeout, f) },
		backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(s.patience))
	var later *laterError
	if errors.As(err, &later) {
		return later.error
	}
	return err
}

// laterError is a failure that the server named a pause for.
type laterError struct {
	error
	backoff.RetryAfterError
}

func (e *laterError) Error() string   { return e.error.Error() }
func (e *laterError) Unwrap() []error { return []error{e.error, &e.RetryAfterError} }

// around tries every node once.
func (s *servers) around(ctx context.Context, timeout time.Duration, f func(context.Context, node) error) error {
	var last error
	var pause time.Duration
	unreliable := 0
	for range s.nodes {
		at := s.good.Load()
		n := s.nodes[at]
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			return f(ctx, n)
		}()
		if err == nil {
			return nil
		}
		if cause := context.Cause(ctx); cause != nil {
			return backoff.Permanent(cause)
		}
		wait, err := classify(err)
		switch {
		case errors.Is(err, ErrUnavailable):
		case errors.Is(err, ErrLedger):
			unreliable++ // this node, and maybe no other
		default:
			return backoff.Permanent(err)
		}
		last, pause = fmt.Errorf("%s: %w", n.address, err), max(pause, wait)
		s.good.CompareAndSwap(at, (at+1)%int64(len(s.nodes)))
	}
	if unreliable == len(s.nodes) {
		return backoff.Permanent(last)
	}
	if pause > 0 {
		// Not all at the same moment.
		pause += rand.N(pause/2 + time.Millisecond)
		return &laterError{last, backoff.RetryAfterError{Duration: pause}}
	}
	return last
}

// classify turns a status into an error of this package: a *RefusedError where
// the server gave a reason. The pause is what it asks for.
func classify(err error) (pause time.Duration, _ error) {
	st, ok := status.FromError(err)
	if !ok {
		return 0, err
	}
	for _, detail := range st.Details() {
		if r, ok := detail.(*undertonev1.Refusal); ok {
			pause := time.Duration(min(r.GetRetryAfterMs(), 60_000)) * time.Millisecond
			return pause, &RefusedError{r.GetReason(), oneLine(r.GetDetail()), r.Counted}
		}
	}
	message := oneLine(st.Message())
	switch st.Code() {
	case codes.PermissionDenied, codes.Unauthenticated:
		return 0, fmt.Errorf("%w: %s", ErrForbidden, message)
	case codes.InvalidArgument, codes.Unimplemented, codes.OutOfRange, codes.FailedPrecondition, codes.NotFound, codes.AlreadyExists:
		return 0, fmt.Errorf("%w: %s: %s", ErrRejected, strings.ToLower(st.Code().String()), message)
	}
	return 0, fmt.Errorf("%w: %s", ErrUnavailable, oneLine(grpctls.Problem(err)))
}

// oneLine is what a server says, fit for a log.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 500 {
		s = s[:500] + "..."
	}
	return s
}

// reasonText is a reason in words: no leader.
func reasonText(r undertonev1.Reason) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(r.String(), "REASON_"), "_", " "))
}

// poll asks what is open, and waits for it as long as r says. check is what must hold
// of an answer, by the address that it is from.
func (s *servers) poll(ctx context.Context, r *undertonev1.PollRequest, check func(out *undertonev1.PollResponse, from string) error) (out *undertonev1.PollResponse, err error) {
	err = s.call(ctx, time.Duration(r.GetWaitMs())*time.Millisecond+try, func(ctx context.Context, n node) error {
		if out, err = n.poll(ctx, r); err == nil {
			err = check(out, n.address)
		}
		return err
	})
	return out, err
}

func (n node) poll(ctx context.Context, r *undertonev1.PollRequest) (*undertonev1.PollResponse, error) {
	out, err := n.Poll(ctx, r)
	if err == nil && out.GetIndex() < r.GetMinIndex() {
		err = fmt.Errorf("%w: %s answers from index %d, after %d", ErrUnavailable, n.address, out.GetIndex(), r.GetMinIndex())
	}
	return out, err
}

// spec fetches a job's specification.
func (s *servers) spec(ctx context.Context, job string) (data []byte, err error) {
	err = s.call(ctx, try, func(ctx context.Context, n node) error {
		out, err := n.GetSpec(ctx, &undertonev1.GetSpecRequest{Job: job})
		data = out.GetSpec()
		return err
	})
	return data, err
}

// latest asks for the version and digest of the latest released state.
func (s *servers) latest(ctx context.Context, job string, index uint64) (out *undertonev1.FetchStateResponse, err error) {
	err = s.call(ctx, try, func(ctx context.Context, n node) error {
		stream, err := n.FetchState(ctx, &undertonev1.FetchStateRequest{Job: job, Latest: true, MinIndex: index})
		if err != nil {
			return err
		}
		out, err = stream.Recv() // the rest ends with the context
		return err
	})
	return out, err
}

// state fetches a released state; what arrived before a connection broke is not
// asked for again. Fails with ErrTooLarge before it asks, or with ErrDigest if it is
// longer than was announced.
func (s *servers) state(ctx context.Context, job string, version int, d digest, size, index uint64) ([]byte, error) {
	if size > largestState {
		return nil, fmt.Errorf("%w: a model of %d bytes, of at most %d", ErrTooLarge, size, largestState)
	}
	var data []byte
	err := s.call(ctx, transferTime(size), func(ctx context.Context, n node) error {
		stream, err := n.FetchState(ctx, &undertonev1.FetchStateRequest{
			Job: job, Version: uint32(version), Digest: d[:], Offset: uint64(len(data)), MinIndex: index,
		})
		if err != nil {
			return err
		}
		for uint64(len(data)) < size {
			part, err := stream.Recv()
			if err == io.EOF {
				return fmt.Errorf("%w: %s sent %d of %d bytes", ErrUnavailable, n.address, len(data), size)
			}
			if err != nil {
				return err
			}
			data = append(data, part.GetChunk()...)
		}
		return nil
	})
	if err == nil && uint64(len(data)) != size {
		err = fmt.Errorf("%w: a model of %d bytes instead of %d", ErrDigest, len(data), size)
	}
	return data, err
}

// submit sends a contribution until a server acknowledges it, and returns the
// index where it is in the sum.
func (s *servers) submit(ctx context.Context, r *undertonev1.SubmitRequest, index uint64) (at uint64, err error) {
	r.Header.MinIndex = index
	err = s.call(ctx, transferTime(uint64(len(r.GetPayload()))), func(ctx context.Context, n node) error {
		if len(r.GetPayload()) > chunk {
			at, err = submitLarge(ctx, n, r)
			return err
		}
		out, err := n.Submit(ctx, r)
		at = out.GetIndex()
		return err
	})
	return at, err
}

func submitLarge(ctx context.Context, n node, r *undertonev1.SubmitRequest) (uint64, error) {
	stream, err := n.SubmitLarge(ctx)
	if err != nil {
		return 0, err
	}
	message := &undertonev1.SubmitLargeRequest{Part: &undertonev1.SubmitLargeRequest_Header{Header: r.GetHeader()}}
	for rest := r.GetPayload(); ; {
		// A send that fails with EOF has its reason in the answer.
		if err := stream.Send(message); err == io.EOF {
			break
		} else if err != nil {
			return 0, err
		}
		if len(rest) == 0 {
			break
		}
		piece := rest[:min(chunk, len(rest))]
		rest = rest[len(piece):]
		message = &undertonev1.SubmitLargeRequest{Part: &undertonev1.SubmitLargeRequest_Piece{Piece: piece}}
	}
	out, err := stream.CloseAndRecv()
	return out.GetIndex(), err
}

func transferTime(size uint64) time.Duration {
	return try + time.Duration(size/slowest)*time.Second
}
