package server_test

import (
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
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

	crowd := c.crowd(spec, clients, nil)
	for round := range spec.Releases {
		eventually(t, "half of a round is in", func() bool { return crowd.counted() >= round*clients+clients/2 })
		leader := c.leader()
		c.nodes[leader].kill()
		c.start(leader)
		c.waitReady(leader)
	}
	job := c.keptPromises(spec, crowd)
	if len(job.Attempts) != len(spec.Releases) {
		t.Errorf("attempts: %v", job.Attempts)
	}
	for _, a := range job.Attempts {
		if a.Members != clients {
			t.Errorf("round %d: %d contributions of %d", a.Round, a.Members, clients)
		}
	}
}

// A node that was just started answers an operator with what is now, or that it
// cannot: never that a job which there is were unknown.
func TestStartedNodeKnowsEveryJob(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	c := startCluster(t, 3, nil)
	spec, raw := solo.Spec(t, solo.Parameters(), solo.Terms("movies"))
	_, err := c.operator(0).CreateJob(t.Context(), &undertonev1.CreateJobRequest{Spec: raw})
	must(t, err)
	c.nodes[1].kill()
	// It cannot hear what is committed while the others stand still.
	for _, other := range []int{0, 2} {
		must(t, c.nodes[other].cmd.Process.Signal(syscall.SIGSTOP))
	}
	c.start(1)
	ask := func() (*undertonev1.Job, error) {
		r, err := c.operator(1).GetJob(t.Context(), &undertonev1.GetJobRequest{Job: spec.Job})
		return r.GetJob(), err
	}
	eventually(t, "the node answers", func() bool {
		_, err := ask()
		if code := status.Code(err); err == nil || code == codes.NotFound {
			t.Fatalf("out of touch it says: %v", err)
		}
		return refusalOf(err) != nil
	})
	for _, other := range []int{0, 2} {
		must(t, c.nodes[other].cmd.Process.Signal(syscall.SIGCONT))
	}
	eventually(t, "the node shows the job", func() bool {
		_, err := ask()
		if status.Code(err) == codes.NotFound {
			t.Fatal(err)
		}
		return err == nil
	})
}
