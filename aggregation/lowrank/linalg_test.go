package lowrank

import (
	"errors"
	"math"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"
)

func TestPackingKeepsTheNorm(t *testing.T) {
	rng := seeded(1)
	for n := 1; n <= 12; n++ {
		m := symmetrised(gaussianMatrix(rng, n, n))
		packed := pack(m)
		if len(packed) != triangle(n) {
			t.Fatalf("n = %d: %d numbers instead of %d", n, len(packed), triangle(n))
		}
		if got, want := floats.Norm(packed, 2), mat.Norm(m, 2); math.Abs(got-want) > 1e-13*want {
			t.Errorf("n = %d: packed norm %v, Frobenius norm %v", n, got, want)
		}
		requireClose(t, "unpacked", unpack(packed, n), m, 1e-14)
	}
}

// TestSpectralNoise: against the mean over simulated Wigner matrices. At
// n = 120 the edge is 2 % inside its limit (Tracy, Widom).
func TestSpectralNoise(t *testing.T) {
	const n, draws, sd = 120, 20, 3.0
	rng := seeded(2)
	var mean float64
	for range draws {
		values, _, err := eigen(unpack(gaussian(rng, triangle(n), sd), n))
		if err != nil {
			t.Fatal(err)
		}
		mean += max(values[n-1], -values[0]) / draws
	}
	if want := spectralNoise(sd, n); math.Abs(mean/want-1) > 0.04 {
		t.Errorf("simulated norm %v, spectralNoise %v", mean, want)
	}
}

func TestEigenRefusesWhatIsNoNumber(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1)} {
		m := mat.NewSymDense(3, []float64{1, 2, v, 2, 1, 0, v, 0, 1})
		if _, _, err := eigen(m); !errors.Is(err, ErrNotFinite) {
			t.Errorf("eigenvectors of %v: %v", v, err)
		}
	}
}

func TestThinQR(t *testing.T) {
	rng := seeded(3)
	for _, shape := range [][2]int{{1, 1}, {5, 5}, {40, 3}, {7, 1}} {
		d, n := shape[0], shape[1]
		a := gaussianMatrix(rng, d, n)
		q, r := thinQR(a)
		qm := columns(q, d)
		requireClose(t, "Q R", multiply(qm, r), a, 1e-12)
		requireClose(t, "Q^T Q", multiply(qm.T(), qm), identity(n), 1e-12)
	}
}

func TestFloorEigenvalues(t *testing.T) {
	rng := seeded(4)
	const n, floor = 4, 0.5
	q := columns(randomBasis(rng, n, n), n)
	a := multiply(q, mat.NewDiagDense(n, []float64{-3, 0, 0.6, 2}), q.T())
	want := multiply(q, mat.NewDiagDense(n, []float64{floor, floor, 0.6, 2}), q.T())
	if err := floorEigenvalues(a.RawMatrix().Data, n, floor); err != nil {
		t.Fatal(err)
	}
	requireClose(t, "floored", a, want, 1e-13)
}

func TestGain(t *testing.T) {
	positive := rapid.Float64Range(1e-300, 1e300)
	rapid.Check(t, func(t *rapid.T) {
		norm, noise := positive.Draw(t, "norm"), positive.Draw(t, "noise")
		g := gain(norm, noise)
		if !(g >= 0 && g <= 1) {
			t.Fatalf("gain %v", g)
		}
		if norm <= noise && g != 0 {
			t.Fatalf("gain %v at norm %v, noise %v", g, norm, noise)
		}
		if norm > noise && math.Abs(g-(1-(noise/norm)*(noise/norm))) > 1e-15 {
			t.Fatalf("gain %v at norm %v, noise %v", g, norm, noise)
		}
		if more := gain(2*norm, noise); more < g {
			t.Fatalf("gain falls from %v to %v as the norm doubles", g, more)
		}
		if less := gain(norm, 2*noise); less > g {
			t.Fatalf("gain rises from %v to %v as the noise doubles", g, less)
		}
	})
	if g := gain(0, 0); g != 1 {
		t.Errorf("without noise the gain is %v", g)
	}
}

// TestShrinkBeatsTheEstimate: James and Stein's theorem, mean squared error
// over 2,000 draws below that of the estimate as it is, wherever the truth
// lies; and near nothing of it where the truth is 0.
func TestShrinkBeatsTheEstimate(t *testing.T) {
	const n, draws, sd = 10, 2000, 2.0
	for _, size := range []float64{0, 1, 3, 10, 100} {
		rng := seeded(5)
		var raw, shrunk float64
		for range draws {
			x := gaussian(rng, n, sd)
			x[0] += size
			raw += squaredDistance(x, size)
			shrink(x, sd)
			shrunk += squaredDistance(x, size)
		}
		if shrunk > raw || size == 0 && shrunk > 0.2*raw {
			t.Errorf("truth of norm %v: squared error %v of the estimate's", size, shrunk/raw)
		}
	}
}

// squaredDistance is that of x from (size, 0, ..., 0).
func squaredDistance(x []float64, size float64) float64 {
	return floats.Dot(x, x) - 2*size*x[0] + size*size
}

func TestSymmetrised(t *testing.T) {
	a := gaussianMatrix(seeded(6), 4, 4)
	var want mat.Dense
	want.Add(a, a.T())
	want.Scale(0.5, &want)
	requireClose(t, "symmetrised", symmetrised(a), &want, 1e-15)
}
