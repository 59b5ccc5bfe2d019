package accounting_test

import (
	"testing"

	"github.com/undertone-fl/undertone/dp/accounting"
)

// crosscheck is testdata/crosscheck.json, see its "about".
type crosscheck struct {
	Sampled []struct {
		Q, Z, Delta float64
		Count       int
		PLD         float64 `json:"epsilon_pld"`
		RDP         float64 `json:"epsilon_rdp"`
	}
	Gaussian [][3]float64 // mu, epsilon, ln(delta)
}

func TestSampledCrosscheck(t *testing.T) {
	var c crosscheck
	load(t, "crosscheck.json", &c)
	var orders []float64
	for alpha := 2.0; alpha <= 128; alpha++ {
		orders = append(orders, alpha)
	}
	for _, row := range c.Sampled {
		e := sampled(row.Q, row.Z, row.Count)
		// Both grids are pessimistic; they agree to what is claimed of each.
		near(t, e.String()+" PLD", must(must(accounting.NewPLD(e)).Epsilon(row.Delta)), row.PLD, 1e-4)
		epsilon, _, err := must(accounting.RDP(e, orders...)).Epsilon(row.Delta)
		if err != nil {
			t.Fatal(err)
		}
		near(t, e.String()+" RDP", epsilon, row.RDP, 1e-9)
	}
}

// The tails, the seam at mu = 0.01 between two formulas, and extremes.
func TestGaussianCrosscheck(t *testing.T) {
	var c crosscheck
	load(t, "crosscheck.json", &c)
	for _, row := range c.Gaussian {
		near(t, "ln delta", accounting.LogGaussianDelta(row[0], row[1]), row[2], 1e-11)
	}
}
