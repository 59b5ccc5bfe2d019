package accounting_test

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/undertone-fl/undertone/dp/accounting"
)

// golden is testdata/golden.json, see its "about".
type golden struct {
	GaussianDelta []struct {
		Sigma, Sensitivity  float64
		Adjacency           string
		Epsilon, Delta, Tol float64
	} `json:"gaussian_delta"`
	Composition struct {
		Delta      float64
		Rows       [][5]float64 // rounds, noise multiplier, epsilon by GDP, RDP, simple zCDP
		ReplaceOne struct {
			Rounds          int
			NoiseMultiplier float64 `json:"noise_multiplier"`
			Epsilon         float64 `json:"epsilon_exact_gdp"`
		} `json:"replace_one_example"`
		Calibrated [][2]float64 `json:"calibrated_noise_multiplier_20_rounds"` // epsilon, noise multiplier
	} `json:"gaussian_composition_computed"`
}

func load(t testing.TB, file string, into any) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + file)
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// near fails t unless |got - want| <= tol |want|.
func near(t testing.TB, what string, got, want, tol float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tol*math.Abs(want)) {
		t.Errorf("%s: got %.12g, want %.12g within %g of it", what, got, want, tol)
	}
}

// must returns a value whose error is a mistake of the test.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// factor of the sensitivity under an adjacency of the golden file.
var factor = map[string]float64{"add_remove": 1, "replace_one": 2}

func TestGaussianDeltaGolden(t *testing.T) {
	var g golden
	load(t, "golden.json", &g)
	for _, c := range g.GaussianDelta {
		mu := factor[c.Adjacency] * c.Sensitivity / c.Sigma
		near(t, "delta", accounting.GaussianDelta(mu, c.Epsilon), c.Delta, c.Tol)
	}
}

func TestGaussianCompositionGolden(t *testing.T) {
	var g golden
	load(t, "golden.json", &g)
	delta := g.Composition.Delta
	for _, row := range g.Composition.Rows {
		e := accounting.Repeated{Event: accounting.Gaussian{NoiseMultiplier: row[1]}, Count: int(row[0])}
		rho := must(accounting.ZCDP(e))
		near(t, "GDP", accounting.GaussianEpsilon(must(accounting.GDP(e)), delta), row[2], 1e-9)
		near(t, "GDP of rho", must(rho.GaussianEpsilon(delta)), row[2], 1e-9)
		near(t, "tight zCDP", must(rho.Epsilon(delta)), row[3], 1e-9)
		near(t, "simple zCDP", must(rho.SimpleEpsilon(delta)), row[4], 1e-9)
	}
	r := g.Composition.ReplaceOne
	e := must(accounting.Scale(accounting.Repeated{
		Event: accounting.Gaussian{NoiseMultiplier: r.NoiseMultiplier}, Count: r.Rounds}, 2))
	near(t, "replace-one", accounting.GaussianEpsilon(must(accounting.GDP(e)), delta), r.Epsilon, 1e-6)
	for _, c := range g.Composition.Calibrated {
		near(t, "noise multiplier", must(accounting.CalibrateGaussian(c[0], delta, 20)), c[1], 1e-6)
	}
}
