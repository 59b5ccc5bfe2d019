package simulations

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/undertone-fl/undertone/simulations/population"
)

// TestRealData holds the README's figures on real data, one seed each, with
// room for the spread between splits.
func TestRealData(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		csv     population.CSV
		metric  string
		epsilon float64
		lo, hi  float64
	}{
		{population.CSV{Path: "jester5k.csv.gz", Format: "ratings", Train: 20}, RMSE, inf, 4.1, 4.26},
		{population.CSV{Path: "jester5k.csv.gz", Format: "ratings", Train: 20}, RMSE, 4, 4.1, 4.32},
		{population.CSV{Path: "jester5k.csv.gz", Format: "ratings", Train: 20}, RMSE, 2, 4.1, 4.38},
		{population.CSV{Path: "school.csv.gz", Format: "features", Train: 0.75}, ExplainedVariance, inf, 0.34, 0.42},
	} {
		c.csv.Path = filepath.Join(os.Getenv("UNDERTONE_DATA"), c.csv.Path)
		if _, err := os.Stat(c.csv.Path); err != nil {
			t.Skipf("NOT TESTED on real data: no %s (set UNDERTONE_DATA to its folder)", c.csv.Path)
		}
		cfg := DataConfig(c.csv)
		cfg.Delta, cfg.Seeds = 1e-5, 1
		cfg.Methods, cfg.Epsilons = []string{AMHTLRS}, []Epsilon{Epsilon(c.epsilon)}
		if got := mean(t, simulate(t, cfg, Options{}), AMHTLRS, c.metric, c.epsilon); !(got >= c.lo && got <= c.hi) {
			t.Errorf("%s at epsilon %v: %s %v, want %v to %v", c.csv.Path, c.epsilon, c.metric, got, c.lo, c.hi)
		}
	}
}
