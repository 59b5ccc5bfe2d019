package solo

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp"
)

// Terms are those of a job with small rounds.
func Terms(job string) jobs.Terms {
	return jobs.Terms{
		Job: job, Epsilon: 8, Delta: 1e-6, Adjacency: dp.ZeroOut, Trust: rounds.TrustDistributed,
		NMin: 2, RoundSize: 4, Deadline: time.Hour,
	}
}

// Parameters of a small model of a few rounds.
func Parameters() jobs.Parameters {
	return jobs.Parameters{
		Config:   lowrank.Config{Dim: 10, Rank: 2, Rounds: 2, Features: lowrank.Unscaled, Update: lowrank.Gradient},
		Sparsity: 1,
	}
}

// Spec makes a specification, and the bytes that it is created from.
func Spec(t testing.TB, p jobs.Parameters, terms jobs.Terms) (*rounds.Spec, []byte) {
	t.Helper()
	made, err := jobs.New(p, terms)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(made)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := rounds.ParseSpec(raw)
	if err != nil {
		t.Fatal(err)
	}
	return spec, raw
}

// Create makes a job on the node and lets it run.
func (n *Node) Create(t testing.TB, p jobs.Parameters, terms jobs.Terms) *rounds.Spec {
	t.Helper()
	spec, raw := Spec(t, p, terms)
	n.CreateFrom(t, spec, raw)
	return spec
}

// CreateFrom is Create for a specification that is there: making one takes
// most of the time.
func (n *Node) CreateFrom(t testing.TB, spec *rounds.Spec, raw []byte) {
	t.Helper()
	state, err := jobs.Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	n.Do(t, rounds.CreateJob{Spec: raw, State: rounds.BlobOf(state)})
	n.Do(t, rounds.Run{Job: spec.Job})
}

// Do applies a command that is not to be refused.
func (n *Node) Do(t testing.TB, c rounds.Command) {
	t.Helper()
	if _, err := n.apply(c); err != nil {
		t.Fatalf("%+v: %v", c, err)
	}
}

// Latest returns the digest of a job's latest state.
func (n *Node) Latest(job string) (d rounds.Digest) {
	n.View(func(m *rounds.Machine, _ uint64) {
		v, _ := m.Job(job)
		d = v.Latest.Digest
	})
	return d
}
