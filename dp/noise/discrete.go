package noise

import (
	"math/big"
	"math/bits"
)

// DiscreteGaussian samples N_Z(0, sigma^2) exactly: given uniform random bits,
// P[X = x] is exp(-x^2 / 2 sigma^2) / sum_y exp(-y^2 / 2 sigma^2), with no
// approximation and no floating point.
//
// # Method
//
// Rejection from strips. With s = 2^q the largest power of two up to
// sigma/16 (at least 1), and c = s^2 / 2 sigma^2, draw
//
//	a strip      k >= 0      with probability proportional to exp(-c k^2),
//	a place      j           uniform in [0, s),
//	accept       k s + j     with probability exp(-c v (2k + v)),  v = j/s,
//
// and a sign, where -0 is rejected. The product of the first and the last
// probability is exp(-(k s + j)^2 / 2 sigma^2). Narrow strips waste little: at
// least 97 % of the proposals are accepted if s > 1, all if s = 1.
//
// # Exactness
//
// Both decisions compare a uniform U in [0, 1) with a real number t. U is a
// stream of bits, of which the first word is drawn at once. As long as t is
// known to lie in an interval that does not touch [u, u+1) / 2^n, the decision
// is that of infinitely many bits. Where it does touch, which happens once in
// 2^50 draws, the sampler draws further bits of the same U and encloses t more
// tightly, until they part. Strips are compared with precomputed enclosures;
// exp by the partial sums of its alternating series.
type DiscreteGaussian struct {
	*strips
	src Source
}

// strips holds what depends on sigma alone; it is shared and never written.
type strips struct {
	sigma Sigma
	q     uint // strips are 2^q wide

	// c = cNum / cDen, exactly, and c*2^72 rounded down, used if q > 0.
	cNum, cDen *big.Int
	c72        uint64

	// below[k]..below[k]+2 encloses 2^63 P[strip <= k]. The last one reaches 2^63.
	below []uint64
	// guide[i] is the first strip possible for a U that starts with bits i.
	guide [1 << guideBits]uint16
}

const (
	stripBits = 63 // the 64th bit of a word is the sign
	guideBits = 9
)

// NewDiscreteGaussian returns a sampler that draws from src. It computes
// tables for less than a millisecond; use [DiscreteGaussian.With] for further sources.
func NewDiscreteGaussian(sigma Sigma, src Source) (*DiscreteGaussian, error) {
	if err := sigma.check(); err != nil {
		return nil, err
	}
	return &DiscreteGaussian{newStrips(sigma), src}, nil
}

// With returns a sampler of the same distribution that draws from src. The two
// share their tables, and may be used at the same time.
func (d *DiscreteGaussian) With(src Source) *DiscreteGaussian {
	return &DiscreteGaussian{d.strips, src}
}

// Sigma returns the parameter sigma of the mass function. The variance is a
// little below its square: 0.215 at sigma = 0.5, 1 - 2e-7 at 1, and the same to
// 1e-16 from 1.5 on.
func (d *DiscreteGaussian) Sigma() Sigma { return d.sigma }

func newStrips(sigma Sigma) *strips {
	s := &strips{sigma: sigma}
	if n := bits.Len64(uint64(sigma)) - 1 - sigmaFractionBits - 4; n > 0 {
		s.q = uint(n)
	}
	// c = s^2 / 2 sigma^2 = 2^(2q + 2*20 - 1) / Sigma^2.
	s.cNum = new(big.Int).Lsh(big.NewInt(1), 2*s.q+2*sigmaFractionBits-1)
	s.cDen = new(big.Int).SetUint64(uint64(sigma))
	s.cDen.Mul(s.cDen, s.cDen)
	if s.q > 0 { // then 2^-11 < c <= 2^-9
		c72 := new(big.Int).Lsh(s.cNum, 72)
		s.c72 = c72.Quo(c72, s.cDen).Uint64()
	}

	const one = 1 << stripBits
	lo, _ := s.cumulative(stripBits)
	for _, t := range lo {
		s.below = append(s.below, t.Uint64())
		if t.Uint64() >= one-2 {
			break
		}
	}
	k := 0
	for i := range s.guide {
		// Strip k is out of question once U is surely above below[k].
		for s.below[k]+2 <= uint64(i)<<(stripBits-guideBits) {
			k++
		}
		s.guide[i] = uint16(k)
	}
	return s
}

// Add adds an independent draw to every coordinate of x.
func (d *DiscreteGaussian) Add(x []int64) {
	for i := range x {
		x[i] += d.draw()
	}
}

func (d *DiscreteGaussian) draw() int64 {
	for {
		word := d.src.Uint64()
		k := d.strip(word >> 1)
		x := k << d.q
		if d.q > 0 {
			j := d.src.Uint64() >> (64 - d.q)
			if !d.accept(k, j) {
				continue
			}
			x += j
		}
		if word&1 == 0 {
			return int64(x)
		}
		if x != 0 {
			return -int64(x)
		}
	}
}

// strip returns the strip of the U whose first 63 bits are u.
func (d *DiscreteGaussian) strip(u uint64) uint64 {
	k := uint64(d.guide[u>>(stripBits-guideBits)])
	for u >= d.below[k] {
		if u-d.below[k] < 2 {
			return d.lazyStrip(u)
		}
		k++
	}
	return k
}

// seriesSlack bounds the rounding of accept's series, in units of 2^-64.
//
// gamma is low by less than 8: c72 is low by 1 and counts 2^64/2^62 times,
// w by 1 and counts c72/2^62 <= 2 times, the shift by 1. The n-th term's error
// e_n <= (0.6 e_{n-1} + 8 gamma^(n-1)/(n-1)! + 1)/n + 1 adds up to less than 50
// over 20 terms.
const seriesSlack = 64

// accept returns true with probability exp(-gamma), gamma = c v (2k + v),
// v = j / 2^q. It needs k < 2^9, which the table ensures with some room; then
// gamma < 0.6.
func (d *DiscreteGaussian) accept(k, j uint64) bool {
	if k >= uint64(len(d.below)) {
		return d.lazyAccept(k, j, 0, 0)
	}
	v := j << (54 - d.q) // v*2^54, exact: q <= 36
	hi, lo := bits.Mul64(v, k<<55+v)
	w := hi<<10 | lo>>54 // v(2k+v)*2^54
	hi, lo = bits.Mul64(d.c72, w)
	gamma := hi<<2 | lo>>62 // gamma*2^64

	// Reject iff U < 1 - exp(-gamma) = gamma - gamma^2/2 + gamma^3/6 - ...,
	// which lies between any two consecutive partial sums, as gamma < 1.
	u := d.src.Uint64()
	if u >= gamma+seriesSlack {
		return true
	}
	sum, term := gamma, gamma
	for n := uint64(2); n < 20; n += 2 {
		term, _ = bits.Mul64(term, gamma)
		term /= n
		sum -= term
		if u+seriesSlack < sum {
			return false
		}
		term, _ = bits.Mul64(term, gamma)
		term /= n + 1
		sum += term
		if u >= sum+seriesSlack {
			return true
		}
	}
	return d.lazyAccept(k, j, u, 64)
}
