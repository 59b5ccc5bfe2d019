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
// (Bonferroni). Without two variables or three samples it is 0, and the p-value 1.
func (p *dependence) strongest() (r float64, i, j int, pvalue float64) {
	m := p.count
	pairs := float64(p.n) * float64(p.n-1) / 2
	if pairs == 0 || m < 3 {
		return 0, 0, 0, 1
	}
	variance := func(i int) float64 { return p.gram[i*p.n+i] - p.sum[i]*p.sum[i]/m }
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
