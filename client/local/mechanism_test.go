package local_test

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/noise"
)

// encodingSpec has one release of n coordinates, of norm up to 1.25.
func encodingSpec(n int, trust rounds.Trust) *rounds.Spec {
	return &rounds.Spec{
		Lattice: dp.Lattice{ScaleBits: 24, ModulusBits: 40}, Trust: trust,
		Releases: []rounds.Release{{Length: n, Bound: 5 << 22, Sigma: 3 << 38}},
	}
}

func contribution(n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = math.Sin(float64(i)) / math.Sqrt(float64(n))
	}
	return x
}

// TestMechanism: what is sent is the lattice's encoding under the release's bound and
// then, unless the server adds it, the release's noise, from one source in that order.
func TestMechanism(t *testing.T) {
	const n = 500
	x := contribution(n)
	for _, trust := range []rounds.Trust{rounds.TrustDistributed, rounds.TrustLocal, rounds.TrustCentral} {
		s := encodingSpec(n, trust)
		src := noise.NewSeeded(7, 1, 2)
		want := make([]int64, n)
		if err := s.Lattice.Encode(want, x, 1.25, src); err != nil {
			t.Fatal(err)
		}
		if trust != rounds.TrustCentral {
			g, err := noise.NewDiscreteGaussian(s.Releases[0].Sigma, src)
			if err != nil {
				t.Fatal(err)
			}
			g.Add(want)
		} else if err := dp.CheckNorm(want, s.Releases[0].Bound); err != nil {
			t.Error(err)
		}
		m, err := local.DeviceMechanism(s, 1, noise.NewSecret())
		if err != nil {
			t.Fatal(err)
		}
		got := make([]int64, n)
		if err := m.With(noise.NewSeeded(7, 1, 2)).Encode(got, x); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: another vector", trust)
		}
		again := make([]int64, n)
		for _, dst := range [][]int64{got, again} {
			if err := m.Encode(dst, x); err != nil {
				t.Fatal(err)
			}
		}
		if slices.Equal(got, again) {
			t.Errorf("%s: a secret source gave the same twice", trust)
		}
	}
}

func TestMechanismFailures(t *testing.T) {
	s := encodingSpec(3, rounds.TrustDistributed)
	m, err := local.DeviceMechanism(s, 1, noise.NewSeeded(1))
	if err != nil {
		t.Fatal(err)
	}
	z := []int64{1, 2, 3}
	if err := m.Encode(z, []float64{0, math.NaN(), 0}); !errors.Is(err, dp.ErrNotFinite) || !slices.Equal(z, []int64{0, 0, 0}) {
		t.Errorf("%v, %v", z, err)
	}
	if _, err := local.NewMechanism(s.Lattice, 1<<41, 0, noise.NewSeeded(1)); err == nil {
		t.Error("a bound beyond the modulus")
	}
	if _, err := local.NewMechanism(s.Lattice, 1, 1, noise.NewSeeded(1)); !errors.Is(err, noise.ErrSigmaRange) {
		t.Errorf("sigma: %v", err)
	}
}

func BenchmarkMechanism(b *testing.B) {
	const n = 150
	m, err := local.DeviceMechanism(encodingSpec(n, rounds.TrustDistributed), 1, noise.NewSecret())
	if err != nil {
		b.Fatal(err)
	}
	x, z := contribution(n), make([]int64, n)
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Encode(z, x); err != nil {
			b.Fatal(err)
		}
	}
}
