package lowrank

import (
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// randomSecondMoment is an SPD matrix of mean eigenvalue 1.
func randomSecondMoment(seed uint64, d int) *mat.SymDense {
	g := gaussianMatrix(seeded(seed), d, 2*d)
	s := symmetrised(multiply(g, g.T()))
	s.ScaleSym(float64(d)/mat.Trace(s), s)
	return s
}

// matrixOf is W, column by column through Raw.
func matrixOf(w *Whitening, d int) *mat.Dense {
	out := mat.NewDense(d, d, nil)
	for c := range d {
		e, col := make([]float64, d), make([]float64, d)
		e[c] = 1
		w.Raw(col, e)
		out.SetCol(c, col)
	}
	return out
}

func TestWhiten(t *testing.T) {
	for seed := range uint64(20) {
		d := 2 + int(seed)
		s := randomSecondMoment(seed, d)
		var w Whitening
		if err := w.whiten(s, 0); err != nil {
			t.Fatal(err)
		}
		m := matrixOf(&w, d)
		requireClose(t, "W^T S W", multiply(m.T(), s, m), identity(d), 1e-9)

		// Under a diagonal, S is the second moment of D x.
		w = Whitening{Diagonal: make([]float64, d)}
		for i := range w.Diagonal {
			w.Diagonal[i] = math.Exp2(float64(i%7 - 3))
		}
		inverse := mat.NewDiagDense(d, nil)
		for i, v := range w.Diagonal {
			inverse.SetDiag(i, 1/v)
		}
		if err := w.whiten(s, 0); err != nil {
			t.Fatal(err)
		}
		m = matrixOf(&w, d)
		requireClose(t, "W^T D^-1 S D^-1 W", multiply(m.T(), inverse, s, inverse, m), identity(d), 1e-9)
	}
}

// TestWhitenAbsentDirection: a direction that no sample has gets no
// coefficient.
func TestWhitenAbsentDirection(t *testing.T) {
	var w Whitening
	if err := w.whiten(mat.NewSymDense(3, []float64{1.5, 0, 0, 0, 0, 0, 0, 0, 1.5}), 0); err != nil {
		t.Fatal(err)
	}
	f := 1 / math.Sqrt(1.5)
	requireClose(t, "W", matrixOf(&w, 3), mat.NewDiagDense(3, []float64{f, 0, f}), 1e-14)
}

// TestWhitenKeepsWhatNoiseExplains: deviations from the identity below the
// noise change nothing, bit for bit, even where the noise exceeds 1.
func TestWhitenKeepsWhatNoiseExplains(t *testing.T) {
	const d = 8
	s := randomSecondMoment(1, d)
	values, _, err := eigen(s)
	if err != nil {
		t.Fatal(err)
	}
	deviation := max(values[d-1]-1, 1-values[0])
	for _, nu := range []float64{deviation * 1.001, 10, 1e200} {
		for _, diagonal := range [][]float64{nil, {1, 2, 3, 4, 5, 6, 7, 0}} {
			w := Whitening{Diagonal: slices.Clone(diagonal)}
			if err := w.whiten(s, nu); err != nil {
				t.Fatal(err)
			}
			if w.Dense != nil || !slices.Equal(w.Diagonal, diagonal) {
				t.Errorf("noise %v, largest deviation %v: W changed to %v", nu, deviation, w)
			}
		}
	}
}

// TestWhitenNoise: a whitening learned under noise never multiplies by more
// than the inverse root of that noise.
func TestWhitenNoise(t *testing.T) {
	const d = 10
	for seed := range uint64(10) {
		s := randomSecondMoment(seed, d)
		sd := 0.02 * float64(seed+1)
		noise := unpack(gaussian(seeded(seed), triangle(d), sd), d)
		s.AddSym(s, noise)
		var w Whitening
		nu := spectralNoise(sd, d)
		if err := w.whiten(s, nu); err != nil {
			t.Fatal(err)
		}
		if n := mat.Norm(matrixOf(&w, d), 2); n > math.Sqrt(d/min(nu, 1)) {
			t.Errorf("noise %v: ||W||_F = %v", nu, n)
		}
	}
}

func TestRawAndPullAreAdjoint(t *testing.T) {
	rng := seeded(3)
	const d = 7
	for name, w := range map[string]*Whitening{
		"identity": {},
		"diagonal": {Diagonal: gaussian(rng, d, 1)},
		"dense":    {Diagonal: gaussian(rng, d, 1), Dense: gaussian(rng, d*d, 1)},
	} {
		a, b := gaussian(rng, d, 1), gaussian(rng, d, 1)
		b[2] = 0 // Pull skips zeros
		raw, pulled := gaussian(rng, d, 1), gaussian(rng, d, 1)
		w.Raw(raw, a)
		w.Pull(pulled, b)
		if x, y := floats.Dot(raw, b), floats.Dot(a, pulled); math.Abs(x-y) > 1e-12 {
			t.Errorf("%s: <W a, b> = %v, <a, W^T b> = %v", name, x, y)
		}
	}
}

// TestWhitenUnderNoise: eigenvalues move from 1 by what stands out of the
// noise, and stay above it, or at 1 where it exceeds that.
func TestWhitenUnderNoise(t *testing.T) {
	for _, c := range []struct{ nu, eigenvalue, want float64 }{
		{0.5, 1.9, 1.9 - 0.25/0.9},
		{0.5, 1.4, 1},
		{0.5, 0.1, 0.5}, // 0.1 + 0.25/0.9 = 0.38
		{3, 9, 9 - 9.0/8},
		{3, -7, 1},
	} {
		var w Whitening
		if err := w.whiten(mat.NewSymDense(2, []float64{c.eigenvalue, 0, 0, 20}), c.nu); err != nil {
			t.Fatal(err)
		}
		if got := math.Pow(w.Dense[0], -2); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("noise %v: eigenvalue %v taken as %v, want %v", c.nu, c.eigenvalue, got, c.want)
		}
	}
}
