package simulations

import (
	"context"
	"math"

	"github.com/undertone-fl/undertone/simulations/population"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// baseline measures a method that releases nothing: each user alone.
func (c *cohort) baseline(ctx context.Context, u *unit) (map[string]float64, []UserError, error) {
	d := u.pop.Dim()
	truth, _ := u.pop.(population.Truth)
	tallies, err := c.each(ctx, u.pop.Len(),
		func(w *worker) error { return nil },
		func(w *worker, i int, t *tally) error {
			u.pop.Train(i, &w.train)
			w.theta = resize(w.theta, 2*d)
			estimate := w.theta[:d]
			if u.method == Oracle {
				w.support = truth.Parameters(i, w.theta[d:], w.support)
				w.local.oracle(estimate, truth.U(), w.support, &w.train)
			} else {
				w.local.fit(estimate, &w.train, u.cfg.Data != nil)
			}
			u.keep(t, i, len(w.train.Y), u.compare(w, t, i, estimate))
			return nil
		},
		func(*worker) error { return nil })
	if err != nil {
		return nil, nil, err
	}
	return u.metrics(tallies, nil), users(tallies), nil
}

// ridge fits one user alone.
type ridge struct {
	x, y, mean []float64
}

// fit stores the ridge regression of the user's samples in theta, its penalty
// chosen by generalised cross-validation (Golub, Heath, Wahba 1979). On real
// data the features and the response are centred first, the mean response
// going to a constant feature where there is one: a single user's intercept
// is not penalised.
func (f *ridge) fit(theta []float64, s *population.Samples, centre bool) {
	clear(theta)
	d, m := len(theta), len(s.Y)
	p := s.Width(d)
	if m == 0 {
		return
	}
	feature := func(j int) int {
		if s.Columns != nil {
			return int(s.Columns[j])
		}
		return j
	}
	f.x = append(f.x[:0], s.X[:m*p]...)
	f.y = append(f.y[:0], s.Y...)
	f.mean = resize(f.mean, p)
	clear(f.mean)
	intercept, constant := 0.0, -1
	if centre {
		intercept = floats.Sum(f.y) / float64(m)
		floats.AddConst(-intercept, f.y)
		for i := range m {
			floats.Add(f.mean, f.x[i*p:(i+1)*p])
		}
		floats.Scale(1/float64(m), f.mean)
		for j, v := range f.mean {
			same := v != 0
			for i := 0; i < m && same; i++ {
				same = f.x[i*p+j] == f.x[j]
			}
			if same {
				constant = j
			}
		}
		for i := range m {
			floats.Sub(f.x[i*p:(i+1)*p], f.mean)
		}
	}
	x := mat.NewDense(m, p, f.x)
	var svd mat.SVD
	if !svd.Factorize(x, mat.SVDThin) {
		return
	}
	values := svd.Values(nil)
	var u, v mat.Dense
	svd.UTo(&u)
	svd.VTo(&v)
	z := mat.NewVecDense(len(values), nil)
	z.MulVec(u.T(), mat.NewVecDense(m, f.y))
	outside := floats.Dot(f.y, f.y) - mat.Dot(z, z) // of y, beyond the columns
	best, penalty := math.Inf(1), 0.0
	top := values[0] * values[0]
	for l := 1e-6; l < 1e5; l *= 1.5 {
		lambda := l * top
		free, rss := float64(m), max(outside, 0)
		if centre {
			free--
		}
		for c, sv := range values {
			keep := lambda / (sv*sv + lambda)
			rss += keep * keep * z.AtVec(c) * z.AtVec(c)
			free -= 1 - keep
		}
		if free < 1e-3 {
			continue
		}
		if score := rss / (free * free); score < best {
			best, penalty = score, lambda
		}
	}
	if penalty == 0 {
		penalty = top
	}
	for c, sv := range values {
		if sv*sv+penalty > 0 {
			z.SetVec(c, z.AtVec(c)*sv/(sv*sv+penalty))
		}
	}
	solution := mat.NewVecDense(p, nil)
	solution.MulVec(&v, z)
	for j := range p {
		theta[feature(j)] = solution.AtVec(j)
		intercept -= f.mean[j] * solution.AtVec(j)
	}
	if constant >= 0 {
		theta[feature(constant)] += intercept
	}
}

// oracle stores the least-squares fit with U* (d x r row-major) and the
// support of b known.
func (f *ridge) oracle(theta, u []float64, support []int32, s *population.Samples) {
	clear(theta)
	d, m := len(theta), len(s.Y)
	r := len(u) / d
	n := r + len(support)
	if m == 0 || n == 0 {
		return
	}
	a := mat.NewDense(m, n, nil)
	for i := range m {
		row := s.X[i*d : (i+1)*d]
		for j, x := range row {
			for c := range r {
				a.Set(i, c, a.At(i, c)+x*u[j*r+c])
			}
		}
		for c, j := range support {
			a.Set(i, r+c, row[j])
		}
	}
	var svd mat.SVD
	if !svd.Factorize(a, mat.SVDThin) {
		return
	}
	var solution mat.VecDense
	rank := svd.Rank(1e-12)
	if rank == 0 {
		return
	}
	svd.SolveVecTo(&solution, mat.NewVecDense(m, s.Y), rank)
	for j := range d {
		for c := range r {
			theta[j] += u[j*r+c] * solution.AtVec(c)
		}
	}
	for c, j := range support {
		theta[j] += solution.AtVec(r + c)
	}
}
