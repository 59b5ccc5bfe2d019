package local

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
)

// schedule is the paper's iteration written down as it stands (Pal et al.,
// Algorithm 1), with the choices that threshold's comment names: B and the
// first gamma from the user's own data, and the normalised step. a is X U.
func schedule(x, a *mat.Dense, y *mat.VecDense, prior *mat.Dense, k int) *mat.VecDense {
	const c1, c4, c5 = 0.25, 0.2, 0.2
	m, p := x.Dims()
	_, r := a.Dims()
	rootK := math.Sqrt(float64(k))
	b, gamma := mat.NewVecDense(p, nil), 0.0
	for turn := range 6 {
		var e, right, w, aw mat.VecDense
		var normal mat.Dense
		residual := func() { // e = y - A w - X b
			var xb mat.VecDense
			xb.MulVec(x, b)
			e.SubVec(y, &xb)
			if w.Len() == r { // not before the first solve
				aw.MulVec(a, &w)
				e.SubVec(&e, &aw)
			}
		}
		residual()
		normal.Mul(a.T(), a)
		normal.Add(&normal, prior)
		right.MulVec(a.T(), &e)
		if err := w.SolveVec(&normal, &right); err != nil {
			panic(err)
		}
		residual()
		B := mat.Norm(&e, 2) / math.Sqrt(float64(m))
		alpha, beta := c4*B/(2*rootK), c5*B/2
		for step := range 12 {
			var g mat.VecDense
			g.MulVec(x.T(), &e)
			if turn == 0 && step == 0 {
				gamma = mat.Norm(&g, math.Inf(1)) / float64(m)
			}
			// The step ||g_S||^2 / ||X g_S||^2.
			on := mat.NewVecDense(p, nil)
			for j := range p {
				if b.AtVec(j) != 0 {
					on.SetVec(j, g.AtVec(j))
				}
			}
			if mat.Norm(b, 2) == 0 {
				on.CopyVec(&g)
				zeroAllBut(on, k)
			}
			var xg mat.VecDense
			xg.MulVec(x, on)
			b.AddScaledVec(b, mat.Dot(on, on)/mat.Dot(&xg, &xg), &g)
			// b = HT(c, Delta).
			Delta := alpha + c1*(gamma+beta/rootK)
			for j := range p {
				if math.Abs(b.AtVec(j)) < Delta {
					b.SetVec(j, 0)
				}
			}
			zeroAllBut(b, k)
			gamma = 2*c1*gamma + 2*(alpha+c1*beta/rootK)
			residual()
		}
	}
	return b
}

// zeroAllBut keeps the k entries that are largest in magnitude.
func zeroAllBut(v *mat.VecDense, k int) {
	var size []float64
	for j := range v.Len() {
		size = append(size, math.Abs(v.AtVec(j)))
	}
	slices.Sort(size)
	for j := range v.Len() {
		if math.Abs(v.AtVec(j)) < size[len(size)-k] {
			v.SetVec(j, 0)
		}
	}
}

// TestHardThreshold: the schedule is the paper's, and finds strong supports.
func TestHardThreshold(t *testing.T) {
	const d, rank, k, m, users = 20, 2, 3, 60, 100
	r := rand.New(rand.NewPCG(31, 31))
	w := newWorld(r, d, rank, 0.1, 0.02)
	right := 0
	for range users {
		user := w.user(r, m, k)
		s := loaded(t, user, k)
		x := mat.NewDense(m, d, s.x)
		a := mat.DenseCopyOf(mat.NewDense(rank, m, s.xu).T())
		want := schedule(x, a, mat.NewVecDense(m, s.y), mat.NewDense(rank, rank, s.prec), k)
		support := slices.Clone(s.threshold(k))
		for j := range d {
			if got := s.hard.b[j]; !(math.Abs(got-want.AtVec(j)) <= 1e-9) {
				t.Fatalf("b[%d] is %v, by the schedule %v", j, got, want.AtVec(j))
			}
			if (want.AtVec(j) != 0) != slices.Contains(support, j) {
				t.Fatalf("support %v of %v", support, want)
			}
		}
		if len(support) == k && !slices.ContainsFunc(support, func(j int) bool { return user.b[j] == 0 }) {
			right++
		}
	}
	t.Logf("%d of %d supports are right", right, users)
	if right < users*9/10 {
		t.Errorf("%d of %d supports are right", right, users)
	}
}
