package client

import "math"

// grow returns s with length n, in its own storage when that is enough.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// cholesky overwrites the lower triangle of the n x n matrix a with L,
// L L^T = a. It reports whether a is positive definite to working precision.
func cholesky(a []float64, n int) bool {
	for i := range n {
		for j := range i + 1 {
			s := a[i*n+j]
			for t := range j {
				s -= a[i*n+t] * a[j*n+t]
			}
			if i != j {
				a[i*n+j] = s / a[j*n+j]
				continue
			}
			if !(s > 1e-13*a[i*n+i]) {
				return false
			}
			a[i*n+i] = math.Sqrt(s)
		}
	}
	return true
}

// forward solves L x = b in place.
func forward(l []float64, n int, x []float64) {
	for i := range n {
		s := x[i]
		for t := range i {
			s -= l[i*n+t] * x[t]
		}
		x[i] = s / l[i*n+i]
	}
}

// backward solves L^T x = b in place.
func backward(l []float64, n int, x []float64) {
	for i := n - 1; i >= 0; i-- {
		s := x[i]
		for t := i + 1; t < n; t++ {
			s -= l[t*n+i] * x[t]
		}
		x[i] = s / l[i*n+i]
	}
}

// invertSPD stores the inverse of the symmetric positive definite a in dst
// and destroys a.
func invertSPD(dst, a []float64, n int) bool {
	if !cholesky(a, n) {
		return false
	}
	for c := range n {
		col := dst[c*n : (c+1)*n]
		clear(col)
		col[c] = 1
		forward(a, n, col)
		backward(a, n, col)
	}
	return true
}
