package canary

import (
	"math"
	"sync"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp/noise"
)

// TestBrokenServices breaks a service on purpose, one thing at a time, in the code
// that devices run, and holds that the audit says so, by an attack or test that is
// meant for it.
func TestBrokenServices(t *testing.T) {
	// with replaces a device's mechanism.
	with := func(bound, sigma func(round, client int, r *rounds.Release) uint64) wiring {
		var made sync.Map // a mechanism's tables take long
		return wiring{device: func(_ *local.Mechanism, d *design, round, client int, src noise.Source) (device, error) {
			r := d.spec.Releases[round]
			key := [2]uint64{bound(round, client, &r), sigma(round, client, &r)}
			if m, ok := made.Load(key); ok {
				return m.(*local.Mechanism).With(src), nil
			}
			m, err := local.NewMechanism(d.spec.Lattice, key[0], noise.Sigma(key[1]), src)
			if err == nil {
				made.Store(key, m)
			}
			return m, err
		}}
	}
	// from replaces a device's seed.
	from := func(path func(job, round, client int) []uint64) wiring {
		return wiring{source: func(_ *design, job, round, client int) noise.Source {
			return noise.NewSeeded(7, path(job, round, client)...)
		}}
	}
	path := func(labels ...int) (out []uint64) {
		for _, l := range labels {
			out = append(out, uint64(l))
		}
		return out
	}
	bound := func(_, _ int, r *rounds.Release) uint64 { return r.Bound }
	sigma := func(_, _ int, r *rounds.Release) uint64 { return uint64(r.Sigma) }

	const attack, loud = "canaries of norm C", "canaries of norm 4 C"
	// after changes what a device's mechanism made, given what it is without noise.
	after := func(change func(d *design, client int, z, bare []int64, src noise.Source)) wiring {
		return wiring{device: func(m *local.Mechanism, d *design, round, client int, src noise.Source) (device, error) {
			return changed{m.With(src), func(z []int64, x []float64) error {
				r, unit := &d.spec.Releases[round], math.Ldexp(1, -int(d.spec.Lattice.ScaleBits))
				bare := make([]int64, len(x))
				if err := d.spec.Lattice.Encode(bare, x, float64(r.Bound)*unit, src); err != nil {
					return err
				}
				change(d, client, z, bare, src)
				return nil
			}}, nil
		}}
	}
	for _, c := range []struct {
		name   string
		nMin   int
		trials int
		wiring wiring
		found  []string // what must fail, among others
	}{
		{"noise halved", 50, 4000,
			with(bound, func(_, _ int, r *rounds.Release) uint64 { return uint64(r.Sigma) / 2 }),
			[]string{attack, loud, "noise of round 1", "noise of round 2"}},
		{"no noise in the second round", 50, 2000,
			with(bound, func(round, _ int, r *rounds.Release) uint64 { return uint64(1-round) * uint64(r.Sigma) }),
			[]string{attack, "noise of round 2"}},
		{"a clip skipped", 50, 4000,
			with(func(_, _ int, r *rounds.Release) uint64 { return 100 * r.Bound }, sigma),
			[]string{loud, "excess of canaries"}},
		{"a clip skipped, noise in many shares", 1000, 1000,
			with(func(_, _ int, r *rounds.Release) uint64 { return 100 * r.Bound }, sigma),
			[]string{"refused as out of range"}},
		{"a clip too tight", 50, 2000,
			with(func(_, _ int, r *rounds.Release) uint64 { return r.Bound / 2 }, sigma),
			[]string{"excess of canaries"}},
		{"noise reused between rounds", 50, 4000,
			from(func(job, _, client int) []uint64 { return path(job, 0, client) }),
			[]string{attack, loud, "correlation between rounds", "the noise of another"}},
		{"a share missing", 2, 4000,
			with(bound, func(_, client int, r *rounds.Release) uint64 { return uint64(min(client, 1)) * uint64(r.Sigma) }),
			[]string{attack, "without noise", "noise of round 1", "noise of round 2"}},
		{"one seed for two devices", 50, 1000,
			from(func(job, round, client int) []uint64 { return path(job, round, client/2*2) }),
			[]string{"the noise of another"}},
		{"one seed for all devices", 50, 1000,
			from(func(job, round, _ int) []uint64 { return path(job, round) }),
			[]string{"that 50 divides", "the noise of another", "noise of round 1"}},
		{"one seed in every round of one device", 4, 4000,
			from(func(job, round, client int) []uint64 {
				if client == 0 {
					job, round = 0, 0
				}
				return path(job, round, client)
			}),
			[]string{"correlation between rounds", "the noise of another"}},
		{"one seed for two blocks of coordinates", 16, 1000,
			wiring{device: func(m *local.Mechanism, _ *design, round, client int, src noise.Source) (device, error) {
				return blocks{m, src.Uint64()}, nil
			}},
			[]string{"correlation between coordinates"}},
		{"no noise in the first coordinate", 50, 1000,
			after(func(_ *design, _ int, z, bare []int64, _ noise.Source) { z[0] = bare[0] }),
			[]string{"noise of the worst coordinate", "noise of the worst device and coordinate"}},
		{"no noise where a device contributes", 50, 1000,
			after(func(_ *design, client int, z, bare []int64, _ noise.Source) { z[client] = bare[client] }),
			[]string{"noise of the worst device where it contributes", "devices' noise where they contribute"}},
		{"a device with noise in the silent coordinates alone", 50, 1000,
			after(func(d *design, client int, z, bare []int64, _ noise.Source) {
				if client == 7 {
					copy(z[:d.canaries], bare)
				}
			}),
			[]string{"noise of the worst device elsewhere", "noise of the worst contribution"}},
		{"a device without noise now and then, but in the silent coordinates", 50, 1000,
			after(func(d *design, _ int, z, bare []int64, src noise.Source) {
				if src.Uint64()%500 == 0 {
					copy(z[:d.canaries], bare)
				}
			}),
			[]string{"noise of the worst contribution"}},
		{"more devices than canaries, and one without noise but at the end", 1030, 1024,
			after(func(d *design, client int, z, bare []int64, _ noise.Source) {
				if client == 1026 {
					copy(z[:d.canaries], bare)
				}
			}),
			[]string{"noise of the worst device without a canary"}},
		{"a device that contributes twice what it may", 20, 8000,
			after(func(_ *design, client int, z, bare []int64, _ noise.Source) {
				if client == 3 {
					z[client] += bare[client]
				}
			}),
			[]string{"excess of the worst canary", "excess of the worst device"}},
		{"a clip a tenth too loose", 50, 4000,
			with(func(_, _ int, r *rounds.Release) uint64 { return r.Bound + r.Bound/10 }, sigma),
			[]string{"excess of canaries of norm 4 C as sent"}},
		{"a clip of every coordinate by itself", 50, 500,
			after(func(d *design, client int, z, bare []int64, _ noise.Source) {
				for i := range z {
					if client == d.spec.NMin { // loud, and so cut to a quarter of what it was
						z[i] += 3 * bare[i]
					}
				}
			}),
			[]string{"excess in all coordinates at once"}},
		{"coordinates in pairs of the same size, with random signs", 1, 1000,
			after(func(_ *design, _ int, z, bare []int64, src noise.Source) {
				for i := 0; i+1 < len(z); i += 2 {
					n := z[i] - bare[i]
					if src.Uint64()&1 == 1 {
						n = -n
					}
					z[i+1] = bare[i+1] + n
				}
			}),
			[]string{"correlation of sizes between coordinates"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(twoRounds(t, terms(c.nMin)), c.trials)
			if r := audit(t, cfg); !r.Passed {
				t.Errorf("honest, it fails already: %s", r.Verdict)
			}
			cfg.wiring = c.wiring
			r := audit(t, cfg)
			names := failures(r)
			for _, want := range c.found {
				if !anyHas(names, want) {
					t.Errorf("%q has not failed: %q", want, names)
				}
			}
			if r.Passed {
				t.Errorf("passed: %s", r.Verdict)
			}
			if c.found[0] == attack && r.LowerBound <= r.ClaimedEpsilon {
				t.Errorf("at least %v of %v", r.LowerBound, r.ClaimedEpsilon)
			}
			t.Log(r.Verdict)
			for _, n := range names {
				t.Log(n)
			}
		})
	}
}

// changed is a device, and what is wrong with it.
type changed struct {
	device
	change func(z []int64, x []float64) error
}

func (c changed) Encode(dst []int64, x []float64) error {
	if err := c.device.Encode(dst, x); err != nil {
		return err
	}
	return c.change(dst, x)
}

// blocks encodes two halves of a contribution one after the other, from one seed.
type blocks struct {
	mechanism *local.Mechanism
	seed      uint64
}

func (b blocks) Encode(dst []int64, x []float64) error {
	half := len(x) / 2
	for _, at := range []int{0, half} {
		m := b.mechanism.With(noise.NewSeeded(b.seed))
		if err := m.Encode(dst[at:at+half], x[at:at+half]); err != nil {
			return err
		}
	}
	return nil
}

// halved is servers that add half of the noise that is claimed, as the claim is twice
// what the specification tells them.
func halved(d *design) {
	d.mu /= 2
	for l := range d.sigma {
		d.sigma[l] *= 2
	}
}

// caughtHalved holds that an audit found the noise to be half of what is claimed.
func caughtHalved(t *testing.T, r *Result) {
	t.Helper()
	names := failures(r)
	for _, want := range []string{"canaries of norm C", "noise of round 1", "noise of round 2"} {
		if !anyHas(names, want) {
			t.Errorf("%q has not failed: %q", want, names)
		}
	}
	if r.LowerBound <= r.ClaimedEpsilon || r.Passed {
		t.Errorf("at least %v of %v", r.LowerBound, r.ClaimedEpsilon)
	}
	t.Log(r.Verdict)
}

// TestServersNoiseIsMeasured: with central trust the noise is what server/ingest draws,
// which has no seed; the audit passes with probability below 1e-12.
func TestServersNoiseIsMeasured(t *testing.T) {
	term := terms(20)
	term.Trust = rounds.TrustCentral
	c := config(twoRounds(t, term), 8000)
	c.Seed, c.wiring.claim = nil, halved
	caughtHalved(t, audit(t, c))
}

// TestBrokenServers breaks the noise that servers add, and what they count, where the
// contributions themselves are as they should be. Honest servers, whose noise has no seed,
// fail one with probability 1e-6.
func TestBrokenServers(t *testing.T) {
	// drawn is noise of the claimed deviation from a seed.
	drawn := func(d *design, round int, sent, released []int64, seed ...uint64) {
		src := noise.NewSeeded(11, seed...)
		for i := range released {
			released[i] = sent[i] + int64(d.sigma[round]*normal(src))
		}
	}
	const few = 4096
	for _, c := range []struct {
		name     string
		trials   int
		released func(d *design, job, round int, sent, released []int64)
		found    []string
	}{
		{"no noise in the first coordinate", 2000,
			func(_ *design, _, _ int, sent, released []int64) { released[0] = sent[0] },
			[]string{"noise of the worst coordinate"}},
		{"half of the noise in one coordinate of the second round", 2000,
			func(_ *design, _, round int, sent, released []int64) {
				if round == 1 {
					released[5] -= (released[5] - sent[5]) / 2
				}
			},
			[]string{"noise of the worst coordinate"}},
		{"the same noise every time in one coordinate", 2000,
			func(d *design, _, _ int, sent, released []int64) { released[0] = sent[0] + int64(d.sigma[0]) },
			[]string{"mean of the worst coordinate", "correlation between coordinates", "correlation of sizes between coordinates"}},
		{"a client counted twice", 8000,
			func(_ *design, _, _ int, sent, released []int64) { released[3] += sent[3] },
			[]string{"excess of the worst canary"}},
		{"a client left out", 8000,
			func(_ *design, _, _ int, sent, released []int64) { released[3] -= sent[3] },
			[]string{"excess of the worst canary"}},
		{"a release without noise, one of 100", 4000,
			func(_ *design, job, round int, sent, released []int64) {
				if (2*job+round)%100 == 42 {
					copy(released, sent)
				}
			},
			[]string{"releases without noise", "noise of the worst release"}},
		{"eight coordinates without noise, one release of 100", 4000,
			func(_ *design, job, round int, sent, released []int64) {
				if (2*job+round)%100 == 42 {
					copy(released[4:12], sent[4:])
				}
			},
			[]string{"releases without noise"}},
		{"a release's noise from one of few seeds", 4000,
			func(d *design, job, round int, sent, released []int64) {
				drawn(d, round, sent, released, noise.NewSeeded(13, uint64(job), uint64(round)).Uint64()%few)
			},
			[]string{"releases with the noise of another"}},
		{"noise used again in another part of the release", 1000,
			func(_ *design, _, _ int, sent, released []int64) {
				for i := range 8 {
					released[4+i] = sent[4+i] + released[20+i] - sent[20+i]
				}
			},
			[]string{"releases with the noise of another", "correlation between coordinates"}},
		{"rounds of the same size, with random signs", 4000,
			func(d *design, job, round int, sent, released []int64) {
				drawn(d, round, sent, released, uint64(job))
				for i, signs := 0, noise.NewSeeded(17, uint64(job)); round == 1 && i < len(released); i++ {
					if signs.Uint64()&1 == 1 {
						released[i] = 2*sent[i] - released[i]
					}
				}
			},
			[]string{"correlation of sizes between rounds"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			term := terms(20)
			term.Trust = rounds.TrustCentral
			cfg := config(twoRounds(t, term), c.trials)
			cfg.Seed = nil
			if r := audit(t, cfg); !r.Passed {
				t.Errorf("honest, it fails already: %s", r.Verdict)
			}
			cfg.wiring.released = c.released
			r := audit(t, cfg)
			names := failures(r)
			for _, want := range c.found {
				if !anyHas(names, want) {
					t.Errorf("%q has not failed: %q", want, names)
				}
			}
			t.Log(r.Verdict)
			for _, n := range names {
				t.Log(n)
			}
		})
	}
}

// normal draws a standard normal variable.
func normal(src noise.Source) float64 {
	return distuv.UnitNormal.Quantile((float64(src.Uint64()>>11) + 0.5) * 0x1p-53)
}
