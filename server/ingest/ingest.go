// Package ingest takes contributions, adds them up, and commits the sums: one
// log entry for as many contributions as arrive while the entry before it is
// committed (group commit), so that the log's cost is shared by hundreds.
//
// # Promise
//
// A contribution is acknowledged once it is in the replicated sum, and is there
// exactly once. Membership in the attempt is the idempotency key: a Collect that
// names a client again is refused as a whole by every replica alike, and says
// whom it named. So a batch whose outcome is unknown is simply proposed again,
// and a client may retry through any server.
//
// # Trust central
//
// The server that receives a contribution adds the client's noise share, before
// the contribution is summed, and once: what waits here and is summed again has
// its noise already. A client that retries through another server gets fresh
// noise there, but the two sums both name the client, and the state machine
// admits one of them: a release never holds two differently noised copies of
// one contribution, nor a share twice. The copy that was refused stays inside
// the servers, which this mode trusts.
//
// # Policy
//
// Contributions are in memory only, until their batch is committed, and are
// never logged, traced or exported. Memory is bounded by a limit in bytes, of
// which one client has an eighth, or what one contribution takes; beyond it
// contributions are refused as overload, to be retried. A client has one upload
// to an attempt: the next one ends it.
package ingest

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/server/metrics"
	"github.com/undertone-fl/undertone/server/refusal"
)

// Node is the replica that contributions are committed through.
type Node interface {
	Propose(ctx context.Context, c rounds.Command) (index uint64, err error)
	StageBlob(ctx context.Context, job string, round, attempt int, b []byte) (rounds.Blob, error)
	View(func(m *rounds.Machine, index uint64))
	WaitIndex(ctx context.Context, index uint64) error
}

// Config of an Ingest.
type Config struct {
	Limit   int64 // bytes of contributions in memory
	Logger  *slog.Logger
	Metrics *metrics.Metrics
	Tracer  trace.Tracer
	// Patience is how long a batch is proposed again before its clients are told
	// to try later, beside what its size takes; 0: 10 seconds.
	Patience time.Duration
}

// Key names an attempt.
type Key struct {
	Job            string
	Round, Attempt int
}

// Header says whose contribution it is, and what it belongs to.
type Header struct {
	Key
	Client   rounds.ClientID
	State    rounds.Digest // that it was computed from
	Checksum uint32        // CRC-32C of the packed coordinates
	MinIndex uint64        // the state to check against is at least as new
}

// Receipt acknowledges a contribution that is in the replicated sum.
type Receipt struct {
	Index     uint64 // of the entry, or a later one
	Duplicate bool   // it was there already, or was waiting already
}

// Ingest takes contributions for all jobs. Its methods may be called by any
// goroutine.
type Ingest struct {
	node     Node
	config   Config
	inflight atomic.Int64

	ctx    context.Context // of what is committed; ends when Drain gives up
	cancel context.CancelFunc

	mu       sync.Mutex
	attempts map[Key]*attempt
	held     map[rounds.ClientID]int64 // bytes in memory, of those who have any
	draining bool
	runners  sync.WaitGroup
}

// New returns an Ingest that commits through a node.
func New(n Node, c Config) *Ingest {
	if c.Patience == 0 {
		c.Patience = 10 * time.Second
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Ingest{node: n, config: c, ctx: ctx, cancel: cancel, attempts: make(map[Key]*attempt), held: make(map[rounds.ClientID]int64)}
}

// Drain takes no more contributions, and returns once those that wait are
// committed or ctx is done, when it gives them up.
func (in *Ingest) Drain(ctx context.Context) {
	in.mu.Lock()
	in.draining = true
	in.mu.Unlock()
	stop := context.AfterFunc(ctx, in.cancel)
	defer stop()
	in.runners.Wait()
	in.cancel()
}

// Inflight is how many bytes of contributions are in memory.
func (in *Ingest) Inflight() int64 { return in.inflight.Load() }

// clientShare is what part of the memory one client's contributions may take,
// so that it takes that many to fill it. One contribution always may.
const clientShare = 8

// reserve accounts for n bytes more of a client's, or refuses them; least is what
// the client may have in any case.
func (in *Ingest) reserve(client rounds.ClientID, n, least int64) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	held := in.held[client] + n
	if held > max(in.config.Limit/clientShare, least) || in.inflight.Load()+n > in.config.Limit {
		e := refusal.New(undertonev1.Reason_REASON_OVERLOADED, "too much waits to be committed")
		e.RetryAfter = overloadPause
		return e
	}
	in.held[client] = held
	in.inflight.Add(n)
	in.config.Metrics.Inflight.Add(float64(n))
	return nil
}

// release is reserve's end. in.mu is held.
func (in *Ingest) release(client rounds.ClientID, n int64) {
	if in.held[client] -= n; in.held[client] <= 0 {
		delete(in.held, client)
	}
	in.inflight.Add(-n)
	in.config.Metrics.Inflight.Add(float64(-n))
}

const (
	// overloadPause is what clients are told to wait: some batches' time.
	overloadPause = 250 * time.Millisecond
	// catchUp is how long a submission waits for this node to see what the
	// client has seen of another.
	catchUp = 2 * time.Second
)
