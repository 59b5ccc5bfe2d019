package canary

import (
	"sync"
	"testing"

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
			[]string{loud, "excess of the canaries"}},
		{"a clip skipped, noise in many shares", 1000, 1000,
			with(func(_, _ int, r *rounds.Release) uint64 { return 100 * r.Bound }, sigma),
			[]string{"refused as out of range"}},
		{"a clip too tight", 50, 2000,
			with(func(_, _ int, r *rounds.Release) uint64 { return r.Bound / 2 }, sigma),
			[]string{"excess of the canaries"}},
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
