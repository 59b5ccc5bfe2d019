package lowrank

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// lowRankMoment is U diag(spectrum) U^T, in whitened features the expectation
// of the pairwise moments.
func lowRankMoment(u []float64, d int, spectrum ...float64) *mat.Dense {
	um := columns(u, d)
	return multiply(um, mat.NewDiagDense(len(spectrum), spectrum), um.T())
}

func TestInitialise(t *testing.T) {
	const d, r = 30, 3
	rng := seeded(1)
	u := randomBasis(rng, d, r)
	m := pack(lowRankMoment(u, d, 5, 2, 1))
	c := Config{Dim: d, Rank: r, Rounds: 1, Features: Standard}
	s := advance(t, c.Start(), map[string][]float64{PartMain: m}, 0)
	requireSound(t, s)
	if e := subspaceDistance(u, s.Basis, d); e > 1e-12 {
		t.Errorf("exact moments leave U at distance %v", e)
	}
	// Davis and Kahan: the distance is at most noise over gap, in Frobenius
	// norm sqrt(r) of that.
	const sd = 0.02
	floats.Add(m, gaussian(rng, len(m), sd))
	s = advance(t, c.Start(), map[string][]float64{PartMain: m}, sd)
	if e, limit := subspaceDistance(u, s.Basis, d), math.Sqrt(r)*spectralNoise(sd, d); e > limit {
		t.Errorf("with noise, U at distance %v, limit %v", e, limit)
	}
}

// TestSketch: exact on a matrix of rank r, worse in proportion to the noise,
// and of no use but sound where that drowns everything.
func TestSketch(t *testing.T) {
	const d, r, q = 60, 3, 12
	rng := seeded(2)
	u := randomBasis(rng, d, r)
	c := Config{Dim: d, Rank: r, Rounds: 1, Features: Standard, Sketch: q}
	var y mat.Dense
	y.Mul(lowRankMoment(u, d, 5, 4, 3), columns(c.Start().Omega(), d))
	exact := mat.DenseCopyOf(y.T()).RawMatrix().Data
	for _, tc := range []struct{ sd, limit float64 }{
		{0, 1e-7}, {1e-4, 0.005}, {1e-3, 0.05}, {1e-2, 0.5}, {10, math.Sqrt(r)},
	} {
		sum := gaussian(rng, len(exact), tc.sd)
		floats.Add(sum, exact)
		s := advance(t, c.Start(), map[string][]float64{PartMain: sum}, tc.sd)
		requireSound(t, s)
		if e := subspaceDistance(u, s.Basis, d); e > tc.limit {
			t.Errorf("noise %v: U at distance %v, limit %v", tc.sd, e, tc.limit)
		}
	}
}

func TestOmegaIsPublic(t *testing.T) {
	c := Config{Dim: 20, Rank: 2, Sketch: 6}
	one, two := c.Start().Omega(), c.Start().Omega()
	if !floats.Equal(one, two) {
		t.Error("two parties have different test matrices")
	}
	o := columns(one, 20)
	requireClose(t, "Omega^T Omega", multiply(o.T(), o), identity(6), 1e-12)
}

// TestCompleteDiagonal: a low-rank matrix is recovered from its off-diagonal
// entries, where its eigenvectors without a diagonal are not U.
func TestCompleteDiagonal(t *testing.T) {
	const items, r = 40, 2
	const d = items + 1 // and the constant
	for seed := range uint64(5) {
		rng := seeded(seed)
		u := make([]float64, r*d)
		for c := range r {
			copy(u[c*d:], randomBasis(rng, items, r)[c*items:(c+1)*items])
		}
		u, _ = thinQR(columns(u, d))
		want := lowRankMoment(u, d, 3, 2)
		m := symmetrised(want)
		for i := range d {
			m.SetSym(i, i, 0)
			m.SetSym(d-1, i, 7) // whatever noise has put there
		}
		hollow := mat.NewSymDense(d, nil)
		hollow.CopySym(m)
		for i := range d {
			hollow.SetSym(d-1, i, 0)
		}
		before, err := top(hollow, r)
		if err != nil {
			t.Fatal(err)
		}
		if err := completeDiagonal(m, r); err != nil {
			t.Fatal(err)
		}
		var off mat.Dense
		off.Sub(m, want)
		if e := mat.Norm(&off, 2) / mat.Norm(want, 2); e > 0.03 {
			t.Errorf("seed %d: the completed matrix is off by %v of its norm", seed, e)
		}
		after, err := top(m, r)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := thinQR(before)
		a, _ := thinQR(after)
		if x, y := subspaceDistance(u, a, d), subspaceDistance(u, b, d); x > y/2 || x > 0.03 {
			t.Errorf("seed %d: completed, U at distance %v; hollow, at %v", seed, x, y)
		}
	}
}

// TestInitialiseOneHot: what noise has put on the diagonal, or beside the
// constant, does not matter.
func TestInitialiseOneHot(t *testing.T) {
	const items = 20
	const d = items + 1
	rng := seeded(3)
	u := append(randomBasis(rng, items, 1), 0)
	m := lowRankMoment(u, d, 1)
	for i := range d {
		m.Set(i, i, 3*rng.Float64())
		m.Set(i, d-1, 3*rng.Float64())
	}
	c := Config{Dim: d, Rank: 1, Rounds: 1, Features: OneHot}
	s := c.Start()
	s.Step = 1 // after the items
	naive, err := top(unpack(pack(m), d), 1)
	if err != nil {
		t.Fatal(err)
	}
	s = advance(t, s, map[string][]float64{PartMain: pack(m)}, 0)
	requireSound(t, s)
	off, _ := thinQR(naive)
	if e, without := subspaceDistance(u, s.Basis, d), subspaceDistance(u, off, d); e > 0.05 || without < 0.5 {
		t.Errorf("U at distance %v, from the matrix as it is %v", e, without)
	}
}
