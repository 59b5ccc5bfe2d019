// Package refusal says no to a caller in one way: a status code, one line for a
// person, and a Refusal detail with a reason that a program decides on. Here is
// the only place where errors become statuses.
package refusal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/server/notary"
	"github.com/undertone-fl/undertone/server/replication"
)

// Error is a request that was refused.
type Error struct {
	Reason undertonev1.Reason
	Detail string // one line for a person
	// Counted is whether the client is in the sum of a round that takes no more,
	// nil where that is not known.
	Counted *bool
	// RetryAfter is the earliest time to try again from now; 0: at once.
	RetryAfter time.Duration
	Members    []int // with COUNTED
	Room       int   // with FULL
}

// New returns a refusal.
func New(reason undertonev1.Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string { return e.Detail }

// code is a reason's status code. Unavailable is what another server, or this
// one in a moment, may answer differently.
var code = map[undertonev1.Reason]codes.Code{
	undertonev1.Reason_REASON_MALFORMED:        codes.InvalidArgument,
	undertonev1.Reason_REASON_UNKNOWN_JOB:      codes.NotFound,
	undertonev1.Reason_REASON_JOB_EXISTS:       codes.AlreadyExists,
	undertonev1.Reason_REASON_WRONG_ROUND:      codes.FailedPrecondition,
	undertonev1.Reason_REASON_ALREADY_OPEN:     codes.AlreadyExists,
	undertonev1.Reason_REASON_NOT_OPEN:         codes.FailedPrecondition,
	undertonev1.Reason_REASON_COUNTED:          codes.AlreadyExists,
	undertonev1.Reason_REASON_FULL:             codes.FailedPrecondition,
	undertonev1.Reason_REASON_NO_BUDGET:        codes.FailedPrecondition,
	undertonev1.Reason_REASON_NOT_RUNNING:      codes.FailedPrecondition,
	undertonev1.Reason_REASON_NOT_CLOSED:       codes.FailedPrecondition,
	undertonev1.Reason_REASON_ALREADY_RELEASED: codes.FailedPrecondition,
	undertonev1.Reason_REASON_NOT_STAGED:       codes.FailedPrecondition,
	undertonev1.Reason_REASON_WRONG_DIGEST:     codes.FailedPrecondition,
	undertonev1.Reason_REASON_TOO_MANY:         codes.FailedPrecondition,
	undertonev1.Reason_REASON_FORBIDDEN:        codes.PermissionDenied,
	undertonev1.Reason_REASON_OUT_OF_RANGE:     codes.InvalidArgument,
	undertonev1.Reason_REASON_CORRUPT:          codes.InvalidArgument,
	undertonev1.Reason_REASON_TOO_LARGE:        codes.InvalidArgument,
	undertonev1.Reason_REASON_RATE_LIMITED:     codes.ResourceExhausted,
	undertonev1.Reason_REASON_OVERLOADED:       codes.ResourceExhausted,
	undertonev1.Reason_REASON_NO_LEADER:        codes.Unavailable,
	undertonev1.Reason_REASON_BEHIND:           codes.Unavailable,
	undertonev1.Reason_REASON_DIVERGED:         codes.Unavailable,
	undertonev1.Reason_REASON_SUPERSEDED:       codes.FailedPrecondition,
	undertonev1.Reason_REASON_UNKNOWN_NODE:     codes.NotFound,
	undertonev1.Reason_REASON_NO_KEY:           codes.Unavailable,
	undertonev1.Reason_REASON_NO_PAGES:         codes.FailedPrecondition,
}

// GRPCStatus is the status that carries the refusal over the wire.
func (e *Error) GRPCStatus() *status.Status {
	c, ok := code[e.Reason]
	if !ok {
		c = codes.Unknown
	}
	detail := &undertonev1.Refusal{
		Reason:       e.Reason,
		Detail:       e.Detail,
		Counted:      e.Counted,
		RetryAfterMs: uint64(e.RetryAfter.Milliseconds()),
		Room:         uint32(e.Room),
	}
	for _, m := range e.Members {
		detail.Members = append(detail.Members, uint32(m))
	}
	s, err := status.New(c, e.Detail).WithDetails(detail)
	if err != nil {
		return status.New(c, e.Detail)
	}
	return s
}

// From gives every error of the parts below its reason. What is no refusal
// comes back as the status it is: a context's end, or Internal, with nothing of
// the error's text, which may name files or addresses.
func From(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if r, ok := errors.AsType[*rounds.Refusal](err); ok {
		return &Error{
			Reason:  undertonev1.Reason(r.Reason),
			Detail:  r.Error(),
			Members: r.Counted,
			Room:    r.Room,
		}
	}
	if s, ok := errors.AsType[*rounds.SpecError](err); ok {
		return New(undertonev1.Reason_REASON_MALFORMED, "%s", s.Error())
	}
	switch {
	case errors.Is(err, replication.ErrNoLeader):
		return retry(undertonev1.Reason_REASON_NO_LEADER, "no leader can be reached")
	case errors.Is(err, replication.ErrIndeterminate):
		return retry(undertonev1.Reason_REASON_NO_LEADER, "the leader changed, and the outcome is not known: send again")
	case errors.Is(err, replication.ErrStopped):
		return retry(undertonev1.Reason_REASON_NO_LEADER, "this node is stopping")
	case errors.Is(err, replication.ErrDiverged):
		return New(undertonev1.Reason_REASON_DIVERGED, "this node's state differs from the others': use another")
	case errors.Is(err, notary.ErrNoLedger):
		return retry(undertonev1.Reason_REASON_NO_LEADER, "no leader has begun the ledger yet")
	case errors.Is(err, notary.ErrNoKey):
		return retry(undertonev1.Reason_REASON_NO_KEY, "this node has not the ledger's key")
	case errors.Is(err, replication.ErrUnknownNode):
		return New(undertonev1.Reason_REASON_UNKNOWN_NODE, "%s", plain(err))
	case errors.Is(err, replication.ErrMembership), errors.Is(err, replication.ErrOldMember):
		return status.Error(codes.FailedPrecondition, plain(err))
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "canceled")
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "deadline exceeded")
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Internal, "internal error: the server's log says more")
}

// plain is the text of an error of replication's, without the package's name.
func plain(err error) string {
	if _, text, ok := strings.Cut(err.Error(), "replication: "); ok {
		return text
	}
	return err.Error()
}

// electionPause is about how long it takes until there is a leader again.
const electionPause = 200 * time.Millisecond

func retry(reason undertonev1.Reason, detail string) *Error {
	return &Error{Reason: reason, Detail: detail, RetryAfter: electionPause}
}
