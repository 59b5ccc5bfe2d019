package server_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/proto/identity"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	rpc "github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
)

// participant is a client with a connection to every node.
type participant struct {
	name    string
	servers []rpc.ParticipantServiceClient
	rng     *rand.Rand
	number  int
	index   uint64 // the latest that it has seen
	ledger  *witness
}

func (c *cluster) participant(k int) *participant {
	c.t.Helper()
	p := &participant{name: fmt.Sprint("client-", k), number: k, rng: rand.New(rand.NewPCG(uint64(k), 7)), ledger: new(witness)}
	bearer, err := c.authority.Bearer(identity.Client, p.name)
	must(c.t, err)
	for i := range c.configs { // those to come too
		p.servers = append(p.servers, rpc.NewParticipantServiceClient(c.connect(i, bearer)))
	}
	return p
}

// errLedger says that a node showed a ledger that does not prove what it should.
var errLedger = errors.New("the ledger")

// work waits for a round that it has not taken part in, at any node. Fails with
// errLedger where the ledger does not go on from what was seen, or lacks the round.
func (p *participant) work(ctx context.Context, after *undertonev1.Work) (*undertonev1.Work, error) {
	req := &undertonev1.PollRequest{WaitMs: 1000}
	if after != nil {
		req.Known = []*undertonev1.Participation{{Job: after.Job, Round: after.Round, Attempt: after.Attempt}}
	}
	for {
		req.MinIndex, req.LedgerSize = p.index, uint64(p.ledger.last().Size)
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		resp, err := p.servers[p.rng.IntN(len(p.servers))].Poll(try, req)
		cancel()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		p.index = max(p.index, resp.Index)
		if err := p.ledger.sees(resp.Ledger); err != nil {
			return nil, fmt.Errorf("%w: %w", errLedger, err)
		}
		for _, w := range resp.Work {
			if err := p.ledger.reserved(w); err != nil {
				return nil, fmt.Errorf("%w: %w", errLedger, err)
			}
			if after == nil || w.Round != after.Round || w.Attempt != after.Attempt {
				return w, nil
			}
		}
	}
}

// fate of a contribution, as far as its client was told.
type fate int

const (
	absent  fate = iota
	unknown      // the attempt was over, and its members forgotten
	late         // not counted
	counted
)

// contribute sends a contribution until it is acknowledged, each time to
// another node, and then once more. Clients begin at different nodes, so that
// each node is some clients' first.
func (p *participant) contribute(ctx context.Context, w *undertonev1.Work, payload []byte) (fate, error) {
	req := &undertonev1.SubmitRequest{Payload: payload, Header: &undertonev1.SubmitHeader{
		Job: w.Job, Round: w.Round, Attempt: w.Attempt, StateDigest: w.StateDigest, MinIndex: p.index,
		Checksum: crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)),
	}}
	told := unknown
	first, again := p.number+int(w.Round), false
	for turn := first; ; turn++ {
		try, cancel := context.WithTimeout(ctx, time.Second)
		_, err := p.servers[turn%len(p.servers)].Submit(try, req, grpc.WaitForReady(turn == first))
		cancel()
		refused := refusalOf(err)
		switch reason := refused.GetReason(); {
		case ctx.Err() != nil:
			return told, ctx.Err()
		case err == nil, refused.GetCounted():
			if again {
				return counted, nil
			}
			told, again = counted, true
		case reason == undertonev1.Reason_REASON_NOT_OPEN, reason == undertonev1.Reason_REASON_ALREADY_RELEASED,
			reason == undertonev1.Reason_REASON_WRONG_ROUND:
			switch {
			case refused.Counted == nil:
				return told, nil
			case told == counted:
				return told, fmt.Errorf("counted, and then: %w", err)
			}
			return late, nil
		case reason == undertonev1.Reason_REASON_MALFORMED, reason == undertonev1.Reason_REASON_OUT_OF_RANGE:
			return told, err
		default:
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// attempt names one at a round.
type attempt struct{ round, attempt uint32 }

// crowd is clients that take part in a job until it is over.
type crowd struct {
	stop func()

	mu    sync.Mutex
	fates map[attempt][]fate // by client

	witnesses []*witness // the clients and an auditor, once they have stopped
}

// crowd sends clients to a job. stays says of which attempts a client stays
// away; nil: of none.
func (c *cluster) crowd(spec *rounds.Spec, clients int, stays func(client int, a attempt) bool) *crowd {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 3*time.Minute)
	var wg sync.WaitGroup
	auditor, leave := c.audit()
	crowd := &crowd{fates: map[attempt][]fate{}, witnesses: []*witness{auditor},
		stop: sync.OnceFunc(func() { cancel(); wg.Wait(); leave() })}
	c.t.Cleanup(crowd.stop)
	for k := range clients {
		p := c.participant(k)
		crowd.witnesses = append(crowd.witnesses, p.ledger)
		wg.Go(func() {
			var last *undertonev1.Work
			for {
				w, err := p.work(ctx, last)
				if errors.Is(err, errLedger) {
					c.t.Errorf("%s: %v", p.name, err)
				}
				if err != nil {
					return // the job is over
				}
				last = w
				a := attempt{w.Round, w.Attempt}
				if w.Job != spec.Job || stays != nil && stays(k, a) {
					continue
				}
				told, err := p.contribute(ctx, w, pack(spec, contribution(spec, k, int(w.Round))))
				if err != nil && ctx.Err() == nil {
					c.t.Errorf("%s: %+v: %v", p.name, a, err)
				}
				crowd.mu.Lock()
				if crowd.fates[a] == nil {
					crowd.fates[a] = make([]fate, clients)
				}
				crowd.fates[a][k] = told
				crowd.mu.Unlock()
			}
		})
	}
	return crowd
}

// counted is how many contributions were acknowledged, in all attempts.
func (w *crowd) counted() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, fates := range w.fates {
		for _, f := range fates {
			if f == counted {
				n++
			}
		}
	}
	return n
}

// keptPromises waits until every node shows the job finished, and holds that
// each round was released once, from at least n_min contributions (promises 1
// and 6); that every attempt was charged, and no more than the budget (2); that
// every sum is that of the contributions that were acknowledged, once each (3);
// that all nodes have the same state (4); and that the ledger, which they all have,
// tells just that to those who saw it grow.
func (c *cluster) keptPromises(spec *rounds.Spec, crowd *crowd) (job *undertonev1.Job) {
	t := c.t
	t.Helper()
	ctx := t.Context()
	for i := range c.nodes {
		if c.nodes[i] == nil {
			continue // it left
		}
		o := c.operator(i)
		var here *undertonev1.Job
		eventually(t, fmt.Sprintf("node-%d shows the job finished", i), func() bool {
			resp, err := o.GetJob(ctx, &undertonev1.GetJobRequest{Job: spec.Job})
			here = resp.GetJob()
			return err == nil && here.State == undertonev1.JobState_JOB_STATE_FINISHED
		})
		if job != nil && !proto.Equal(job, here) {
			t.Errorf("node-%d shows %v, another %v", i, here, job)
		}
		job = here
		version, state, err := c.fetch(i, &undertonev1.FetchStateRequest{Job: spec.Job, Latest: true})
		if digest := sha256.Sum256(state); err != nil || version != len(spec.Releases) || !bytes.Equal(digest[:], job.StateDigest) {
			t.Errorf("node-%d: version %d is not the released state: %v", i, version, err)
		}
		_, _, err = c.fetch(i, &undertonev1.FetchStateRequest{Job: spec.Job, Version: 1})
		if refusalOf(err).GetReason() != undertonev1.Reason_REASON_SUPERSEDED {
			t.Errorf("node-%d: an old state: %v", i, err)
		}
	}
	crowd.stop()

	var charged uint64
	next := uint32(1)
	for _, a := range job.Attempts {
		if charged += a.ChargeNanoRho; a.ChargeNanoRho != uint64(spec.Releases[a.Round-1].Charge) {
			t.Errorf("round %d attempt %d is charged %d nano-rho", a.Round, a.Attempt, a.ChargeNanoRho)
		}
		switch {
		case a.Round != next:
			t.Fatalf("round %d after %d: %v", a.Round, next-1, job.Attempts)
		case a.Phase == undertonev1.Phase_PHASE_RELEASED:
			next++
			if int(a.Members) < spec.NMin {
				t.Errorf("round %d: released with %d contributions", a.Round, a.Members)
			}
			if !explains(spec, a, crowd.fates[attempt{a.Round, a.Attempt}]) {
				t.Errorf("round %d: the sum of %d is not that of every acknowledged contribution once: %v",
					a.Round, a.Members, crowd.fates[attempt{a.Round, a.Attempt}])
			}
		case a.Phase != undertonev1.Phase_PHASE_FAILED:
			t.Errorf("round %d attempt %d: %v", a.Round, a.Attempt, a.Phase)
		}
	}
	if int(next) != len(spec.Releases)+1 {
		t.Errorf("%d rounds of %d were released", next-1, len(spec.Releases))
	}
	if job.SpentNanoRho != charged || charged > uint64(spec.Budget) {
		t.Errorf("%d nano-rho spent of %d, attempts were charged %d", job.SpentNanoRho, spec.Budget, charged)
	}
	c.agree()
	c.provesItself(job, crowd.witnesses...)
	return job
}

// explains reports whether an attempt's sum is that of the contributions that
// were counted and of some whose fate nobody was told.
func explains(spec *rounds.Spec, a *undertonev1.Attempt, fates []fate) bool {
	sum := make([]int64, spec.Releases[a.Round-1].Length)
	add := func(client int, sign int64) {
		for i, v := range contribution(spec, client, int(a.Round)) {
			sum[i] += sign * v
		}
	}
	more := int(a.Members)
	var maybe []int
	for k, f := range fates {
		switch f {
		case counted:
			add(k, 1)
			more--
		case unknown:
			maybe = append(maybe, k)
		}
	}
	var search func(from, more int) bool
	search = func(from, more int) bool {
		if more == 0 {
			digest := sha256.Sum256(pack(spec, sum))
			return bytes.Equal(digest[:], a.SumDigest)
		}
		for i := from; i+more <= len(maybe); i++ {
			add(maybe[i], 1)
			if search(i+1, more-1) {
				return true
			}
			add(maybe[i], -1)
		}
		return false
	}
	return more >= 0 && search(0, more)
}

// agree waits until all nodes have applied the same, and holds that their
// running hashes are equal.
func (c *cluster) agree() {
	c.t.Helper()
	var found []*undertonev1.Node
	alive := 0
	for _, n := range c.nodes {
		if n != nil {
			alive++
		}
	}
	eventually(c.t, "all nodes have applied the same", func() bool {
		resp, err := c.operator(c.leader()).GetCluster(c.t.Context(), &undertonev1.GetClusterRequest{})
		found = resp.GetNodes()
		for _, n := range found {
			if !n.Reachable || n.Applied != found[0].Applied {
				return false
			}
		}
		return err == nil && len(found) == alive
	})
	for _, n := range found {
		if n.Diverged || !bytes.Equal(n.Hash, found[0].Hash) {
			c.t.Errorf("at index %d %s has another state than %s", n.Applied, n.Name, found[0].Name)
		}
	}
}

// fetch reads a state from a node.
func (c *cluster) fetch(i int, req *undertonev1.FetchStateRequest) (version int, state []byte, err error) {
	c.t.Helper()
	stream, err := rpc.NewParticipantServiceClient(c.dial(i, identity.Client, "reader")).FetchState(c.t.Context(), req)
	if err != nil {
		return 0, nil, err
	}
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return version, state, nil
		}
		if err != nil {
			return 0, nil, err
		}
		if len(state) == 0 {
			version = int(part.Version)
		}
		state = append(state, part.Chunk...)
	}
}
