package faults

import (
	"testing"
	"time"

	"github.com/undertone-fl/undertone/simulations/cluster/clustertest"
)

func TestMain(m *testing.M) { clustertest.Main(m) }

// Promises 1 to 4, 6 and 7, under every fault there is.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	r, err := Run(t.Context(), Config{Seed: 1, Rounds: 20, Limit: 5 * time.Minute, Clients: 8, Dir: dir,
		Command: clustertest.Command()})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range r.Violations {
		t.Error(v)
	}
	if len(r.Faults) != len(faults) || r.Acknowledged == 0 {
		t.Errorf("%+v: it shows little", r)
	}
	t.Logf("%+v", r)
}
