package local

import "gonum.org/v1/gonum/floats"

// finish computes w given b, its posterior covariance, the residual and the
// degrees of freedom, when the response noise has the given variance.
//
//	w = M^-1 A^T (y - X b),   f = r + |S| - tr(Cov S^-1) <= m,
//	Cov / sigma^2 = M^-1 + (M^-1 A^T X_S) K (M^-1 A^T X_S)^T,
//
// K the inverse of the support's Gram matrix with w profiled out: the inverse
// of the joint normal equations of (w, b_S), by blocks.
func (s *Solver) finish(variance float64) {
	m, p, r := s.m, s.p, s.r
	f, q := &s.fit, &s.pursuit
	n := len(q.support)
	f.Support, f.B = q.support, q.coef[:n]
	f.W, f.Cov, f.Resid = grow(f.W, r), grow(f.Cov, r*r), grow(f.Resid, m)
	copy(f.W, s.z)
	for c := range r {
		for a, j := range q.support {
			f.W[c] -= s.q[c*p+j] * f.B[a]
		}
	}
	backward(s.chol, r, f.W)
	copy(f.Resid, s.y)
	for c, w := range f.W {
		floats.AddScaled(f.Resid, -w, s.xu[c*m:(c+1)*m])
	}
	for a, j := range q.support {
		for i := range f.Resid {
			f.Resid[i] -= f.B[a] * s.x[i*p+j]
		}
	}
	f.Freedom = float64(r + n)
	clear(f.Cov)
	if floats.Dot(s.prec, s.prec) > 0 {
		for c := range r {
			unit(f.Cov[c*r:(c+1)*r], c)
			cholSolve(s.chol, r, f.Cov[c*r:(c+1)*r])
		}
		s.addSupport(f.Cov)
		f.Freedom -= floats.Dot(f.Cov, s.prec)
	}
	f.Freedom = max(0, min(f.Freedom, float64(m)))
	if !s.shared {
		clear(f.Cov)
	}
	floats.Scale(variance, f.Cov)
}

// addSupport adds the share of the support's uncertainty to Cov.
func (s *Solver) addSupport(cov []float64) {
	r, p, q := s.r, s.p, &s.pursuit
	n := len(q.support)
	s.rows = grow(s.rows, n*r)
	for a, j := range q.support {
		v := s.rows[a*r : (a+1)*r]
		for c := range r {
			v[c] = s.q[c*p+j]
		}
		backward(s.chol, r, v)
	}
	for a := range n {
		for b := range n {
			k := q.k[a*n+b]
			for c := range r {
				floats.AddScaled(cov[c*r:(c+1)*r], k*s.rows[a*r+c], s.rows[b*r:(b+1)*r])
			}
		}
	}
}
