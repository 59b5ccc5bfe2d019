package accounting_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/undertone-fl/undertone/dp/accounting"
)

// history is what a ledger holds of a job: attempts with their noise, of which some
// failed and were charged all the same, under one adjacency.
type history struct {
	attempts accounting.Composed // zero-out
	failed   int
	factor   float64 // of the adjacency
	delta    float64
}

// events are the attempts under the history's adjacency.
func (h *history) events() accounting.Event { return must(accounting.Scale(h.attempts, h.factor)) }

// drawHistory draws one: up to 400 attempts of up to four kinds, each kind with its
// own noise, in turns continuous and on a lattice, that together are mu-GDP for a mu
// from 0.02 to 8 (epsilon 0.005 to 80).
func drawHistory(r *rand.Rand) *history {
	logUniform := func(lo, hi float64) float64 { return math.Exp(math.Log(lo) + r.Float64()*math.Log(hi/lo)) }
	h := &history{factor: float64(1 + r.IntN(2)), delta: logUniform(1e-9, 1e-3)}
	mu := logUniform(0.02, 8)
	kinds := 1 + r.IntN(4)
	weights := make([]float64, kinds)
	total := 0.0
	var kind []int
	for k := range kinds {
		weights[k] = logUniform(0.1, 10)
		for range 1 + int(logUniform(1, 100)) {
			kind = append(kind, k)
			total += weights[k]
		}
	}
	for _, k := range kind {
		z := h.factor / mu * math.Sqrt(total/weights[k])
		var e accounting.Event = accounting.Gaussian{NoiseMultiplier: z}
		if k%2 == 1 {
			// A sensitivity of 2^24 spacings, as jobs have it, and coarser ones.
			sensitivity := math.Ldexp(1, 12+6*(k/2))
			e = accounting.DiscreteGaussian{Sigma: z * sensitivity, Sensitivity: sensitivity}
		}
		h.attempts = append(h.attempts, e)
		if r.IntN(10) == 0 {
			h.attempts = append(h.attempts, e) // the first try failed
			h.failed++
		}
	}
	return h
}

// answers are the epsilons of a history.
type answers struct {
	ledger float64 // nano-rho, each charge rounded up, read as one Gaussian
	gdp    float64
	pld    float64 // 0 where it was not computed
	rdp    float64
	tight  float64 // the ledger's sum as zCDP of whatever mechanisms, best known conversion
	plain  float64 // rho + 2 sqrt(rho ln 1/delta)
}

func (h *history) answers(t testing.TB, withPLD bool) (a answers, spent accounting.NanoRho) {
	t.Helper()
	filter := accounting.Filter{Budget: math.MaxUint64}
	for _, e := range h.attempts {
		charge := must(accounting.ZCDP(must(accounting.Scale(e, h.factor))))
		if err := filter.Reserve(charge); err != nil {
			t.Fatal(err)
		}
	}
	spent = filter.Spent()
	a.ledger = must(spent.GaussianEpsilon(h.delta))
	a.tight = must(spent.Epsilon(h.delta))
	a.plain = must(spent.SimpleEpsilon(h.delta))
	e := h.events()
	a.gdp, a.rdp = byGDP(e, h.delta), byRDP(e, h.delta)
	if withPLD {
		a.pld = byPLD(e, h.delta)
	}
	return a, spent
}

// What the accountants may differ by, and why.
const (
	// latticeSlack: GDP and PLD take noise on a lattice for a Gaussian of variance
	// sigma^2 - 4 (see DiscreteGaussian), the ledger for one of sigma^2. Its least
	// sigma here is 4096/8 spacings: 4/512^2 of mu^2, half as much of mu, and epsilon
	// grows at most like mu^2 where it is not about to vanish.
	latticeSlack = 2e-5
	// pldSlack: the PLD's grid adds up to 10^-4 of the variance of the loss.
	pldSlack = 1e-3
	// pldEvery is how many histories share a PLD, which takes nearly all of the time.
	pldEvery = 2
)

// TestAccountantsAgree holds, over 1,000 pinned histories, that the accountants are
// ordered, and as close, as theory has it. go test -v shows a table.
//
//	ledger ~ GDP    The sum of squares 1/z^2 is mu^2 and 2 rho alike. The ledger
//	                rounds each charge up to a nano-rho: mu^2 grows by less than 2e-9
//	                for each attempt, and by nothing else.
//	GDP ~ PLD       Both are exact for Gaussian noise; the PLD's grid adds a little.
//	                (Every second history.)
//	GDP <= RDP      An RDP curve forgets what a trade-off function knows, and so does
//	                zCDP, whose curve is the same line. RDP is taken at orders 10 %
//	                apart, zCDP at the best: so RDP is at most a percent above it.
//	all <= plain    rho + 2 sqrt(rho ln 1/delta) is what a weaker conversion makes of
//	                the same curve.
//
// Failed attempts are in all of them: each is priced as if it had been released.
// TestGaussianCompositionGolden and TestHistoriesCrosscheck hold the same accountants
// to reference values.
func TestAccountantsAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1000))
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "attempts\tfailed\tfactor\tdelta\tledger\tGDP\tPLD\tRDP\tzCDP\tplain zCDP\t")
	var worst answers // over GDP
	for i := range 1000 {
		h := drawHistory(r)
		a, spent := h.answers(t, i%pldEvery == 0)
		n := float64(len(h.attempts))

		mu := must(accounting.GDP(h.events()))
		rounded := accounting.GaussianEpsilon(math.Sqrt(mu*mu+2e-9*n), h.delta)
		if !(a.ledger >= a.gdp*(1-latticeSlack)-1e-9 && a.ledger <= rounded*(1+1e-9)) {
			t.Errorf("history %d: the ledger says %v, GDP %v, with the rounding of %v charges at most %v", i, a.ledger, a.gdp, n, rounded)
		}
		if rho := spent.Rho(); !(rho >= mu*mu/2*(1-latticeSlack) && rho <= mu*mu/2+1e-9*n) {
			t.Errorf("history %d: rho %v, mu^2/2 %v", i, rho, mu*mu/2)
		}
		if i%pldEvery == 0 && !(a.pld >= a.gdp*(1-1e-9) && a.pld <= a.gdp*(1+pldSlack)+1e-9) {
			t.Errorf("history %d: PLD %v, GDP %v", i, a.pld, a.gdp)
		}
		if !(a.gdp <= a.rdp*(1+latticeSlack) && a.ledger <= a.tight && a.tight <= a.plain && a.rdp <= a.plain) {
			t.Errorf("history %d is out of order: %+v", i, a)
		}
		// The ledger's rho is rounded up, RDP's is not.
		if unrounded := must((spent - accounting.NanoRho(n)).Epsilon(h.delta)); !(a.rdp >= unrounded*(1-1e-9)-1e-9 && a.rdp <= a.tight*1.01+1e-3) {
			t.Errorf("history %d: RDP %v, zCDP %v", i, a.rdp, a.tight)
		}
		if a.gdp > 0.01 {
			worst.ledger = max(worst.ledger, a.ledger/a.gdp)
			worst.pld = max(worst.pld, a.pld/a.gdp)
			worst.rdp = max(worst.rdp, a.rdp/a.gdp)
			worst.tight = max(worst.tight, a.tight/a.gdp)
			worst.plain = max(worst.plain, a.plain/a.gdp)
		}
		if i%80 == 0 {
			fmt.Fprintf(w, "%d\t%d\t%g\t%.1e\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t\n",
				len(h.attempts), h.failed, h.factor, h.delta, a.ledger, a.gdp, a.pld, a.rdp, a.tight, a.plain)
		}
	}
	fmt.Fprintf(w, "at most, over GDP\t\t\t\t%.6f\t1\t%.6f\t%.3f\t%.3f\t%.3f\t\n", worst.ledger, worst.pld, worst.rdp, worst.tight, worst.plain)
	w.Flush()
	t.Logf("epsilon by accountant\n%s", table.String())
}

// TestHistoriesCrosscheck prices histories of the grid that Google's dp_accounting
// priced, see testdata/histories.json.
func TestHistoriesCrosscheck(t *testing.T) {
	var c struct {
		Histories []struct {
			Delta  float64
			Events [][2]float64 // noise multiplier, under the history's adjacency; how many
			PLD    float64      `json:"epsilon_pld"`
			RDP    float64      `json:"epsilon_rdp"`
		}
	}
	load(t, "histories.json", &c)
	if len(c.Histories) < 20 {
		t.Fatalf("%d histories", len(c.Histories))
	}
	var orders []float64
	for alpha := 2.0; alpha <= 128; alpha++ {
		orders = append(orders, alpha)
	}
	for i, h := range c.Histories {
		var e accounting.Composed
		for _, v := range h.Events {
			e = append(e, gaussians(v[0], int(v[1])))
		}
		what := fmt.Sprintf("history %d by ", i)
		near(t, what+"PLD", byPLD(e, h.Delta), h.PLD, 1e-3)
		near(t, what+"GDP", byGDP(e, h.Delta), h.PLD, 1e-3)
		rdp, _, err := must(accounting.RDP(e, orders...)).Epsilon(h.Delta)
		near(t, what+"RDP", must(rdp, err), h.RDP, 1e-9)
	}
}
