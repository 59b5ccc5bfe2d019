package noise

import "math/big"

// The rare decisions of DiscreteGaussian, where the first bits of a uniform U
// do not settle on which side of a real number it lies. They run about once
// in 2^50 draws, so they are written to be checked, not to be fast.
//
// Real numbers are enclosed in fixed point with guardBits more bits than the
// answer has; the rounding errors of a computation stay below slack units of
// the last of those bits.
const guardBits = 64

// lazyStrip returns the strip of a U whose first 63 bits are given.
func (d *DiscreteGaussian) lazyStrip(first uint64) uint64 {
	u := new(big.Int).SetUint64(first)
	for n := uint(stripBits + 64); ; n += 64 {
		extend(u, d.src)
		lo, hi := d.cumulative(n)
		for k := range hi {
			if u.Cmp(lo[k]) < 0 {
				return uint64(k)
			}
			if u.Cmp(hi[k]) < 0 {
				break // between the two: more bits
			}
		}
	}
}

// lazyAccept decides whether U >= 1 - exp(-c v (2k + v)), v = j / 2^q, for a U
// whose first n bits (0 or 64) are given.
func (d *DiscreteGaussian) lazyAccept(k, j, first uint64, n uint) bool {
	// c v (2k + v) = cNum j (2k 2^q + j) / (cDen 2^2q)
	num := new(big.Int).SetUint64(k << (d.q + 1))
	bigJ := new(big.Int).SetUint64(j)
	num.Add(num, bigJ).Mul(num, bigJ).Mul(num, d.cNum)
	den := new(big.Int).Lsh(d.cDen, 2*d.q)

	u := new(big.Int).SetUint64(first)
	for {
		extend(u, d.src)
		n += 64
		lo, hi := expNeg(num, den, n)
		one := new(big.Int).Lsh(big.NewInt(1), n)
		if u.Cmp(lo.Sub(one, lo)) >= 0 {
			return true
		}
		if u.Cmp(hi.Sub(one, hi)) < 0 {
			return false
		}
	}
}

// extend appends the next 64 bits of U to u.
func extend(u *big.Int, src Source) {
	u.Lsh(u, 64).Or(u, new(big.Int).SetUint64(src.Uint64()))
}

// cumulative encloses 2^n P[strip <= k] in [lo[k], hi[k]], hi[k] - lo[k] <= 2,
// for k up to where the rest is too small to matter.
func (s *strips) cumulative(n uint) (lo, hi []*big.Int) {
	// weight_k = exp(-c k^2), from weight_{k+1} = weight_k exp(-c)^(2k+1), until
	// it vanishes at p bits, at k <= 39 sqrt(p) as c > 2^-11. A product of
	// numbers up to 1 adds their errors and one unit, so that the k-th ratio is
	// off by less than 8k units, the k-th weight by 8k^2, the sum by 8k^3; the
	// tail is less than four times a weight that vanishes. Together that is
	// below 2^48 units for every n up to 10^5, and nobody meets a U that
	// agrees with a threshold in so many bits.
	p := n + guardBits
	exp, _ := expNeg(s.cNum, s.cDen, p)
	exp2 := mulFixed(new(big.Int), exp, exp, p)
	weight := new(big.Int).Lsh(big.NewInt(1), p)
	ratio := new(big.Int).Set(exp)
	sum := new(big.Int)
	for weight.Sign() > 0 {
		sum.Add(sum, weight)
		lo = append(lo, new(big.Int).Set(sum))
		mulFixed(weight, weight, ratio, p)
		mulFixed(ratio, ratio, exp2, p)
	}

	slack := new(big.Int).Lsh(big.NewInt(1), 48)
	atLeast := new(big.Int).Sub(sum, slack)
	atMost := new(big.Int).Add(sum, slack)
	hi = make([]*big.Int, len(lo))
	for k, partial := range lo {
		hi[k] = new(big.Int).Add(partial, slack)
		hi[k].Lsh(hi[k], n).Quo(hi[k], atLeast)
		hi[k].Add(hi[k], big.NewInt(1))
		partial.Sub(partial, slack).Lsh(partial, n).Quo(partial, atMost)
	}
	return lo, hi
}

// expNeg encloses 2^n exp(-num/den) in [lo, hi], hi - lo <= 2, for
// 0 <= num/den <= 16.
func expNeg(num, den *big.Int, n uint) (lo, hi *big.Int) {
	term := new(big.Int).Lsh(big.NewInt(1), n+guardBits)
	sum := new(big.Int).Set(term)
	step := new(big.Int)
	for i := int64(1); term.Sign() > 0; i++ {
		term.Mul(term, num).Quo(term, step.Mul(den, big.NewInt(i)))
		if i%2 == 1 {
			sum.Sub(sum, term)
		} else {
			sum.Add(sum, term)
		}
	}
	// A unit lost in one term counts at most e^16 < 2^24 times over all later
	// ones, and there are fewer than n + 200 terms.
	slack := new(big.Int).Lsh(big.NewInt(1), 48)
	lo = new(big.Int).Sub(sum, slack)
	hi = new(big.Int).Add(sum, slack)
	lo.Rsh(lo, guardBits)
	hi.Rsh(hi, guardBits).Add(hi, big.NewInt(1))
	return lo, hi
}

// mulFixed sets z to the product of two numbers with p fractional bits.
func mulFixed(z, x, y *big.Int, p uint) *big.Int {
	return z.Mul(x, y).Rsh(z, p)
}
