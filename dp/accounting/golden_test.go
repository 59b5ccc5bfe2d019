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
	PoissonDelta []struct {
		Q, Sigma, Sensitivity float64
		Direction             string
		Epsilon, Delta, Tol   float64
	} `json:"poisson_gaussian_delta"`
	DiscreteDelta []struct {
		Sigma               float64
		Sensitivity         int
		TruncatedAt         int `json:"truncated_at"`
		Epsilon, Delta, Tol float64
	} `json:"discrete_gaussian_delta"`
	ComposedDelta []struct {
		Count             int
		Sigma, Q, Epsilon float64
		Delta             float64
		Tol               float64 `json:"abs_tol"`
	} `json:"composed_delta"`
	CalibratedSigma []struct {
		Count                                 int
		Q, Sensitivity, Epsilon, Delta, Sigma float64
		Tol                                   float64
	} `json:"calibrated_sigma"`
	PoissonRDP []struct{ Alpha, RDP, Tol, Exact float64 } `json:"poisson_gaussian_rdp_50_steps_q0.01_z2.5"`
	RDPEpsilon []struct {
		Delta, Epsilon, Tol float64
		Exact               float64 `json:"exact_epsilon"`
		Alpha               float64 `json:"at_alpha"`
	} `json:"rdp_to_epsilon"`
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
func near(t interface{ Errorf(string, ...any) }, what string, got, want, tol float64) {
	if h, ok := t.(interface{ Helper() }); ok {
		h.Helper()
	}
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

func TestPoissonGaussianGolden(t *testing.T) {
	var g golden
	load(t, "golden.json", &g)
	for _, c := range g.PoissonDelta {
		p := must(accounting.NewPLD(sampled(c.Q, c.Sigma/c.Sensitivity, 1)))
		remove, add := p.Directions(c.Epsilon)
		got := map[string]float64{"remove": remove, "add": add}[c.Direction]
		near(t, c.Direction, got, c.Delta, c.Tol)
	}
}

func TestDiscreteGaussianGolden(t *testing.T) {
	var g golden
	load(t, "golden.json", &g)
	for _, c := range g.DiscreteDelta {
		p := must(accounting.NewPLD(accounting.DiscreteGaussianScalar{
			Sigma: c.Sigma, Sensitivity: c.Sensitivity, Truncation: c.TruncatedAt}))
		near(t, "delta", must(p.Delta(c.Epsilon)), c.Delta, c.Tol)
	}
}

func TestComposedDeltaGolden(t *testing.T) {
	var g golden
	load(t, "golden.json", &g)
	for _, c := range g.ComposedDelta {
		p := must(accounting.NewPLD(sampled(c.Q, c.Sigma, c.Count)))
		if got := must(p.Delta(c.Epsilon)); math.Abs(got-c.Delta) > c.Tol {
			t.Errorf("delta %v, want %v", got, c.Delta)
		}
	}
}

func TestCalibratedSigmaGolden(t *testing.T) {
	var g golden
	load(t, "golden.json", &g)
	for _, c := range g.CalibratedSigma {
		z := must(accounting.CalibrateSampled(c.Epsilon, c.Delta, c.Count, c.Q))
		near(t, "sigma", z*c.Sensitivity, c.Sigma, c.Tol)
	}
}

// dp_accounting drops the signs of the binomial coefficients of fractional
// orders and so reports an upper bound there. "exact" is the integral, by
// mpmath's quadrature with 40 digits.
func TestPoissonRDPGolden(t *testing.T) {
	var g golden
	load(t, "golden.json", &g)
	for _, c := range g.PoissonRDP {
		got := must(accounting.RDP(sampled(0.01, 2.5, 50), c.Alpha)).Divergence[0]
		if c.Exact == 0 {
			near(t, "RDP", got, c.RDP, c.Tol)
			continue
		}
		near(t, "RDP", got, c.Exact, 1e-10)
		if got > c.RDP {
			t.Errorf("order %v: RDP %v above the bound %v", c.Alpha, got, c.RDP)
		}
	}
}

func TestRDPToEpsilonGolden(t *testing.T) {
	var g golden
	load(t, "golden.json", &g)
	gaussian := accounting.Gaussian{NoiseMultiplier: 4.530877117}
	c := g.RDPEpsilon[0]
	near(t, "tight RDP", must(must(accounting.ZCDP(gaussian)).Epsilon(c.Delta)), c.Epsilon, c.Tol)
	near(t, "exact", accounting.GaussianEpsilon(must(accounting.GDP(gaussian)), c.Delta), c.Exact, c.Tol)

	var constant accounting.RDPCurve
	for alpha := 2.0; alpha <= 32; alpha++ {
		constant.Orders = append(constant.Orders, alpha)
		constant.Divergence = append(constant.Divergence, 1.1)
	}
	c = g.RDPEpsilon[1]
	epsilon, alpha, err := constant.Epsilon(c.Delta)
	if err != nil || alpha != c.Alpha {
		t.Errorf("order %v, %v, want %v", alpha, err, c.Alpha)
	}
	near(t, "epsilon", epsilon, c.Epsilon, c.Tol)
}

// sampled is n Poisson-sampled Gaussian releases.
func sampled(q, z float64, n int) accounting.Event {
	return accounting.Repeated{
		Event: accounting.PoissonSampled{Rate: q, Event: accounting.Gaussian{NoiseMultiplier: z}}, Count: n}
}
