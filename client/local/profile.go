package local

import (
	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/floats"
)

// profile computes, in passes over X, all that the choice of the support
// needs once w is profiled out.
func (s *Solver) profile() {
	m, p, r := s.m, s.p, s.r
	s.xu, s.t, s.q = grow(s.xu, r*m), grow(s.t, r*p), grow(s.q, r*p)
	s.gram, s.chol, s.prec = grow(s.gram, r*r), grow(s.chol, r*r), grow(s.prec, r*r)
	s.z, s.a0, s.norm2 = grow(s.z, r), grow(s.a0, p), grow(s.norm2, p)
	s.column = grow(s.column, m)
	clear(s.xu)
	clear(s.t)
	clear(s.a0)
	clear(s.norm2)
	for c := range r {
		a := s.xu[c*m : (c+1)*m]
		gemv(blas.NoTrans, 1, s.x, m, p, s.u[c*p:(c+1)*p], a)
		gemv(blas.Trans, 1, s.x, m, p, a, s.t[c*p:(c+1)*p])
	}
	gemv(blas.Trans, 1, s.x, m, p, s.y, s.a0)
	for i := range m {
		for j, v := range s.row(i) {
			s.norm2[j] += v * v
		}
	}
	for a := range r {
		for b := range a + 1 {
			v := floats.Dot(s.xu[a*m:(a+1)*m], s.xu[b*m:(b+1)*m])
			s.gram[a*r+b], s.gram[b*r+a] = v, v
		}
	}
	s.pursuit.reset(s, p, s.room())
	for j, v := range s.norm2 {
		s.pursuit.floor[j] = max(dependent*v, smallestSquare)
	}
}

// project takes out of the columns of X, and of y, what w explains when the
// response noise has the given variance.
func (s *Solver) project(variance float64) {
	m, p, r := s.m, s.p, s.r
	floats.ScaleTo(s.prec, variance, s.prior) // in the units of A^T A
	s.factor(s.gram, s.prec)
	for c := range r {
		s.z[c] = floats.Dot(s.xu[c*m:(c+1)*m], s.y)
	}
	forward(s.chol, r, s.z)
	copy(s.q, s.t)
	alpha, norm2 := s.pursuit.alpha, s.pursuit.norm2
	copy(alpha, s.a0)
	copy(norm2, s.norm2)
	for c := range r { // forward substitution, a row of p columns at a time
		qc := s.q[c*p : (c+1)*p]
		for a := range c {
			floats.AddScaled(qc, -s.chol[c*r+a], s.q[a*p:(a+1)*p])
		}
		floats.Scale(1/s.chol[c*r+c], qc)
		floats.AddScaled(alpha, -s.z[c], qc)
		for j, v := range qc {
			norm2[j] -= v * v
		}
	}
}

// factor stores the Cholesky factor of a + b, r x r and positive
// semidefinite, in chol. Where it is singular (fewer samples than coordinates,
// columns of U that coincide) the least ridge that squares leave visible is
// added to b: the minimum-norm solution, to working precision. It reports
// whether it found a factor; without one, chol is the identity.
func (s *Solver) factor(a, b []float64) bool {
	r := s.r
	var trace float64
	for c := range r {
		trace += a[c*r+c] + b[c*r+c]
	}
	for ridge := max(1e-10*trace, smallestSquare); ; ridge *= 100 {
		floats.AddTo(s.chol, a, b)
		if cholesky(s.chol, r) == r {
			return true
		}
		if !(ridge <= max(trace, smallestSquare)) {
			break
		}
		for c := range r {
			b[c*r+c] += ridge
		}
	}
	for c := range r {
		unit(s.chol[c*r:(c+1)*r], c)
	}
	return false
}

// gramColumn stores c_j^T c_s for all j in dst, see pursuit.
func (s *Solver) gramColumn(dst []float64, j int) {
	for i := range s.m {
		s.column[i] = s.x[i*s.p+j]
	}
	clear(dst)
	gemv(blas.Trans, 1, s.x, s.m, s.p, s.column, dst)
	s.deflate(dst, j, 1)
}

// deflate takes f times what w explains out of the Gram column of j:
// x_j^T X - q_j^T q.
func (s *Solver) deflate(dst []float64, j int, f float64) {
	for c := range s.r {
		qc := s.q[c*s.p : (c+1)*s.p]
		floats.AddScaled(dst, -f*qc[j], qc)
	}
}

func (s *Solver) row(i int) []float64 { return s.x[i*s.p : (i+1)*s.p] }

// crossResidual stores X^T resid (p) in dst: the residual's correlation with
// every column.
func (s *Solver) crossResidual(dst []float64) {
	clear(dst)
	gemv(blas.Trans, 1, s.x, s.m, s.p, s.fit.Resid, dst)
}

// gemv adds f X v, or f X^T v, to dst; X is m x p.
func gemv(t blas.Transpose, f float64, x []float64, m, p int, v, dst []float64) {
	if m == 0 || p == 0 {
		return
	}
	blas64.Gemv(t, f, blas64.General{Rows: m, Cols: p, Stride: p, Data: x},
		blas64.Vector{N: len(v), Inc: 1, Data: v}, 1, blas64.Vector{N: len(dst), Inc: 1, Data: dst})
}
