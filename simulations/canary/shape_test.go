package canary

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp/noise"
)

// shaped adds noise of the claimed variance and another distribution: that of sigma
// quantile(u), u uniform.
type shaped struct {
	bound, sigma float64 // lattice units
	quantile     func(u float64) float64
	src          noise.Source
}

func (s shaped) Encode(dst []int64, x []float64) error {
	for i := range x {
		v := max(-s.bound, min(s.bound, math.Ldexp(x[i], 24)))
		u := (float64(s.src.Uint64()>>11) + 0.5) * 0x1p-53
		dst[i] = int64(math.Round(v + s.sigma*s.quantile(u)))
	}
	return nil
}

// truncatedAt draws from a Gaussian that is cut off, scaled to a variance of 1. What
// it hides a user behind ends: an output beyond gives them away.
func truncatedAt(cut float64) func(u float64) float64 {
	n := distuv.UnitNormal
	inside := 1 - 2*n.Survival(cut)
	sd := math.Sqrt(1 - 2*cut*n.Prob(cut)/inside)
	return func(u float64) float64 { return n.Quantile(n.CDF(-cut)+u*inside) / sd }
}

// TestShapes: noise of the right variance and the wrong distribution is caught, at the
// number of trials that is stated, by a test that is meant for it. Seeds are pinned; the
// false-alarm rate is that of the command.
func TestShapes(t *testing.T) {
	uniform := func(u float64) float64 { return math.Sqrt(3) * (2*u - 1) }
	laplace := func(u float64) float64 {
		return distuv.Laplace{Mu: 0, Scale: math.Sqrt2 / 2}.Quantile(u)
	}
	for _, c := range []struct {
		name     string
		quantile func(u float64) float64
		trust    rounds.Trust
		nMin     int
		trials   int
		found    string
	}{
		{"uniform, where contributions are seen", uniform, rounds.TrustLocal, 8, 1000, "distance of the noise of round 1 from"},
		{"uniform, by itself", uniform, rounds.TrustDistributed, 1, 1000, "distance of the noise of round 2 from"},
		{"uniform, in shares", uniform, rounds.TrustDistributed, 50, 500, "distance of devices' noise from"},
		{"Laplace, where contributions are seen", laplace, rounds.TrustLocal, 8, 1000, "distance of the noise of round 1 from"},
		{"Laplace, in shares", laplace, rounds.TrustDistributed, 50, 500, "share of devices' noise beyond 4 sigma"},
		{"cut off at 2.5 sigma", truncatedAt(2.5), rounds.TrustLocal, 8, 2000, "share of the noise of round 1 beyond 3 sigma"},
		{"cut off at 3.5 sigma", truncatedAt(3.5), rounds.TrustLocal, 8, 20_000, "share of the noise of round 1 beyond 4 sigma"},
	} {
		t.Run(c.name, func(t *testing.T) {
			term := terms(c.nMin)
			term.Trust = c.trust
			cfg := config(twoRounds(t, term), c.trials)
			cfg.FalseAlarm = 1e-4
			if r := audit(t, cfg); !r.Passed {
				t.Errorf("honest, it fails already: %s", r.Verdict)
			}
			cfg.wiring = wiring{device: func(_ *local.Mechanism, d *design, round, _ int, src noise.Source) (device, error) {
				return shaped{d.target[round], d.spec.Releases[round].Sigma.Float64(), c.quantile, src}, nil
			}}
			r := audit(t, cfg)
			if names := failures(r); !anyHas(names, c.found) || r.Passed {
				t.Errorf("%q has not failed: %q", c.found, names)
			}
			t.Log(r.Verdict)
		})
	}
}

// TestHistogram holds the statistics against ones that are known: values at the middles
// of equally likely cells are a step of half a cell from Gaussian.
func TestHistogram(t *testing.T) {
	var h, half histogram
	for i := range cells {
		x := distuv.UnitNormal.Quantile((float64(i) + 0.5) / cells)
		h.add(x)
		if i < cells/2 {
			half.add(x)
		}
	}
	if d, p := h.distance(); d != 0 || p != 1 {
		t.Errorf("a Gaussian sample is %v away, p = %v", d, p)
	}
	if d, p := half.distance(); d != 0.5 || math.Abs(p-2*math.Exp(-cells/4.0)) > 1e-100 {
		t.Errorf("half of it is %v away, p = %v", d, p)
	}
	half.merge(&half)
	if half.n != cells || half.cell[0] != 2 || half.beyond[0] != h.beyond[0] {
		t.Errorf("%d values, %d in the first cell, %d far out", half.n, half.cell[0], half.beyond[0])
	}
	// Exact: 0 or all of 3 trials at p = 1/2 are 1/8 likely, and so far out on either side.
	for k, want := range []float64{0.25, 1, 1, 0.25} {
		if p := twoSided(k, 3, 0.5); math.Abs(p-want) > 1e-12 {
			t.Errorf("%d of 3: p = %v, want %v", k, p, want)
		}
	}
}
