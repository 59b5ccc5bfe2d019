package population_test

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sync"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"

	"github.com/undertone-fl/undertone/simulations/population"
)

var plain = population.Synthetic{Clients: 20000, Dim: 50, Rank: 3, Sparsity: 4, Samples: 50, LabelNoise: 0.1}

// hard has every variant at once.
var hard = population.Synthetic{Clients: 20000, Dim: 20, Rank: 2, Sparsity: 3, Samples: 10, LabelNoise: 0.5,
	WScale: 2, UnequalSamples: true, Correlation: 0.6, HeavyTails: true, Outliers: 0.1}

func synthetic(t testing.TB, cfg population.Synthetic, seed uint64) *population.Generated {
	t.Helper()
	pop, err := population.NewSynthetic(cfg, seed)
	if err != nil {
		t.Fatal(err)
	}
	return pop
}

var (
	_ population.Population = (*population.Generated)(nil)
	_ population.Truth      = (*population.Generated)(nil)
)

// A moment's tolerance is 5 standard errors, so that a fresh seed would be
// refused less than once in a million.
func within(t *testing.T, what string, got, want, standardError float64) {
	t.Helper()
	if !(math.Abs(got-want) <= 5*standardError) {
		t.Errorf("%s is %.5g, want %.5g within %.2g", what, got, want, 5*standardError)
	}
}

// column returns column c of a, which has cols columns.
func column(a []float64, cols, c int) []float64 {
	out := make([]float64, 0, len(a)/cols)
	for i := c; i < len(a); i += cols {
		out = append(out, a[i])
	}
	return out
}

func TestSharedBasisIsOrthonormal(t *testing.T) {
	for _, shape := range [][2]int{{50, 3}, {5, 5}, {1, 1}, {300, 8}} {
		pop := synthetic(t, population.Synthetic{Clients: 1, Dim: shape[0], Rank: shape[1], Samples: 1}, 1)
		u := pop.U()
		for a := range shape[1] {
			for b := range shape[1] {
				want := 0.0
				if a == b {
					want = 1
				}
				if got := floats.Dot(column(u, shape[1], a), column(u, shape[1], b)); math.Abs(got-want) > 1e-13 {
					t.Errorf("%v: columns %d and %d have product %g", shape, a, b, got)
				}
			}
		}
		u[0] = 7
		if pop.U()[0] == 7 {
			t.Error("U is not a copy")
		}
	}
}

// The span of U* has no preferred direction: over many seeds, the share of
// the first unit vector in it has mean r/d and the Beta distribution's
// variance, 2r(d-r)/(d^2(d+2)).
func TestSharedBasisIsUniform(t *testing.T) {
	const d, r, n = 6, 2, 4000
	var shares []float64
	for seed := range uint64(n) {
		u := synthetic(t, population.Synthetic{Clients: 1, Dim: d, Rank: r, Samples: 1}, seed).U()
		shares = append(shares, u[0]*u[0]+u[1]*u[1])
	}
	mean, variance := stat.MeanVariance(shares, nil)
	want := 2.0 * r * (d - r) / (d * d * (d + 2))
	within(t, "mean share", mean, float64(r)/d, math.Sqrt(want/n))
	within(t, "its variance", variance, want, want*math.Sqrt(2.0/n)) // Beta has thinner tails than the normal
}

// Clients are the same whoever asks for them, in whatever order, into
// whatever storage.
func TestClientsAreFunctionsOfSeedAndNumber(t *testing.T) {
	for name, cfg := range map[string]population.Synthetic{"plain": plain, "hard": hard} {
		t.Run(name, func(t *testing.T) {
			const n, workers = 200, 8
			want := make([]population.Samples, n)
			for i := range want {
				synthetic(t, cfg, 3).Train(i, &want[i])
			}
			pop := synthetic(t, cfg, 3)
			var wg sync.WaitGroup
			for worker := range workers {
				wg.Go(func() {
					dst := population.Samples{Columns: []int32{1}}
					theta := make([]float64, cfg.Dim)
					for step := range n {
						i := (step*(2*worker+1) + 31*worker) % n
						pop.Parameters(i, theta, nil)
						if pop.Train(i, &dst); !reflect.DeepEqual(dst, want[i]) {
							t.Errorf("worker %d sees another client %d", worker, i)
						}
						dst.X[0] = math.NaN() // the storage is the caller's
					}
				})
			}
			wg.Wait()
			var other population.Samples
			if synthetic(t, cfg, 4).Train(0, &other); reflect.DeepEqual(other, want[0]) {
				t.Error("another seed gives the same client")
			}
			if reflect.DeepEqual(want[0], want[1]) {
				t.Error("two clients are the same")
			}
		})
	}
}

func TestTrainObeysParameters(t *testing.T) {
	for name, cfg := range map[string]population.Synthetic{"plain": plain, "hard": hard} {
		cfg.LabelNoise = 0
		pop := synthetic(t, cfg, 1)
		theta := make([]float64, cfg.Dim)
		var s population.Samples
		for i := range 500 {
			pop.Parameters(i, theta, nil)
			pop.Train(i, &s)
			if s.Width(cfg.Dim) != cfg.Dim || len(s.X) != len(s.Y)*cfg.Dim {
				t.Fatalf("%s: X has %d numbers for %d responses", name, len(s.X), len(s.Y))
			}
			for j, y := range s.Y {
				if want := floats.Dot(theta, s.X[j*cfg.Dim:(j+1)*cfg.Dim]); math.Abs(y-want) > 1e-12 {
					t.Fatalf("%s: client %d, sample %d: y = %v, x^T theta = %v", name, i, j, y, want)
				}
			}
			if pop.Test(i, &s); len(s.Y) != 0 || len(s.X) != 0 {
				t.Fatal("a synthetic client has held-out samples")
			}
		}
	}
}

// Without a sparse part, theta lies in span(U*) with w ~ N(0, WScale^2 I).
func TestLowRankPart(t *testing.T) {
	const scale = 3.0
	cfg := plain
	cfg.Sparsity, cfg.WScale = 0, scale
	pop := synthetic(t, cfg, 1)
	u := pop.U()
	theta := make([]float64, cfg.Dim)
	w := make([][]float64, cfg.Rank)
	for i := range pop.Len() {
		if support := pop.Parameters(i, theta, nil); len(support) != 0 {
			t.Fatal("a support without a sparse part")
		}
		norm := 0.0
		for c := range w {
			v := floats.Dot(column(u, cfg.Rank, c), theta)
			w[c] = append(w[c], v)
			norm += v * v
		}
		if off := floats.Dot(theta, theta) - norm; math.Abs(off) > 1e-12*norm {
			t.Fatalf("client %d leaves the span by %g", i, off)
		}
	}
	n := float64(pop.Len())
	for a := range w {
		within(t, "mean of w", stat.Mean(w[a], nil), 0, scale/math.Sqrt(n))
		within(t, "variance of w", stat.Variance(w[a], nil), scale*scale, scale*scale*math.Sqrt(2/n))
		for b := range a {
			within(t, "correlation of w", stat.Correlation(w[a], w[b], nil), 0, 1/math.Sqrt(n))
		}
	}
}

// With a negligible w, theta is b.
func TestSparsePart(t *testing.T) {
	const tiny = 1e-9
	cfg := plain
	cfg.WScale = tiny
	pop := synthetic(t, cfg, 1)
	theta := make([]float64, cfg.Dim)
	var support []int32
	var magnitudes []float64
	positive := 0.0
	at := make([]float64, cfg.Dim)
	for i := range pop.Len() {
		support = pop.Parameters(i, theta, support)
		if len(support) != cfg.Sparsity || !slices.IsSorted(support) {
			t.Fatalf("client %d has support %v", i, support)
		}
		for j, v := range theta {
			if !slices.Contains(support, int32(j)) {
				if math.Abs(v) > 10*tiny {
					t.Fatalf("client %d has %g outside its support", i, v)
				}
				continue
			}
			if math.Abs(v) < 1-10*tiny || math.Abs(v) > 5+10*tiny {
				t.Fatalf("client %d has a coefficient %g", i, v)
			}
			magnitudes = append(magnitudes, math.Abs(v))
			at[j]++
			if v > 0 {
				positive++
			}
		}
	}
	n := float64(len(magnitudes))
	mean, variance := stat.MeanVariance(magnitudes, nil)
	within(t, "mean magnitude", mean, 3, math.Sqrt(16.0/12/n))
	within(t, "variance of the magnitude", variance, 16.0/12, 16.0/12*math.Sqrt(0.8/n)) // kurtosis 1.8
	within(t, "share of positive signs", positive/n, 0.5, 0.5/math.Sqrt(n))
	p := float64(cfg.Sparsity) / float64(cfg.Dim)
	for j := range at {
		within(t, fmt.Sprintf("share of position %d", j), at[j]/float64(pop.Len()), p, math.Sqrt(p*(1-p)/float64(pop.Len())))
	}
}

func TestFeaturesAndNoise(t *testing.T) {
	for _, rho := range []float64{0, 0.6, -0.9} {
		cfg := plain
		cfg.Clients, cfg.Dim, cfg.Correlation, cfg.LabelNoise = 4000, 8, rho, 0.5
		pop := synthetic(t, cfg, 1)
		theta := make([]float64, cfg.Dim)
		var x, noise []float64
		var s population.Samples
		for i := range pop.Len() {
			pop.Train(i, &s)
			pop.Parameters(i, theta, nil)
			x = append(x, s.X...)
			for j, y := range s.Y {
				noise = append(noise, y-floats.Dot(theta, s.X[j*cfg.Dim:(j+1)*cfg.Dim]))
			}
		}
		n := float64(len(noise))
		for a := range cfg.Dim {
			xa := column(x, cfg.Dim, a)
			mean, variance := stat.MeanVariance(xa, nil)
			within(t, "mean of a feature", mean, 0, 1/math.Sqrt(n))
			within(t, "variance of a feature", variance, 1, math.Sqrt(2/n))
			for b := range a {
				want := math.Pow(rho, float64(a-b))
				within(t, "correlation of features", stat.Correlation(xa, column(x, cfg.Dim, b), nil), want, (1-want*want)/math.Sqrt(n))
			}
			within(t, "correlation with the noise", stat.Correlation(xa, noise, nil), 0, 1/math.Sqrt(n))
		}
		mean, variance := stat.MeanVariance(noise, nil)
		within(t, "mean noise", mean, 0, 0.5/math.Sqrt(n))
		within(t, "variance of the noise", variance, 0.25, 0.25*math.Sqrt(2/n))
	}
}

// Student's t with 3 degrees of freedom exceeds 3 standard deviations with
// probability 0.0138 (t = 5.196), a normal with 0.0027.
func TestHeavyTails(t *testing.T) {
	cfg := plain
	cfg.LabelNoise, cfg.HeavyTails = 2, true
	pop := synthetic(t, cfg, 1)
	theta := make([]float64, cfg.Dim)
	var s population.Samples
	var n, far float64
	for i := range 4000 {
		pop.Train(i, &s)
		pop.Parameters(i, theta, nil)
		for j, y := range s.Y {
			n++
			if math.Abs(y-floats.Dot(theta, s.X[j*cfg.Dim:(j+1)*cfg.Dim])) > 3*cfg.LabelNoise {
				far++
			}
		}
	}
	p := 1 - 2/math.Pi*(0.3+math.Atan(3)) // the distribution function in closed form
	within(t, "share beyond 3 standard deviations", far/n, p, math.Sqrt(p*(1-p)/n))
}

func TestUnequalSamples(t *testing.T) {
	cfg := plain
	cfg.Clients, cfg.Dim, cfg.Rank, cfg.Sparsity, cfg.UnequalSamples = 100000, 1, 1, 0, true
	pop := synthetic(t, cfg, 1)
	var s population.Samples
	var counts []float64
	for i := range pop.Len() {
		pop.Train(i, &s)
		counts = append(counts, float64(len(s.Y)))
	}
	// A log-normal of log standard deviation 1 has variation sqrt(e - 1).
	within(t, "mean count", stat.Mean(counts, nil), 50, 50*math.Sqrt((math.E-1)/float64(pop.Len())))
	slices.Sort(counts)
	median := counts[len(counts)/2]
	within(t, "median count", median, 50*math.Exp(-0.5), median*math.Sqrt(math.Pi/2/float64(pop.Len()))+0.1) // rounding
	if counts[0] < 1 {
		t.Error("a client without samples")
	}

	cfg.Samples = 1
	pop = synthetic(t, cfg, 1)
	for i := range 1000 {
		if pop.Train(i, &s); len(s.Y) < 1 {
			t.Fatal("a client without samples")
		}
	}
}

func TestOutliers(t *testing.T) {
	cfg := plain
	cfg.Outliers = 0.2
	pop := synthetic(t, cfg, 1)
	theta := make([]float64, cfg.Dim)
	var coefficients []float64
	outliers := 0.0
	for i := range pop.Len() {
		if len(pop.Parameters(i, theta, nil)) == 0 {
			outliers++
			coefficients = append(coefficients, theta...)
		}
	}
	within(t, "share of outliers", outliers/float64(pop.Len()), 0.2, math.Sqrt(0.16/float64(pop.Len())))
	mean, variance := stat.MeanVariance(coefficients, nil)
	n := float64(len(coefficients))
	within(t, "mean coefficient", mean, 0, 2/math.Sqrt(n))
	within(t, "variance of the coefficients", variance, 4, 4*math.Sqrt(2/n))
}

func TestSyntheticRefusals(t *testing.T) {
	for _, c := range []struct {
		change func(*population.Synthetic)
		want   string
	}{
		{func(c *population.Synthetic) { c.Clients = 0 }, "clients: 0 is less than 1"},
		{func(c *population.Synthetic) { c.Dim = -1 }, "dim: -1 is less than 1"},
		{func(c *population.Synthetic) { c.Rank = 0 }, "rank: 0 is less than 1"},
		{func(c *population.Synthetic) { c.Rank = 51 }, "rank: 51 is more than the 50 features"},
		{func(c *population.Synthetic) { c.Sparsity = -1 }, "sparsity: -1 is negative"},
		{func(c *population.Synthetic) { c.Sparsity = 51 }, "sparsity: 51 is more than the 50 features"},
		{func(c *population.Synthetic) { c.Samples = 0 }, "samples: 0 is less than 1"},
		{func(c *population.Synthetic) { c.LabelNoise = -0.1 }, "label-noise: -0.1 is not a standard deviation"},
		{func(c *population.Synthetic) { c.LabelNoise = math.NaN() }, "label-noise: NaN is not a standard deviation"},
		{func(c *population.Synthetic) { c.LabelNoise = math.Inf(1) }, "label-noise: +Inf is not a standard deviation"},
		{func(c *population.Synthetic) { c.WScale = -1 }, "w-scale: -1 is not a scale"},
		{func(c *population.Synthetic) { c.WScale = math.NaN() }, "w-scale: NaN is not a scale"},
		{func(c *population.Synthetic) { c.Correlation = 1 }, "correlation: 1 is not between -1 and 1"},
		{func(c *population.Synthetic) { c.Correlation = math.NaN() }, "correlation: NaN is not between -1 and 1"},
		{func(c *population.Synthetic) { c.Outliers = 1.5 }, "outliers: 1.5 is not a share from 0 to 1"},
		{func(c *population.Synthetic) { c.Outliers = math.NaN() }, "outliers: NaN is not a share from 0 to 1"},
	} {
		cfg := plain
		c.change(&cfg)
		_, err := population.NewSynthetic(cfg, 1)
		if field := (*population.FieldError)(nil); !errors.As(err, &field) || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

func TestTrainDoesNotAllocate(t *testing.T) {
	for name, cfg := range map[string]population.Synthetic{"plain": plain, "hard": hard} {
		pop := synthetic(t, cfg, 1)
		var dst population.Samples
		theta := make([]float64, cfg.Dim)
		support := make([]int32, cfg.Sparsity)
		for i := range 100 {
			pop.Train(i, &dst)
		}
		i := 0
		if n := testing.AllocsPerRun(99, func() {
			pop.Train(i, &dst)
			support = pop.Parameters(i, theta, support)
			i++
		}); n != 0 {
			t.Errorf("%s: %v allocations a client", name, n)
		}
	}
}

func BenchmarkTrain(b *testing.B) {
	pop := synthetic(b, plain, 1)
	var dst population.Samples
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		pop.Train(i%pop.Len(), &dst)
		i++
	}
}
