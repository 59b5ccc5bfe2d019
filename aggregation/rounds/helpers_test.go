package rounds_test

import (
	"encoding/json"
	"flag"
	"testing"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/noise"
)

// Properties are checked on the same inputs in every run; -rapid.seed=0 draws
// others.
func init() {
	for name, value := range map[string]string{"rapid.seed": "1", "rapid.steps": "100"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
}

// newSpec returns a small job: every release has length coordinates and costs
// charge, and two bytes hold a coordinate.
func newSpec(job string, releases, length int, charge, budget accounting.NanoRho) *rounds.Spec {
	s := &rounds.Spec{
		Job:        job,
		Method:     "adding",
		Parameters: json.RawMessage("{}"),
		Lattice:    dp.Lattice{ScaleBits: 4, ModulusBits: 16},
		Trust:      rounds.TrustDistributed,
		NMin:       2,
		RoundSize:  4,
		Deadline:   1000,
		Delta:      1e-6,
		Budget:     budget,
	}
	for range releases {
		s.Releases = append(s.Releases, rounds.Release{
			Kind: "sum", Length: length, Bound: 100, Sigma: noise.MinSigma, Largest: 1000, Charge: charge,
		})
	}
	return s
}

func encode(t interface{ Fatal(...any) }, s *rounds.Spec) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func pack(s *rounds.Spec, sum ...int64) rounds.Blob {
	return rounds.BlobOf(aggregation.Pack(nil, sum, s.Width()))
}

// apply applies a command that must not be refused.
func apply(t testing.TB, m *rounds.Machine, c rounds.Command) {
	t.Helper()
	if _, err := m.Apply(c); err != nil {
		t.Fatalf("%+v: %v", c, err)
	}
}
