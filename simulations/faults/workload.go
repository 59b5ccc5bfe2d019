package faults

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
)

// attemptKey names an attempt of a round of a job.
type attemptKey struct {
	job            string
	round, attempt int
}

func (k attemptKey) String() string {
	return fmt.Sprintf("%s round %d attempt %d", k.job, k.round, k.attempt)
}

// contribution is what a client sends for an attempt: a function of the two, so
// that the checker knows every sum there can be.
func contribution(k attemptKey, client, length int) []int64 {
	h := sha256.Sum256([]byte(fmt.Sprintf("%v %d", k, client)))
	r := rand.New(rand.NewPCG(binary.LittleEndian.Uint64(h[:]), binary.LittleEndian.Uint64(h[8:])))
	out := make([]int64, length)
	for i := range out {
		out[i] = r.Int64N(1<<22) - 1<<21
	}
	return out
}

// scarce reports whether most clients stay away from an attempt, so that it
// fails.
func scarce(k attemptKey) bool {
	h := sha256.Sum256([]byte(k.String()))
	return h[0] < 6
}

// misbehaviour is how a client treats one attempt.
type misbehaviour int

const (
	honest    misbehaviour = iota // sends until it is told
	absent                        // takes no part
	late                          // waits until the round may be over
	twice                         // sends to two nodes at once
	impatient                     // hangs up before the answer, then sends again
	corrupt                       // flips a bit first
	behind                        // sends what it sent a round ago first
	misbehaviours
)

// client is one participant, which knows what each call of it was told.
type client struct {
	number int
	name   string
	nodes  []undertonev1grpc.ParticipantServiceClient
	specs  func(job string) *rounds.Spec
	log    *history
	random *rand.Rand

	index  uint64 // the highest it has seen
	ledger *witness
	known  map[attemptKey]bool
	last   *undertonev1.SubmitRequest
	ended  sync.WaitGroup
}

// reconnect soon: nodes come back.
var reconnect = grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second,
	Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond}})

// newClient connects to every node.
func newClient(number int, bearer *identity.Bearer, servers []string, seed uint64) (*client, func(), error) {
	c := &client{number: number, name: bearer.Identity().Name, known: map[attemptKey]bool{},
		random: rand.New(rand.NewPCG(seed, uint64(number)))}
	var conns []*grpc.ClientConn
	hangUp := func() {
		c.ended.Wait()
		for _, conn := range conns {
			conn.Close()
		}
	}
	for _, address := range servers {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(grpctls.Client(bearer)), reconnect)
		if err != nil {
			hangUp()
			return nil, nil, err
		}
		conns = append(conns, conn)
		c.nodes = append(c.nodes, undertonev1grpc.NewParticipantServiceClient(conn))
	}
	return c, hangUp, nil
}

func (c *client) node() undertonev1grpc.ParticipantServiceClient {
	return c.nodes[c.random.IntN(len(c.nodes))]
}

// run takes part in what is open until ctx is done.
func (c *client) run(ctx context.Context) {
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, time.Second)
		r, err := c.node().Poll(call, &undertonev1.PollRequest{MinIndex: c.index, WaitMs: 200, LedgerSize: uint64(c.ledger.last().Size)})
		cancel()
		if err != nil {
			pause(ctx, 20*time.Millisecond)
			continue
		}
		if r.Index < c.index {
			c.log.violation("client %d was shown index %d after %d", c.number, r.Index, c.index)
		}
		c.index = max(c.index, r.Index)
		c.ledger.sees(r.Ledger)
		for _, w := range r.Work {
			k := attemptKey{w.Job, int(w.Round), int(w.Attempt)}
			c.log.sawOpen(k, w.StateDigest)
			c.ledger.reserved(w)
			if spec := c.specs(w.Job); spec != nil && !c.known[k] {
				c.known[k] = true
				c.takePart(ctx, k, w, spec)
			}
		}
		pause(ctx, 5*time.Millisecond)
	}
}

// takePart contributes to one attempt, in one way or another.
func (c *client) takePart(ctx context.Context, k attemptKey, w *undertonev1.Work, spec *rounds.Spec) {
	payload := aggregation.Pack(nil, contribution(k, c.number, spec.Releases[k.round-1].Length), int(spec.Lattice.ModulusBits/8))
	request := &undertonev1.SubmitRequest{Payload: payload, Header: &undertonev1.SubmitHeader{
		Job: k.job, Round: w.Round, Attempt: w.Attempt, StateDigest: w.StateDigest, MinIndex: c.index,
		Checksum: crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli))}}
	way := honest
	if c.random.IntN(3) == 0 {
		way = misbehaviour(c.random.IntN(int(misbehaviours)))
	}
	if scarce(k) && c.number > 0 {
		way = absent
	}
	switch way {
	case absent:
		return
	case late:
		pause(ctx, time.Duration(c.random.Int64N(int64(2*time.Second))))
	case twice:
		other := c.node()
		c.ended.Go(func() { c.submit(ctx, other, k, request, time.Second) })
	case impatient:
		c.submit(ctx, c.node(), k, request, time.Duration(c.random.Int64N(int64(5*time.Millisecond))))
	case corrupt:
		damaged := append([]byte(nil), payload...)
		damaged[c.random.IntN(len(damaged))] ^= 1 << c.random.IntN(8)
		call, cancel := context.WithTimeout(ctx, time.Second)
		if _, err := c.node().Submit(call, &undertonev1.SubmitRequest{Header: request.Header, Payload: damaged}); err == nil {
			c.log.violation("%v: a corrupted contribution of client %d was acknowledged", k, c.number)
		}
		cancel()
	case behind:
		if c.last != nil {
			call, cancel := context.WithTimeout(ctx, time.Second)
			c.node().Submit(call, c.last)
			cancel()
		}
	}
	for ctx.Err() == nil {
		if c.submit(ctx, c.node(), k, request, time.Second) {
			break
		}
		pause(ctx, time.Duration(5+c.random.IntN(20))*time.Millisecond)
	}
	if c.log.acknowledged(k, c.number) {
		c.last = request
	}
}

// submit sends once, and reports whether the answer settles the matter.
func (c *client) submit(ctx context.Context, node undertonev1grpc.ParticipantServiceClient, k attemptKey, r *undertonev1.SubmitRequest, patience time.Duration) bool {
	call, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	done := c.log.begin(k, c.number)
	response, err := node.Submit(call, r)
	if err == nil {
		done(answer{kind: counted, duplicate: response.Duplicate})
		return true
	}
	switch refusal := refusalOf(err); {
	case refusal == nil:
		done(answer{kind: unknown})
		return false
	case refusal.Reason == undertonev1.Reason_REASON_NOT_OPEN, refusal.Reason == undertonev1.Reason_REASON_ALREADY_RELEASED,
		refusal.Reason == undertonev1.Reason_REASON_WRONG_ROUND:
		if refusal.Counted == nil {
			done(answer{kind: refused})
		} else {
			done(answer{kind: refused, told: true, in: *refusal.Counted})
		}
		return true
	default: // no leader, behind, overloaded, or what hides the outcome
		done(answer{kind: unknown})
		return status.Code(err) == codes.InvalidArgument || status.Code(err) == codes.PermissionDenied
	}
}

func refusalOf(err error) *undertonev1.Refusal {
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*undertonev1.Refusal); ok {
			return r
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
