package ledger_test

import (
	"math"
	"testing"

	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/dp/noise"
	"pgregory.net/rapid"
)

// On a fine lattice a cost is that of one Gaussian, to the last nano-rho.
func TestCostOfFineNoise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.IntRange(1, 1<<24).Draw(t, "parts")
		m := ledger.Mechanism{
			Length:    rapid.IntRange(1, 1<<24).Draw(t, "length"),
			Clip:      rapid.Uint64Range(1<<20, 1<<40).Draw(t, "clip"),
			Sigma:     rapid.Uint64Range(20<<20, 1<<50).Draw(t, "sigma"), // 20 lattice units and more
			Adjacency: rapid.SampledFrom([]dp.Adjacency{dp.ZeroOut, dp.ReplaceOne}).Draw(t, "adjacency"),
		}
		z := math.Sqrt(float64(parts)) * math.Ldexp(float64(m.Sigma), -20) / float64(m.Clip)
		want, err := accounting.GaussianCharge(z, m.Adjacency.SensitivityFactor())
		got, ok := m.Cost(parts)
		if err != nil {
			if ok && got < math.MaxUint64/2 {
				t.Fatalf("costs %v, which the accountant cannot count: %v", got, err)
			}
			return
		}
		// z is a float: 1e-15, twice.
		if slack := 1 + 1e-14*float64(want); !ok || math.Abs(float64(got)-float64(want)) > slack {
			t.Fatalf("costs %v, and the accountant says %v", got, want)
		}
	})
}

// On a coarse lattice the distance of the sum of shares from one discrete Gaussian is
// part of the cost: as Share states it, which is by other arithmetic, or a little more.
func TestCostOfCoarseNoise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 1 << 20
		parts := rapid.IntRange(2, 1<<22).Draw(t, "parts")
		total := noise.Sigma(math.Ceil(math.Sqrt(float64(parts)) * rapid.Float64Range(2, 3).Draw(t, "share") * (1 << 20)))
		local, closeness, err := noise.Share(total, parts)
		if err != nil {
			t.Fatal(err)
		}
		m := ledger.Mechanism{
			Length: rapid.IntRange(1, 1<<24).Draw(t, "length"),
			Clip:   rapid.Uint64Range(1, most).Draw(t, "clip"),
			Sigma:  uint64(local),
		}
		root := float64(m.Clip)/math.Sqrt(float64(parts))/local.Float64() + closeness*math.Sqrt(float64(m.Length))
		least := root * root / 2 * 1e9
		loose := float64(m.Clip)/math.Sqrt(float64(parts))/local.Float64() + 3*closeness*math.Sqrt(float64(m.Length))
		largest := loose*loose/2*1e9*(1+1e-12) + 1
		if got, ok := m.Cost(parts); !ok || float64(got) < least*(1-1e-12) || float64(got) > largest {
			t.Fatalf("costs %v, want %v to %v", got, least, largest)
		}
	})
}

// At half a lattice unit the distance is most of the cost.
func TestCostOfTheCoarsestNoise(t *testing.T) {
	m := ledger.Mechanism{Length: 100, Clip: 1, Sigma: 1 << 19}
	// 10 exp(-2 pi^2 / 4 / 2) for two, and 1 / (sqrt(2) / 2).
	root := math.Sqrt2 + 10*10*math.Exp(-math.Pi*math.Pi/4)
	want := root * root / 2 * 1e9
	got, ok := m.Cost(2)
	if !ok || float64(got) < want || float64(got) > 4*want {
		t.Errorf("costs %v, want %v and at most four times that", got, want)
	}
	// Alone, there is no sum to be close to anything.
	if got, ok := m.Cost(1); !ok || got != 2e9 {
		t.Errorf("one alone costs %v, want 2 rho", got)
	}
	m.Clip = 1 << 52
	if got, ok := m.Cost(1); ok {
		t.Errorf("%v is counted, of 2^105 rho", got)
	}
}
