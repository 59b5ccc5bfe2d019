package client_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client/internal/contract"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server/authority"
)

// service is the contract's, with the authority of its certificates.
type service struct {
	*contract.Service
	t         *testing.T
	authority *authority.Authority
}

func newService(t *testing.T, nodes int) *service {
	t.Helper()
	a, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	var bearers []*identity.Bearer
	for i := range nodes {
		b, err := a.Bearer(identity.Node, fmt.Sprintf("node-%d", i+1), "127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		bearers = append(bearers, b)
	}
	return &service{contract.New(t, bearers...), t, a}
}

// terms of the tests' jobs: one device is a round.
func terms(name string) jobs.Terms {
	return jobs.Terms{
		Job: name, Epsilon: 4, Delta: 1e-6, Adjacency: dp.ZeroOut, Trust: rounds.TrustDistributed,
		NMin: 1, RoundSize: 100, Deadline: time.Hour, Spare: 2,
	}
}

func parameters() jobs.Parameters {
	return jobs.Parameters{
		Config:   lowrank.Config{Dim: 6, Rank: 2, Features: lowrank.Standard, Update: lowrank.Gradient, Rounds: 2},
		Sparsity: 1,
	}
}
