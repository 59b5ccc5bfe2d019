package lowrank

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

func TestLearnScales(t *testing.T) {
	c := Config{Dim: 3, Rank: 1, Rounds: 1, Features: Unscaled}
	bins := make([]float64, 3*scaleBins)
	bins[ScaleBin(5)] = 100           // between 4 and 8
	bins[scaleBins+ScaleBin(0.3)] = 3 // does not stand out
	bins[2*scaleBins+ScaleBin(0.3)] = 50
	bins[2*scaleBins+ScaleBin(9)] = 40 // some users only
	s := advance(t, c.Start(), map[string][]float64{PartMain: bins}, 1)
	want := []float64{1 / (4 * math.Sqrt2), 0, 1 / (0.25 * math.Sqrt2)}
	if !floats.EqualApprox(s.White.Diagonal, want, 1e-14) {
		t.Errorf("diagonal %v, want %v", s.White.Diagonal, want)
	}
}

// TestLearnMoments: exact moments give W^T S W = I and the pooled regression
// S^-1 X^T y, in parameters of the features as they are, with or without
// scales learned before.
func TestLearnMoments(t *testing.T) {
	const d = 6
	rng := seeded(1)
	for _, diagonal := range [][]float64{nil, {1, 2, 4, 0.5, 0.25, 1}} {
		s := Config{Dim: d, Rank: 1, Rounds: 1, Features: Standard, Centred: true}.Start()
		s.White.Diagonal = diagonal
		scaled := mat.NewDiagDense(d, nil)
		for i := range d {
			scaled.SetDiag(i, 1)
			if diagonal != nil {
				scaled.SetDiag(i, diagonal[i])
			}
		}
		g := gaussianMatrix(rng, d, 2*d)
		second := symmetrised(multiply(g, g.T()))
		theta := mat.NewVecDense(d, gaussian(rng, d, 0.1))
		cross := multiply(scaled, second, theta)
		sum := append(pack(multiply(scaled, second, scaled)), cross.RawMatrix().Data...)
		next := advance(t, s, map[string][]float64{PartMain: sum}, 0)
		requireSound(t, next)
		w := matrixOf(&next.White, d)
		whitened := multiply(w.T(), second, w)
		requireClose(t, "whitened moment, up to its size", scaledBy(whitened, 1/whitened.At(0, 0)), identity(d), 1e-9)
		requireClose(t, "mean", mat.NewVecDense(d, next.Model.Mean), theta, 1e-9)
	}
}

func scaledBy(m *mat.Dense, f float64) *mat.Dense {
	m.Scale(f, m)
	return m
}

// TestLearnItems: without noise the mean of each item's responses is its
// parameter, and whitened indicators have second moment I.
func TestLearnItems(t *testing.T) {
	const items = 4
	c := Config{Dim: items + 1, Rank: 1, Rounds: 1, Features: OneHot, Centred: true}
	count := []float64{40, 30, 20, 10, 0}
	means := []float64{1, -0.5, 0.25, 0}
	sum := append([]float64(nil), count...)
	for j, m := range means {
		sum = append(sum, m*count[j])
	}
	sum = append(sum, 0)
	s := advance(t, c.Start(), map[string][]float64{PartMain: sum}, 0)
	requireSound(t, s)
	for j, m := range means {
		if got := s.Model.Mean[j]; math.Abs(got-m) > 1e-14 {
			t.Errorf("item %d: mean %v, want %v", j, got, m)
		}
		if v := s.White.Diagonal[j]; math.Abs(v*v*count[j]/100-1) > 1e-14 {
			t.Errorf("item %d: second moment %v", j, v*v*count[j]/100)
		}
	}
	if s.White.Diagonal[items] != 0 {
		t.Error("the constant is not left out")
	}
	// Where noise drowns the counts all items are alike, and the mean is 0.
	s = advance(t, c.Start(), map[string][]float64{PartMain: sum}, 1000)
	for j := range items {
		if s.White.Diagonal[j] != 2 || s.Model.Mean[j] != 0 {
			t.Errorf("item %d under noise: whitening %v, mean %v", j, s.White.Diagonal[j], s.Model.Mean[j])
		}
	}
}

// TestRareItems: an item that noise made rare, or negative, is taken as a
// tenth of the average one.
func TestRareItems(t *testing.T) {
	c := Config{Dim: 4, Rank: 1, Rounds: 1, Features: OneHot, Centred: true}
	sum := []float64{60, 63, -3, 0, 0, 0, 2, 0}
	s := advance(t, c.Start(), map[string][]float64{PartMain: sum}, 2)
	requireSound(t, s)
	const total = 60 + 63 + 4.0
	if got, want := s.White.Diagonal[2], math.Sqrt(total/4); math.Abs(got-want) > 1e-13 {
		t.Errorf("whitening of the rare item %v, want %v", got, want)
	}
}

// TestMeansShrink: means under noise keep the share of their squared norm, or
// of their spread, that the noise does not explain.
func TestMeansShrink(t *testing.T) {
	const d = 4
	c := Config{Dim: d, Rank: 1, Rounds: 1, Features: Standard, Centred: true}
	sum := append(pack(identity(d)), 0.4, 0, 0, 0.3)
	s := advance(t, c.Start(), map[string][]float64{PartMain: sum}, 0.125) // noise 0.25 in norm, half of 0.5
	if want := []float64{0.3, 0, 0, 0.225}; !floats.EqualApprox(s.Center, want, 1e-14) {
		t.Errorf("mean %v, want %v", s.Center, want)
	}

	c.Features, c.Dim = OneHot, d+1
	sum = []float64{10, 10, 10, 10, 0, 6, 2, 6, 2, 0}                 // 0.4 +- 0.2: spread 0.4
	s = advance(t, c.Start(), map[string][]float64{PartMain: sum}, 1) // noise 0.1 each, 0.2 in norm
	if want := []float64{0.55, 0.25, 0.55, 0.25, 0}; !floats.EqualApprox(s.Model.Mean, want, 1e-14) {
		t.Errorf("mean %v, want %v", s.Model.Mean, want)
	}
}
