package simulations

import (
	"math"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/simulations/population"
	"gonum.org/v1/gonum/floats"
)

// usersKept is the most users whose single errors a run records.
const usersKept = 500

// tally adds up what the metrics need, over a block of clients.
type tally struct {
	errors, truth       float64 // squared norms, of theta or of held-out errors
	samples, sum, power float64 // of held-out responses
	users               []UserError
}

// keep records a user's error if the user is one of the evenly spaced sample.
func (u *unit) keep(t *tally, i, samples int, e float64) {
	stride := (u.pop.Len() + usersKept - 1) / usersKept
	if u.seed == u.cfg.Seed && i%stride == 0 && !math.IsNaN(e) {
		t.users = append(t.users, UserError{Client: i, Samples: samples, Error: e})
	}
}

func users(tallies []tally) []UserError {
	var out []UserError
	for _, t := range tallies {
		out = append(out, t.users...)
	}
	return out
}

// measure adds client i's error under the model to the tally, and returns it:
// a root mean square, NaN for a user without held-out samples. fit is nil for
// a user without training samples.
func (u *unit) measure(w *worker, t *tally, i int, m *lowrank.Model, fit *local.Fit) float64 {
	d := u.pop.Dim()
	w.theta = resize(w.theta, 2*d)
	estimate := w.theta[:d]
	clear(estimate)
	if m.Mean != nil {
		copy(estimate, m.Mean)
	}
	if fit != nil {
		for c, v := range fit.W {
			floats.AddScaled(estimate, v, m.Column(c))
		}
		for a, j := range fit.Support {
			f := j
			if w.train.Columns != nil {
				f = int(w.train.Columns[j])
			}
			estimate[f] += fit.B[a]
		}
	}
	floats.Scale(m.ResponseScale(), estimate)
	return u.compare(w, t, i, estimate)
}

// compare adds the error of client i's estimated theta to the tally.
func (u *unit) compare(w *worker, t *tally, i int, estimate []float64) float64 {
	d := u.pop.Dim()
	if truth, ok := u.pop.(population.Truth); ok {
		w.theta = resize(w.theta, 2*d)
		theta := w.theta[d:]
		w.support = truth.Parameters(i, theta, w.support)
		var e, n float64
		for j, v := range theta {
			e += (estimate[j] - v) * (estimate[j] - v)
			n += v * v
		}
		t.errors += e
		t.truth += n
		return math.Sqrt(e / float64(d))
	}
	u.pop.Test(i, &w.test)
	p := w.test.Width(d)
	var e float64
	for s, y := range w.test.Y {
		guess := 0.0
		for j, v := range w.test.X[s*p : (s+1)*p] {
			f := j
			if w.test.Columns != nil {
				f = int(w.test.Columns[j])
			}
			guess += v * estimate[f]
		}
		e += (y - guess) * (y - guess)
		t.sum += y
		t.power += y * y
	}
	t.errors += e
	t.samples += float64(len(w.test.Y))
	return math.Sqrt(e / float64(len(w.test.Y)))
}

// metrics turns tallies into the metrics that apply. m is nil where a method
// has no shared model.
func (u *unit) metrics(tallies []tally, m *lowrank.Model) map[string]float64 {
	var all tally
	for _, t := range tallies {
		all.errors += t.errors
		all.truth += t.truth
		all.samples += t.samples
		all.sum += t.sum
		all.power += t.power
	}
	out := map[string]float64{}
	// What does not apply, as no sample is held out or responses have no
	// spread, is left out.
	put := func(name string, v float64) {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			out[name] = v
		}
	}
	truth, ok := u.pop.(population.Truth)
	if !ok {
		put(RMSE, math.Sqrt(all.errors/all.samples))
		if spread := all.power - all.sum*all.sum/all.samples; spread > 1e-12*all.power {
			put(ExplainedVariance, 1-all.errors/spread)
		}
		return out
	}
	put(MSE, all.errors/all.truth)
	put(RelativeError, math.Sqrt(all.errors/all.truth))
	if m != nil && m.Rank > 0 {
		out[SubspaceDistance] = subspaceDistance(m, truth.U())
	}
	return out
}

// subspaceDistance is ||(I - Q Q^T) U*||_F / sqrt(r*), Q an orthonormal basis
// of the model's span and U* the truth, d x r* row-major.
func subspaceDistance(m *lowrank.Model, truth []float64) float64 {
	d := m.Dim
	r := len(truth) / d
	q := make([][]float64, m.Rank)
	for c := range q { // Gram-Schmidt, twice is enough
		q[c] = append([]float64(nil), m.Column(c)...)
		for range 2 {
			for a := range c {
				floats.AddScaled(q[c], -floats.Dot(q[a], q[c]), q[a])
			}
		}
		if n := floats.Norm(q[c], 2); n > 0 {
			floats.Scale(1/n, q[c])
		}
	}
	var off float64
	u := make([]float64, d)
	for k := range r {
		for j := range d {
			u[j] = truth[j*r+k]
		}
		for range 2 {
			for _, v := range q {
				floats.AddScaled(u, -floats.Dot(v, u), v)
			}
		}
		off += floats.Dot(u, u)
	}
	return math.Sqrt(off / float64(r))
}
