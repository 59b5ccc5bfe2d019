package noise_test

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	googlenoise "github.com/google/differential-privacy/go/v2/noise"

	"github.com/undertone-fl/undertone/dp/noise"
)

func mustSigma(t testing.TB, x float64) noise.Sigma {
	t.Helper()
	sigma, err := noise.SigmaAtLeast(x)
	if err != nil {
		t.Fatal(err)
	}
	return sigma
}

func mustDiscrete(t testing.TB, sigma float64, path ...uint64) *noise.DiscreteGaussian {
	t.Helper()
	d, err := noise.NewDiscreteGaussian(mustSigma(t, sigma), noise.NewSeeded(1, path...))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func draw(s noise.Sampler, n int) []int64 {
	x := make([]int64, n)
	s.Add(x)
	return x
}

// The sigmas lie on both sides of 32, where strips become wider than 1, and of
// powers of two, where they are widest and narrowest against sigma.
func TestDiscreteGaussianFits(t *testing.T) {
	const n = 2_000_000
	for _, x := range []float64{0.5, 2, 10.3, 31.99, 32, 63.9, 1000.7, 1 << 20, 1 << 40} {
		t.Run(fmt.Sprint(x), func(t *testing.T) {
			t.Parallel()
			d := mustDiscrete(t, x)
			sigma := d.Sigma().Float64()
			draws := draw(d, n)
			h := discreteHistogram(sigma, n)
			if p := h.fit(draws); p < falseAlarm {
				t.Errorf("chi-square: p = %.1g", p)
			}
			moments(t, draws, variance(sigma))
			if x >= 32 {
				lowBitsUniform(t, draws)
			}
			// The test sees a sigma that is off by 2 %.
			if x >= 1 {
				if p := discreteHistogram(sigma*1.02, n).fit(draws); p >= falseAlarm {
					t.Errorf("chi-square against 1.02 sigma: p = %.1g, want less", p)
				}
			}
		})
	}
}

// variance returns that of N_Z(0, sigma^2).
func variance(sigma float64) float64 {
	if sigma > 4 {
		return sigma * sigma
	}
	var total, second float64
	for x := -60.0; x <= 60; x++ {
		w := math.Exp(-x * x / (2 * sigma * sigma))
		total += w
		second += x * x * w
	}
	return second / total
}

// moments checks mean, variance, and independence of neighbouring draws, by
// the normal approximation of each.
func moments(t *testing.T, draws []int64, variance float64) {
	t.Helper()
	n := float64(len(draws))
	sd := math.Sqrt(variance)
	var mean, second, fourth, lag float64
	previous := 0.0
	for _, v := range draws {
		x := float64(v) / sd
		mean += x
		second += x * x
		fourth += x * x * x * x
		lag += x * previous
		previous = x
	}
	second /= n
	fourth /= n
	for _, c := range []struct {
		name string
		z    float64
	}{
		{"mean", mean / math.Sqrt(n)},
		{"variance", (second - 1) / math.Sqrt((fourth-1)/n)},
		{"correlation with the previous draw", lag / math.Sqrt(n)},
	} {
		if zTail(c.z) < falseAlarm {
			t.Errorf("%s is off by %.1f standard deviations", c.name, c.z)
		}
	}
}

// lowBitsUniform checks that the last three bits are uniform, which holds to
// exp(-2 pi^2 sigma^2 / 64).
func lowBitsUniform(t *testing.T, draws []int64) {
	t.Helper()
	h := &histogram{edges: []int64{1, 2, 3, 4, 5, 6, 7}}
	low := make([]int64, len(draws))
	for i, x := range draws {
		low[i] = x & 7
	}
	for range 8 {
		h.p = append(h.p, 1.0/8)
	}
	if p := h.fit(low); p < falseAlarm {
		t.Errorf("last three bits: p = %.1g", p)
	}
}

func TestGoogleGaussianFits(t *testing.T) {
	const n = 20_000
	for _, x := range []float64{2, 10.3, 1 << 20, 1 << 40} {
		t.Run(fmt.Sprint(x), func(t *testing.T) {
			g, err := noise.NewGoogleGaussian(mustSigma(t, x))
			if err != nil {
				t.Fatal(err)
			}
			sigma := g.Sigma().Float64()
			draws := draw(g, n)
			if p := roundedHistogram(sigma, n).fit(draws); p < falseAlarm {
				t.Errorf("chi-square: p = %.1g", p)
			}
			moments(t, draws, sigma*sigma+1.0/12)
			if p := roundedHistogram(sigma*1.1, n).fit(draws); p >= falseAlarm {
				t.Errorf("chi-square against 1.1 sigma: p = %.1g, want less", p)
			}
		})
	}
}

func TestGoogleGaussianOverTheRange(t *testing.T) {
	for sigma := noise.MinSigma; sigma <= noise.MaxSigma/3; sigma = sigma*3 + 1 {
		if _, err := noise.NewGoogleGaussian(sigma); err != nil {
			t.Error(err)
		}
	}
	if _, err := noise.NewGoogleGaussian(noise.MaxSigma); err != nil {
		t.Error(err)
	}
}

// A draw x + noise, of the secret x = 0 or its neighbour x = 1, may be told
// from the neighbour's by the size of the noise only. The place of the last
// set bit holds what floating point leaks: 1 + noise is rounded where 0 +
// noise was not.
func TestLastBitOfOutputKeepsTheSecret(t *testing.T) {
	const n = 30_000
	// Secrets and noise of deviation 4, on a lattice of spacing 2^-10.
	const spacing = 0x1p-10
	lastBits := func(release func(secret float64) float64, secret float64) map[int]float64 {
		count := make(map[int]float64)
		for range n {
			count[lastBit(release(secret))]++
		}
		return count
	}
	integers := func(s noise.Sampler) func(float64) float64 {
		return func(secret float64) float64 {
			x := []int64{int64(secret / spacing)}
			s.Add(x)
			return float64(x[0]) * spacing
		}
	}
	google, err := noise.NewGoogleGaussian(mustSigma(t, 4/spacing))
	if err != nil {
		t.Fatal(err)
	}
	normals := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		name    string
		release func(secret float64) float64
		leaks   bool
	}{
		{"DiscreteGaussian", integers(mustDiscrete(t, 4/spacing)), false},
		{"floating-point normal", func(x float64) float64 { return x + 4*normals.NormFloat64() }, true},
		{"Google, integers", integers(google), false},
		{"Google, floats", func(x float64) float64 {
			y, err := googlenoise.Gaussian().AddNoiseFloat64(x, 1, 1, 1, 1e-5)
			if err != nil {
				t.Fatal(err)
			}
			return y
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := sameDistribution(lastBits(c.release, 0), lastBits(c.release, 1))
			if leaks := p < falseAlarm; leaks != c.leaks {
				t.Errorf("leaks = %v (p = %.1g), want %v", leaks, p, c.leaks)
			}
		})
	}
}

// lastBit returns the exponent of the last set bit of x.
func lastBit(x float64) int {
	if x == 0 {
		return math.MaxInt
	}
	fraction, exp := math.Frexp(x)
	return exp - 53 + bits.TrailingZeros64(uint64(int64(math.Ldexp(fraction, 53))))
}

// Every output that one secret can produce, its neighbour can produce.
func TestNeighboursShareTheirSupport(t *testing.T) {
	d := mustDiscrete(t, 2)
	for secret := range int64(2) {
		seen := make(map[int64]bool)
		for range 200_000 {
			x := []int64{secret}
			d.Add(x)
			seen[x[0]] = true
		}
		for y := int64(-6); y <= 7; y++ { // each missed with probability < e^-80
			if !seen[y] {
				t.Errorf("secret %d never gives %d", secret, y)
			}
		}
	}
}

func TestSeededNoiseIsFrozen(t *testing.T) {
	for _, c := range []struct {
		sigma float64
		want  []int64
	}{
		{2, []int64{0, 0, 3, 2, -2, 0, 0, 2, 3, 3, 0, 0}},
		{1000, []int64{136, 1497, 34, 1562, 162, -2399, 467, -88, 405, -1308, 1079, 1264}},
	} {
		if got := draw(mustDiscrete(t, c.sigma), len(c.want)); !slices.Equal(got, c.want) {
			t.Errorf("sigma %g: %d, want %d: results of earlier seeds can no longer be repeated", c.sigma, got, c.want)
		}
	}
}

func TestSamplersShareTablesAcrossGoroutines(t *testing.T) {
	d := mustDiscrete(t, 50)
	got := make([][]int64, 4)
	var group sync.WaitGroup
	for i := range got {
		group.Go(func() { got[i] = draw(d.With(noise.NewSeeded(7, uint64(i))), 1000) })
	}
	group.Wait()
	for i := range got {
		want := draw(d.With(noise.NewSeeded(7, uint64(i))), 1000)
		if !slices.Equal(got[i], want) {
			t.Errorf("stream %d depends on the others", i)
		}
	}
}

func TestAddDoesNotAllocate(t *testing.T) {
	d := mustDiscrete(t, 1000)
	x := make([]int64, 100)
	if n := testing.AllocsPerRun(100, func() { d.Add(x) }); n != 0 {
		t.Errorf("%g allocations", n)
	}
}

func TestSigmaRange(t *testing.T) {
	for _, x := range []float64{0.49, 1<<40 + 1, -1, 0, math.NaN(), math.Inf(1)} {
		if _, err := noise.SigmaAtLeast(x); !errors.Is(err, noise.ErrSigmaRange) {
			t.Errorf("SigmaAtLeast(%g): %v", x, err)
		}
	}
	for _, s := range []noise.Sigma{0, noise.MinSigma - 1, noise.MaxSigma + 1} {
		if _, err := noise.NewDiscreteGaussian(s, nil); !errors.Is(err, noise.ErrSigmaRange) {
			t.Errorf("NewDiscreteGaussian(%d): %v", s, err)
		}
		if _, err := noise.NewGoogleGaussian(s); !errors.Is(err, noise.ErrSigmaRange) {
			t.Errorf("NewGoogleGaussian(%d): %v", s, err)
		}
		if _, _, err := noise.Share(s, 1); !errors.Is(err, noise.ErrSigmaRange) {
			t.Errorf("Share(%d): %v", s, err)
		}
	}
	for _, x := range []float64{0.5, 0.7, 10.3, 1e9} {
		if s := mustSigma(t, x); s.Float64() < x || noise.Sigma(s-1).Float64() >= x {
			t.Errorf("SigmaAtLeast(%g) = %d is not the least", x, s)
		}
	}
}
