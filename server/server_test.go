package server_test

import (
	"testing"
	"time"

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
