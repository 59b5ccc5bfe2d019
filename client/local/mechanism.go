package local

import (
	"math"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/noise"
)

// Mechanism makes a contribution private: the last thing that happens to it on
// the device, and the only form in which it leaves.
//
// # Privacy
//
// Encode gives z + e, where z are integers with ||z||_2 <= L, whatever the
// samples are (dp.Lattice), and e is discrete Gaussian noise in every
// coordinate, independent of z and of all other devices'. What is released is
// the sum over at least NMin devices, of which the device knows by the servers'
// word alone: with TrustDistributed the charge holds as long as NMin contributions
// in the sum carry their honest share of the noise. One device's z moves it by at most L, so
// that with sigma^2 the variance of all the noise in it, and factor that of the
// adjacency, it is rho-zCDP with rho = factor^2 L^2 / 2 sigma^2, which is the
// release's charge (package jobs recomputes it). Who sees z + e alone sees it
// under that device's own noise, which is as much as that only with
// TrustLocal.
//
// Nothing here depends on the samples but z: zeros, which a device without
// samples or with broken ones contributes, are rounded and noised like any
// other.
//
// A Mechanism serves one goroutine, With makes more of them; Encode does not
// allocate.
type Mechanism struct {
	lattice  dp.Lattice
	bound    float64
	gaussian *noise.DiscreteGaussian // nil: no noise
	src      noise.Source
}

// NewMechanism encodes onto the lattice with the sensitivity bound, in lattice
// units, and adds noise of sigma; 0 adds none. All bits are drawn from src.
// Fails with the errors of dp.Lattice.Bound and noise.NewDiscreteGaussian.
func NewMechanism(lattice dp.Lattice, bound uint64, sigma noise.Sigma, src noise.Source) (*Mechanism, error) {
	// Exact: a bound is at most 2^52 units.
	m := &Mechanism{lattice: lattice, bound: math.Ldexp(float64(bound), -int(lattice.ScaleBits)), src: src}
	if _, err := lattice.Bound(m.bound); err != nil {
		return nil, err
	}
	if sigma > 0 {
		var err error
		if m.gaussian, err = noise.NewDiscreteGaussian(sigma, src); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// DeviceMechanism is what a device applies for a round, counted from 1, of a
// checked specification: its share of the noise, all of it, or with
// TrustCentral none, as the server that takes the contribution adds it.
func DeviceMechanism(s *rounds.Spec, round int, src noise.Source) (*Mechanism, error) {
	r := s.Releases[round-1]
	sigma := r.Sigma
	if s.Trust == rounds.TrustCentral {
		sigma = 0
	}
	return NewMechanism(s.Lattice, r.Bound, sigma, src)
}

// With returns the same mechanism over another source. The two share their
// tables, and may be used at the same time.
func (m *Mechanism) With(src noise.Source) *Mechanism {
	other := *m
	other.src = src
	if m.gaussian != nil {
		other.gaussian = m.gaussian.With(src)
	}
	return &other
}

// Encode stores the contribution x, rounded and noised, in dst, of the same
// length. The rounding of all coordinates draws from the source before the
// noise does. Fails with the errors of dp.Lattice.Encode; dst is then zeros,
// which may not be sent.
func (m *Mechanism) Encode(dst []int64, x []float64) error {
	if err := m.lattice.Encode(dst, x, m.bound, m.src); err != nil {
		return err
	}
	if m.gaussian != nil {
		m.gaussian.Add(dst)
	}
	return nil
}
