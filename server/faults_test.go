package server_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/proto/identity"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	rpc "github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server/internal/solo"
)

// Promises 1 to 4: while rounds are half collected a node and a learner join,
// a follower and then the leader leave, and a node that died for good is replaced
// by another one. In the end, of the first three nodes none is left.
func TestMembershipChangesInTheMiddleOfARound(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	const clients = 6
	c := startCluster(t, 3, nil)
	joining, learner, replacement := c.place(), c.place(), c.place()
	c.configs[learner].Learner = true
	for _, i := range []int{joining, learner, replacement} {
		for k := range i {
			c.configs[i].Peers = append(c.configs[i].Peers, c.configs[k].Node)
		}
	}
	terms := solo.Terms("movies")
	terms.NMin, terms.RoundSize, terms.Deadline = clients, clients, time.Hour
	spec, raw := solo.Spec(t, solo.Parameters(), terms)
	ctx := t.Context()
	_, err := c.operator(0).CreateJob(ctx, &undertonev1.CreateJobRequest{Spec: raw})
	must(t, err)
	_, err = c.operator(0).OpenJob(ctx, &undertonev1.OpenJobRequest{Job: spec.Job})
	must(t, err)

	// Half of the clients wait in each round, until its change is made.
	changed := make([]chan struct{}, len(spec.Releases)+1)
	for i := range changed {
		changed[i] = make(chan struct{})
	}
	crowd := c.crowd(spec, clients, func(client int, a attempt) bool {
		if client < clients/2 {
			select {
			case <-changed[a.round]:
			case <-ctx.Done():
			}
		}
		return false
	})
	leave := func(i, asked int) {
		t.Helper()
		o := c.operator(asked)
		c.insist(func(ctx context.Context, _ int) error {
			_, err := o.RemoveNode(ctx, &undertonev1.RemoveNodeRequest{Node: c.name(i)})
			if refusalOf(err).GetReason() == undertonev1.Reason_REASON_UNKNOWN_NODE {
				return nil // the answer was lost, not the command
			}
			return err
		})
		if c.nodes[i] != nil {
			c.nodes[i].kill()
			c.nodes[i] = nil
		}
	}
	join := func(i int) {
		t.Helper()
		c.start(i)
		c.waitReady(i)
	}
	for round, change := range []func(){
		func() { join(joining); join(learner) },
		func() {
			c.lead(0)
			leave(1, 0)
			c.lead(0)
			leave(0, 0)
			o := c.operator(joining)
			c.insist(func(ctx context.Context, _ int) error {
				_, err := o.PromoteNode(ctx, &undertonev1.PromoteNodeRequest{Node: c.name(learner)})
				return err
			})
		},
		func() {
			c.nodes[2].kill()
			leave(2, learner)
			join(replacement)
		},
	} {
		eventually(t, "half of a round is in", func() bool { return crowd.counted() >= round*clients+clients/2 })
		change()
		close(changed[round+1])
	}
	for _, c := range changed[4:] {
		close(c)
	}
	c.keptPromises(spec, crowd)
	resp, err := c.operator(replacement).GetCluster(ctx, &undertonev1.GetClusterRequest{})
	must(t, err)
	voters := map[string]bool{}
	for _, n := range resp.Nodes {
		voters[n.Name] = n.Voter
	}
	if len(voters) != 3 || !voters[c.name(joining)] || !voters[c.name(learner)] || !voters[c.name(replacement)] {
		t.Errorf("the cluster is %v", resp.Nodes)
	}
}

// Promise 2: as long as the budget pays for another attempt, two operators open
// it at once through two servers. Each time one of them does, and the other is
// told that it is open; in the end both are told that there is no budget.
func TestLastAffordableRoundIsOpenedOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	c := startCluster(t, 3, nil)
	ctx := t.Context()
	operators := []rpc.OperatorServiceClient{
		rpc.NewOperatorServiceClient(c.dial(0, identity.Operator, "ada")),
		rpc.NewOperatorServiceClient(c.dial(1, identity.Operator, "bob")),
	}
	// Nothing is to spare: after an attempt that failed, the driver opens none.
	parameters := solo.Parameters()
	parameters.Rounds = 1
	spec, raw := solo.Spec(t, parameters, solo.Terms("movies"))
	_, err := operators[0].CreateJob(ctx, &undertonev1.CreateJobRequest{Spec: raw})
	must(t, err)
	_, err = operators[0].OpenJob(ctx, &undertonev1.OpenJobRequest{Job: spec.Job})
	must(t, err)
	charge := uint64(spec.Releases[0].Charge)
	for attempt := uint32(1); ; attempt++ {
		if attempt > 1 {
			told := make([]undertonev1.Reason, len(operators))
			var unknown atomic.Bool // a leader was lost, and what it was asked may have been done
			var group sync.WaitGroup
			for i, o := range operators {
				group.Go(func() {
					for {
						_, err := o.OpenRound(ctx, &undertonev1.OpenRoundRequest{Job: spec.Job, Round: 1, Attempt: attempt})
						if told[i] = refusalOf(err).GetReason(); told[i] != undertonev1.Reason_REASON_NO_LEADER {
							if err != nil && told[i] == 0 {
								t.Errorf("attempt %d: %v", attempt, err)
							}
							return
						}
						unknown.Store(true)
					}
				})
			}
			group.Wait()
			slices.Sort(told)
			want := []undertonev1.Reason{0, undertonev1.Reason_REASON_ALREADY_OPEN}
			if unknown.Load() && told[0] != 0 {
				want[0] = undertonev1.Reason_REASON_ALREADY_OPEN
			}
			if uint64(attempt)*charge > uint64(spec.Budget) {
				want = []undertonev1.Reason{undertonev1.Reason_REASON_NO_BUDGET, undertonev1.Reason_REASON_NO_BUDGET}
			}
			if !slices.Equal(told, want) {
				t.Fatalf("attempt %d: %v, want %v", attempt, told, want)
			}
			if told[0] == undertonev1.Reason_REASON_NO_BUDGET {
				t.Logf("%d attempts", attempt-1)
				break
			}
		}
		eventually(t, "the attempt has failed", func() bool { // the first, once the driver has opened it
			_, _ = operators[0].CloseRound(ctx, &undertonev1.CloseRoundRequest{Job: spec.Job, Round: 1, Attempt: attempt})
			resp, err := operators[0].GetJob(ctx, &undertonev1.GetJobRequest{Job: spec.Job})
			attempts := resp.GetJob().GetAttempts()
			return err == nil && len(attempts) == int(attempt) && attempts[attempt-1].Phase == undertonev1.Phase_PHASE_FAILED
		})
	}
	for i := range c.nodes {
		o := c.operator(i)
		eventually(t, "every node has seen all of it", func() bool {
			resp, err := o.GetJob(ctx, &undertonev1.GetJobRequest{Job: spec.Job})
			job := resp.GetJob()
			return err == nil && job.State == undertonev1.JobState_JOB_STATE_EXHAUSTED &&
				job.SpentNanoRho == uint64(len(job.Attempts))*charge && job.SpentNanoRho <= uint64(spec.Budget)
		})
	}
	c.agree()
}
