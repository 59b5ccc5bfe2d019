package ingest

import (
	"math/bits"
	"sync"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/dp/noise"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/server/refusal"
)

// addNoise adds the client's noise share to a contribution that came without,
// in place. Only here the server sees the contribution itself, so only here it
// can hold the client to its L2 bound, which it does.
func addNoise(t terms, c *contribution) error {
	scratch := scratches.Get().(*[stride]int64)
	defer scratches.Put(scratch)
	defer clear(scratch[:]) // it held coordinates without noise

	var hi, lo uint64 // sum of squares
	err := strides(t, c, scratch, func(x []int64, _ []byte) {
		for _, v := range x {
			h, l := bits.Mul64(magnitude(v), magnitude(v))
			var carry uint64
			lo, carry = bits.Add64(lo, l, 0)
			hi, _ = bits.Add64(hi, h, carry) // |v| <= 2^52, and there are fewer than 2^24: no overflow
		}
	})
	if err != nil {
		return err
	}
	boundHi, boundLo := bits.Mul64(t.release.Bound, t.release.Bound)
	if hi > boundHi || hi == boundHi && lo > boundLo {
		return refusal.New(undertonev1.Reason_REASON_OUT_OF_RANGE, "the contribution's norm exceeds its bound")
	}

	sampler, err := borrow(t.release.Sigma)
	if err != nil {
		return err
	}
	defer giveBack(sampler)
	return strides(t, c, scratch, func(x []int64, packed []byte) {
		sampler.Add(x)
		aggregation.Pack(packed[:0], x, t.width)
	})
}

// strides calls f with a contribution's coordinates, some at a time, and with
// where they are packed.
func strides(t terms, c *contribution, scratch *[stride]int64, f func(x []int64, packed []byte)) error {
	return c.each(t.width, func(_ int, piece []byte) error {
		for len(piece) > 0 {
			n := min(stride, len(piece)/t.width)
			packed := piece[: n*t.width : n*t.width]
			if err := aggregation.Unpack(scratch[:n], packed, t.width); err != nil {
				return err
			}
			f(scratch[:n], packed)
			piece = piece[n*t.width:]
		}
		return nil
	})
}

func magnitude(v int64) uint64 {
	if v < 0 {
		return -uint64(v)
	}
	return uint64(v)
}

// samplers keeps samplers of secret noise, by sigma: their tables take most of
// a millisecond to compute.
var samplers sync.Map // noise.Sigma -> *sync.Pool of *noise.DiscreteGaussian

func borrow(sigma noise.Sigma) (*noise.DiscreteGaussian, error) {
	pool, ok := samplers.Load(sigma)
	if !ok {
		first, err := noise.NewDiscreteGaussian(sigma, noise.NewSecret())
		if err != nil {
			return nil, err
		}
		pool, _ = samplers.LoadOrStore(sigma, &sync.Pool{
			New: func() any { return first.With(noise.NewSecret()) },
		})
	}
	return pool.(*sync.Pool).Get().(*noise.DiscreteGaussian), nil
}

func giveBack(s *noise.DiscreteGaussian) {
	if pool, ok := samplers.Load(s.Sigma()); ok {
		pool.(*sync.Pool).Put(s)
	}
}
