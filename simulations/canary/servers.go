package canary

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
)

// ErrUnavailable says that no server answered, or that nothing went on, for too long.
var ErrUnavailable = errors.New("canary: unavailable")

// caller is one identity's connections to a cluster's servers, made when they are needed.
type caller struct {
	who      identity.Identity
	servers  []string
	conns    []*grpc.ClientConn
	good     atomic.Int64 // the server that answered last
	patience time.Duration
}

// try is how long a server has to answer.
const try = 10 * time.Second

// newCaller begins with the server of a number, so that many spread over all.
func newCaller(b *identity.Bearer, servers []string, first int, patience time.Duration) (*caller, error) {
	c := &caller{who: b.Identity(), servers: servers, patience: patience}
	c.good.Store(int64(first % len(servers)))
	for _, address := range servers {
		conn, err := grpc.NewClient("passthrough:///"+address,
			grpc.WithTransportCredentials(grpctls.Client(b)), grpc.WithDisableServiceConfig(),
			grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: try / 2,
				Backoff: grpcbackoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.5, MaxDelay: time.Second}}))
		if err != nil {
			c.close()
			return nil, fieldError("server", "%q: %v", address, err)
		}
		c.conns = append(c.conns, conn)
	}
	return c, nil
}

func (c *caller) close() {
	for _, conn := range c.conns {
		conn.Close()
	}
}

// call does f with one server after another, the last good one first, until it succeeds,
// fails for a reason that neither time nor another server mends, or patience ends. f may
// be done again. Fails with ErrUnavailable, f's error or that of ctx.
func (c *caller) call(ctx context.Context, wait time.Duration, f func(context.Context, *grpc.ClientConn) error) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = 20*time.Millisecond, 2*time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		at := c.good.Load()
		call, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		err := f(call, c.conns[at])
		if ctx.Err() != nil {
			return struct{}{}, backoff.Permanent(ctx.Err())
		}
		return struct{}{}, c.again(at, err)
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(c.patience))
	if later := (*laterError)(nil); errors.As(err, &later) {
		err = later.error
	}
	return err
}

// laterError is a failure that the server named a pause for.
type laterError struct {
	error
	pause backoff.RetryAfterError
}

func (e *laterError) Unwrap() []error { return []error{e.error, &e.pause} }

// again is the error of a call as backoff.Retry takes it: permanent, or to be tried
// again, at another server if this one may be the reason.
func (c *caller) again(at int64, err error) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if errors.Is(err, errBehind) {
		st = status.New(codes.Unavailable, err.Error())
	} else if !ok {
		return backoff.Permanent(err)
	}
	refused := refusalOf(err)
	why := cmp.Or(refused.GetDetail(), st.Message())
	if st.Code() == codes.Unavailable && refused == nil && ok {
		why = grpctls.Problem(err)
	}
	why = fmt.Sprintf("%s, called by %v: %s", c.servers[at], c.who, why)
	switch st.Code() {
	case codes.ResourceExhausted:
		if refused != nil { // of this caller, anywhere
			pause := time.Duration(refused.GetRetryAfterMs()) * time.Millisecond
			return &laterError{fmt.Errorf("%w: %s", ErrUnavailable, why), backoff.RetryAfterError{Duration: pause}}
		}
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.Canceled:
	default:
		return backoff.Permanent(&callError{why, err})
	}
	c.good.CompareAndSwap(at, (at+1)%int64(len(c.conns)))
	return fmt.Errorf("%w: %s", ErrUnavailable, why)
}

// callError is a refusal in words, on one line.
type callError struct {
	text string
	err  error
}

func (e *callError) Error() string { return e.text }
func (e *callError) Unwrap() error { return e.err }

// errBehind says that a server has not yet seen what another one has.
var errBehind = errors.New("it is behind")

// refusalOf is the detail of a status, nil if it has none.
func refusalOf(err error) *undertonev1.Refusal {
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*undertonev1.Refusal); ok {
			return r
		}
	}
	return nil
}

// participate is call with the service of clients.
func (c *caller) participate(ctx context.Context, wait time.Duration, f func(context.Context, undertonev1grpc.ParticipantServiceClient) error) error {
	return c.call(ctx, wait, func(ctx context.Context, conn *grpc.ClientConn) error {
		return f(ctx, undertonev1grpc.NewParticipantServiceClient(conn))
	})
}

// spec fetches a job's specification.
func (c *caller) spec(ctx context.Context, job string) (raw []byte, err error) {
	err = c.participate(ctx, try, func(ctx context.Context, p undertonev1grpc.ParticipantServiceClient) error {
		r, err := p.GetSpec(ctx, &undertonev1.GetSpecRequest{Job: job})
		raw = r.GetSpec()
		return err
	})
	return raw, err
}

// largestState bounds a released state.
const largestState = 1 << 20

// latest fetches the latest released state of a job, as of an index or later.
func (c *caller) latest(ctx context.Context, job string, index uint64) (version int, state []byte, err error) {
	err = c.participate(ctx, try, func(ctx context.Context, p undertonev1grpc.ParticipantServiceClient) error {
		stream, err := p.FetchState(ctx, &undertonev1.FetchStateRequest{Job: job, Latest: true, MinIndex: index})
		if err != nil {
			return err
		}
		state = nil
		for first := true; ; first = false {
			r, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if first {
				version = int(r.GetVersion())
			}
			if state = append(state, r.GetChunk()...); len(state) > largestState {
				return fmt.Errorf("%s: a state of more than %d bytes", job, largestState)
			}
		}
	})
	return version, state, err
}

// submit sends a contribution until it is in the sum. Fails with errRefused, or errOver.
func (c *caller) submit(ctx context.Context, r *undertonev1.SubmitRequest) (index uint64, err error) {
	err = c.participate(ctx, try, func(ctx context.Context, p undertonev1grpc.ParticipantServiceClient) error {
		out, err := p.Submit(ctx, r)
		index = out.GetIndex()
		return err
	})
	refused := refusalOf(err)
	switch refused.GetReason() {
	case undertonev1.Reason_REASON_COUNTED:
		return index, nil
	case undertonev1.Reason_REASON_OUT_OF_RANGE:
		return 0, errRefused
	case undertonev1.Reason_REASON_NOT_OPEN, undertonev1.Reason_REASON_ALREADY_RELEASED, undertonev1.Reason_REASON_FULL:
		if refused.Counted != nil && refused.GetCounted() {
			return index, nil
		}
		return 0, errOver
	}
	return index, err
}
