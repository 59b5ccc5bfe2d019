package faults

import (
	"context"
	"math/rand/v2"
	"syscall"
	"time"

	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/simulations/cluster"
)

// fault is one thing that goes wrong, for a while. What it did is undone after
// it returns.
type fault struct {
	name string
	do   func(context.Context, *run, *rand.Rand)
}

var faults = []fault{
	{"kill-leader", func(ctx context.Context, r *run, random *rand.Rand) {
		r.leader(ctx, random).Kill()
		lasting(ctx, random, time.Second)
	}},
	{"kill-any", func(ctx context.Context, r *run, random *rand.Rand) {
		r.any(random).Kill()
		lasting(ctx, random, 2*time.Second)
	}},
	{"kill-majority", func(ctx context.Context, r *run, random *rand.Rand) {
		first := random.IntN(nodes)
		for i := range nodes/2 + 1 {
			r.cluster.Nodes()[(first+i)%nodes].Kill()
		}
		lasting(ctx, random, time.Second)
	}},
	{"kill-all", func(ctx context.Context, r *run, random *rand.Rand) {
		for _, n := range r.cluster.Nodes() {
			n.Kill()
		}
	}},
	{"pause-leader", func(ctx context.Context, r *run, random *rand.Rand) {
		r.leader(ctx, random).Signal(syscall.SIGSTOP)
		lasting(ctx, random, 2*time.Second)
	}},
	{"pause-any", func(ctx context.Context, r *run, random *rand.Rand) {
		r.any(random).Signal(syscall.SIGSTOP)
		lasting(ctx, random, 2*time.Second)
	}},
	{"flutter", func(ctx context.Context, r *run, random *rand.Rand) {
		// Short pauses around the election timeout: the race that loses logs.
		n := r.leader(ctx, random)
		for range 5 {
			n.Signal(syscall.SIGSTOP)
			lasting(ctx, random, 600*time.Millisecond)
			n.Signal(syscall.SIGCONT)
			lasting(ctx, random, 200*time.Millisecond)
		}
	}},
	{"isolate-leader", func(ctx context.Context, r *run, random *rand.Rand) {
		r.cutOff(r.number(r.leader(ctx, random)), true, true)
		lasting(ctx, random, 3*time.Second)
		r.network.block(random.IntN(2) == 0)
	}},
	{"deafen-leader", func(ctx context.Context, r *run, random *rand.Rand) {
		r.cutOff(r.number(r.leader(ctx, random)), false, true)
		lasting(ctx, random, 3*time.Second)
		r.network.block(random.IntN(2) == 0)
	}},
	{"mute-leader", func(ctx context.Context, r *run, random *rand.Rand) {
		r.cutOff(r.number(r.leader(ctx, random)), true, false)
		lasting(ctx, random, 3*time.Second)
		r.network.block(random.IntN(2) == 0)
	}},
	{"isolate-any", func(ctx context.Context, r *run, random *rand.Rand) {
		r.cutOff(random.IntN(nodes), true, true)
		lasting(ctx, random, 3*time.Second)
		r.network.block(random.IntN(2) == 0)
	}},
	{"split-all", func(ctx context.Context, r *run, random *rand.Rand) {
		var pairs [][2]int
		for i := range nodes {
			for j := range nodes {
				if i != j {
					pairs = append(pairs, [2]int{i, j})
				}
			}
		}
		r.network.block(random.IntN(2) == 0, pairs...)
		lasting(ctx, random, 2*time.Second)
	}},
	{"rolling-restart", func(ctx context.Context, r *run, random *rand.Rand) {
		for _, n := range r.cluster.Nodes() {
			n.Signal(syscall.SIGTERM)
			select {
			case <-n.Exited():
			case <-time.After(10 * time.Second):
				r.history.violation("%s does not end on SIGTERM; its log has the stacks", n.Name)
				n.Signal(syscall.SIGQUIT)
				<-n.Exited()
			}
			if err := n.Start(); err != nil {
				r.history.violation("%s does not start: %v", n.Name, err)
			}
			ready, cancel := context.WithTimeout(ctx, 20*time.Second)
			if err := n.WaitReady(ready); err != nil && ctx.Err() == nil {
				r.history.violation("%v", err)
			}
			cancel()
		}
	}},
	{"replace", func(ctx context.Context, r *run, random *rand.Rand) {
		n := r.any(random)
		within, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		err := r.cluster.Replace(within, n)
		if err == nil {
			err = n.WaitReady(within) // with a vote
		}
		if err != nil && ctx.Err() == nil {
			r.history.violation("%s is not replaced: %v", n.Name, err)
		}
	}},
	{"transfer", func(ctx context.Context, r *run, random *rand.Rand) {
		call, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		r.cluster.Operate(call, func(o undertonev1grpc.OperatorServiceClient) error {
			_, err := o.TransferLeadership(call, &undertonev1.TransferLeadershipRequest{})
			return err
		})
	}},
	{"pause-all", func(ctx context.Context, r *run, random *rand.Rand) {
		for _, n := range r.cluster.Nodes() {
			n.Signal(syscall.SIGSTOP)
		}
		lasting(ctx, random, 2*time.Second)
		for _, i := range random.Perm(nodes) {
			r.cluster.Nodes()[i].Signal(syscall.SIGCONT)
			lasting(ctx, random, 300*time.Millisecond)
		}
	}},
}

// lasting waits for a random time up to most.
func lasting(ctx context.Context, random *rand.Rand, most time.Duration) {
	pause(ctx, time.Duration(random.Int64N(int64(most))))
}

func (r *run) any(random *rand.Rand) *cluster.Node { return r.cluster.Nodes()[random.IntN(nodes)] }

// leader is the node that leads, or any if none does soon.
func (r *run) leader(ctx context.Context, random *rand.Rand) *cluster.Node {
	other := r.any(random) // drawn in any case, so that the seed fixes what follows
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if n, err := r.cluster.Leader(ctx); err == nil {
		return n
	}
	return other
}

func (r *run) number(n *cluster.Node) int {
	for i, other := range r.cluster.Nodes() {
		if other == n {
			return i
		}
	}
	return 0
}

// cutOff holds back what a node says, hears, or both.
func (r *run) cutOff(node int, says, hears bool) {
	var pairs [][2]int
	for other := range nodes {
		if other != node && says {
			pairs = append(pairs, [2]int{node, other})
		}
		if other != node && hears {
			pairs = append(pairs, [2]int{other, node})
		}
	}
	r.network.block(false, pairs...)
}
