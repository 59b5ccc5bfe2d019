package local

import "math"

// The matrices here are r x r and k x k, a handful of entries, many of them a
// second: less than what a call into LAPACK costs. All are row-major.

// grow returns s with length n, in its own storage when that is enough.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// unit makes x the c-th unit vector.
func unit(x []float64, c int) {
	clear(x)
	x[c] = 1
}

// smallestPivot is the share of a diagonal entry that must be left of it for
// a matrix to count as positive definite.
const smallestPivot = 1e-13

// cholesky overwrites the lower triangle of the n x n matrix a with L,
// L L^T = a. It returns n if a is positive definite to working precision, else
// the first row that depends on those before it.
func cholesky(a []float64, n int) int {
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
			if !(s > smallestPivot*a[i*n+i]) {
				return i
			}
			a[i*n+i] = math.Sqrt(s)
		}
	}
	return n
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

// cholSolve solves L L^T x = b in place.
func cholSolve(l []float64, n int, x []float64) {
	forward(l, n, x)
	backward(l, n, x)
}
