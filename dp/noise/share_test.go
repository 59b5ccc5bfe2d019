package noise

import (
	"errors"
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

func TestSharesReachTheTotalAndNoMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := Sigma(rapid.Uint64Range(uint64(MinShare), uint64(MaxSigma)).Draw(t, "total"))
		n := rapid.IntRange(1, 1_000_000).Draw(t, "n")
		local, _, err := Share(total, n)
		var narrow *ShareError
		if errors.As(err, &narrow) {
			if total.Float64()/math.Sqrt(float64(n)) >= MinShare.Float64() {
				t.Fatalf("refused: %v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		want := square(total)
		if sumVariance(local, n).Cmp(want) < 0 {
			t.Fatalf("%d shares of %d miss %d", n, local, total)
		}
		if sumVariance(local-1, n).Cmp(want) >= 0 {
			t.Fatalf("%d shares of %d are more than %d needs", n, local, total)
		}
	})
}

func square(s Sigma) *big.Int {
	x := new(big.Int).SetUint64(uint64(s))
	return x.Mul(x, x)
}

func sumVariance(local Sigma, n int) *big.Int {
	x := square(local)
	return x.Mul(x, big.NewInt(int64(n)))
}

func TestShareRefuses(t *testing.T) {
	var narrow *ShareError
	if _, _, err := Share(MinShare, 2); !errors.As(err, &narrow) || narrow.NMin != 2 || narrow.Total != MinShare {
		t.Errorf("two shares of sigma 2: %v", err)
	}
	for _, n := range []int{0, -1} {
		if _, _, err := Share(MaxSigma, n); err == nil {
			t.Errorf("%d shares were handed out", n)
		}
	}
}

// At the narrowest share the closeness is what "as good as one" means.
func TestClosenessOfTheNarrowestShare(t *testing.T) {
	_, closeness, err := Share(MinShare*1000, 1_000_000)
	if err != nil || closeness > 1e-16 {
		t.Errorf("%g, %v", closeness, err)
	}
	if one := sumCloseness(2, 1); one != 0 {
		t.Errorf("a single share is off by %g", one)
	}
}

// The mass function of a sum of discrete Gaussians, by convolution, against
// that of one: the largest logarithm of a ratio is within the bound, and the
// bound is not idle.
func TestClosenessBoundsTheSum(t *testing.T) {
	for _, c := range []struct {
		sigma float64
		n     int
	}{{0.5, 2}, {0.6, 3}, {0.7, 3}, {0.8, 5}, {1, 4}} {
		const reach = 60
		one := discreteMass(c.sigma, reach)
		sum := one
		for range c.n - 1 {
			sum = convolve(sum, one)
		}
		want := discreteMass(c.sigma*math.Sqrt(float64(c.n)), reach)
		var worst float64
		for x := -4; x <= 4; x++ { // beyond, and below 1e-9, floats decide
			worst = max(worst, math.Abs(math.Log(sum[reach+x]/want[reach+x])))
		}
		bound := sumCloseness(c.sigma, c.n)
		if worst > bound || worst < bound/200 {
			t.Errorf("%d of sigma %g: off by %.2g, bound %.2g", c.n, c.sigma, worst, bound)
		}
	}
}

func discreteMass(sigma float64, reach int) []float64 {
	p := make([]float64, 2*reach+1)
	var total float64
	for i := range p {
		x := float64(i - reach)
		p[i] = math.Exp(-x * x / (2 * sigma * sigma))
		total += p[i]
	}
	for i := range p {
		p[i] /= total
	}
	return p
}

func convolve(a, b []float64) []float64 {
	reach := len(a) / 2
	sum := make([]float64, len(a))
	for i, p := range a {
		for j, q := range b {
			if k := i + j - reach; k >= 0 && k < len(sum) {
				sum[k] += p * q
			}
		}
	}
	return sum
}
