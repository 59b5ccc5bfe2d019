package canary

import (
	"math"

	"gonum.org/v1/gonum/stat/distuv"
)

// dependence finds the two of n variables that correlate most, out of samples of
// all n together.
type dependence struct {
	n     int
	count float64
	sum   []float64
	gram  []float64 // n x n, upper triangle: sums of products
}

func newDependence(n int) *dependence {
	return &dependence{n: n, sum: make([]float64, n), gram: make([]float64, n*n)}
}

func (p *dependence) add(x []float64) {
	p.count++
	for i, v := range x {
		p.sum[i] += v
		row := p.gram[i*p.n : (i+1)*p.n]
		for j := i; j < p.n; j++ {
			row[j] += v * x[j]
		}
	}
}

// strongest returns the correlation that is largest in absolute value, and the
// p-value of it under independent normal variables: r sqrt((m-2)/(1-r^2)) is then
// Student's t of m-2 degrees of freedom (Fisher 1915), and the pairs share the rate
// (Bonferroni). Without two variables or three samples it is 0, and the p-value 1. A
// variable that does not vary has no correlation, and is returned twice, as i and j, with
// correlation 1. Its variance over its mean square, of m samples, is beta distributed, and
// so below constant with probability at most constant^((m-1)/2).
func (p *dependence) strongest() (r float64, i, j int, pvalue float64) {
	m := p.count
	pairs := float64(p.n) * float64(p.n-1) / 2
	if pairs == 0 || m < 3 {
		return 0, 0, 0, 1
	}
	const constant = 1e-12
	variance := func(i int) float64 { return p.gram[i*p.n+i] - p.sum[i]*p.sum[i]/m }
	for a := range p.n {
		if !(variance(a) > constant*p.gram[a*p.n+a]) {
			return 1, a, a, min(1, float64(p.n)*math.Pow(constant, (m-1)/2))
		}
	}
	for a := range p.n {
		for b := a + 1; b < p.n; b++ {
			covariance := p.gram[a*p.n+b] - p.sum[a]*p.sum[b]/m
			if c := covariance / math.Sqrt(variance(a)*variance(b)); math.Abs(c) > math.Abs(r) {
				r, i, j = c, a, b
			}
		}
	}
	t := math.Abs(r) * math.Sqrt((m-2)/max(1-r*r, 1e-300))
	student := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: m - 2}
	return r, i, j, min(1, 2*student.CDF(-t)*pairs)
}

// size maps noise to its absolute value's normal score: standard normal if the noise is,
// and independent of its sign. So the test of correlation is as exact for sizes, or squares,
// as for the noise itself, but that it is cut off where a lattice of leastNoise has no more
// than a point or two.
func size(noise float64) float64 {
	const far = 4.5
	below, above := math.Erf(math.Abs(noise)/math.Sqrt2), math.Erfc(math.Abs(noise)/math.Sqrt2)
	if below < above {
		return max(-far, -math.Sqrt2*math.Erfcinv(2*below))
	}
	return min(far, math.Sqrt2*math.Erfcinv(2*above))
}
