package server_test

import (
	"context"
	"crypto/sha256"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	rpc "github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server/internal/solo"
)

// Promises 1 to 4: a job runs to its end while the leader is killed in the
// middle of every round and comes back. Every round's sum is that of each client
// once, though every client sends at least twice and to different servers.
func TestJobSurvivesKilledLeaders(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	const clients = 12
	c := startCluster(t, 3, nil)
	terms := solo.Terms("movies")
	terms.NMin, terms.RoundSize, terms.Deadline = 6, clients, time.Hour
	spec, raw := solo.Spec(t, solo.Parameters(), terms)
	follower := (c.leader() + 1) % 3
	_, err := c.operator(follower).CreateJob(t.Context(), &undertonev1.CreateJobRequest{Spec: raw})
	must(t, err)
	_, err = c.operator(follower).OpenJob(t.Context(), &undertonev1.OpenJobRequest{Job: spec.Job})
	must(t, err)

	var acknowledged atomic.Int64 // in all rounds
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for k := range clients {
		p := c.participant(k)
		wg.Go(func() {
			var last *undertonev1.Work
			for range spec.Releases {
				w, err := p.work(ctx, last)
				if err != nil {
					t.Errorf("%s: %v", p.name, err)
					return
				}
				if err := p.contribute(ctx, w, pack(spec, contribution(spec, k, int(w.Round)))); err != nil {
					t.Errorf("%s: round %d: %v", p.name, w.Round, err)
					return
				}
				acknowledged.Add(1)
				last = w
			}
		})
	}
	for round := range spec.Releases {
		eventually(t, "half of a round is in", func() bool { return acknowledged.Load() >= int64(round*clients+clients/2) || t.Failed() })
		leader := c.leader()
		c.nodes[leader].kill()
		c.start(leader)
		c.waitReady(leader)
	}
	wg.Wait()
	if t.Failed() {
		for i := range c.nodes {
			t.Logf("node-%d:\n%s", i, c.log(i))
		}
		return
	}

	var job *undertonev1.Job
	for i := range c.nodes { // every node comes to the same end
		eventually(t, "the job is finished", func() bool {
			resp, err := c.operator(i).GetJob(t.Context(), &undertonev1.GetJobRequest{Job: spec.Job})
			job = resp.GetJob()
			return err == nil && job.State == undertonev1.JobState_JOB_STATE_FINISHED
		})
	}
	var charged uint64
	for round := 1; round <= len(spec.Releases); round++ {
		a := job.Attempts[round-1]
		if len(job.Attempts) != len(spec.Releases) || a.Members != clients {
			t.Fatalf("attempts: %v", job.Attempts)
		}
		sum := make([]int64, spec.Releases[round-1].Length)
		for k := range clients {
			for i, v := range contribution(spec, k, round) {
				sum[i] += v
			}
		}
		if want := sha256.Sum256(pack(spec, sum)); !slices.Equal(a.SumDigest, want[:]) {
			t.Errorf("round %d: the sum is not that of every contribution once", round)
		}
		charged += a.ChargeNanoRho
	}
	if job.SpentNanoRho != charged {
		t.Errorf("%d nano-rho spent, and charged %d", job.SpentNanoRho, charged)
	}

	// Every node has the same last state, and says that the first is gone.
	for i := range c.nodes {
		s := rpc.NewParticipantServiceClient(c.dial(i, "client", "reader"))
		stream, err := s.FetchState(t.Context(), &undertonev1.FetchStateRequest{Job: spec.Job, Latest: true})
		must(t, err)
		first, err := stream.Recv()
		must(t, err)
		if digest := sha256.Sum256(first.Chunk); !slices.Equal(digest[:], job.StateDigest) || first.Version != uint32(len(spec.Releases)) {
			t.Errorf("node-%d: another state", i)
		}
		stream, err = s.FetchState(t.Context(), &undertonev1.FetchStateRequest{Job: spec.Job, Version: 1})
		must(t, err)
		if _, err := stream.Recv(); refusalOf(err).GetReason() != undertonev1.Reason_REASON_SUPERSEDED {
			t.Errorf("node-%d: an old state: %v", i, err)
		}
	}
}
