package population

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/lapack/lapack64"
)

// Generated is a synthetic population: nothing of a user is kept, everything
// is a function of the seed and the user's number.
type Generated struct {
	cfg  Synthetic
	seed uint64
	ut   []float64 // U* transposed, r x d: its rows are what a user sums
}

// NewSynthetic draws U* and returns the population. The span of U* is
// uniform: it is that of a Gaussian matrix. Every client i has
//
//   - w_i ~ N(0, WScale^2 I);
//   - b_i with exactly k non-zeros, at uniformly random positions, of
//     magnitude uniform in [1, 5) and random sign;
//   - rows x ~ N(0, I) (or of the AR(1) covariance), and
//     y = x^T (U* w_i + b_i) + noise.
//
// Errors are *FieldError.
func NewSynthetic(cfg Synthetic, seed uint64) (*Generated, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.WScale == 0 {
		cfg.WScale = 1
	}
	u := orthonormal(cfg.Dim, cfg.Rank, seed)
	return &Generated{cfg, seed, transpose(u, cfg.Dim, cfg.Rank)}, nil
}

// Validate returns the first mistake in c, as a *FieldError.
func (c Synthetic) Validate() error {
	bounded := func(v float64) bool { return v >= 0 && v <= largestValue }
	for _, f := range []struct {
		field   string
		ok      bool
		value   any
		problem string
	}{
		{"clients", c.Clients >= 1, c.Clients, "is less than 1"},
		{"clients", c.Clients <= math.MaxInt32, c.Clients, fmt.Sprintf("is more than %d", math.MaxInt32)},
		{"dim", c.Dim >= 1, c.Dim, "is less than 1"},
		{"rank", c.Rank >= 1, c.Rank, "is less than 1"},
		{"rank", c.Rank <= c.Dim, c.Rank, fmt.Sprintf("is more than the %d features", c.Dim)},
		{"sparsity", c.Sparsity >= 0, c.Sparsity, "is negative"},
		{"sparsity", c.Sparsity <= c.Dim, c.Sparsity, fmt.Sprintf("is more than the %d features", c.Dim)},
		{"samples", c.Samples >= 1, c.Samples, "is less than 1"},
		{"label-noise", bounded(c.LabelNoise), c.LabelNoise, "is not a standard deviation"},
		{"w-scale", bounded(c.WScale), c.WScale, "is not a scale"},
		{"correlation", math.Abs(c.Correlation) < 1, c.Correlation, "is not between -1 and 1"},
		{"outliers", c.Outliers >= 0 && c.Outliers <= 1, c.Outliers, "is not a share from 0 to 1"},
	} {
		if !f.ok {
			return &FieldError{f.field, fmt.Sprintf("%v %s", f.value, f.problem)}
		}
	}
	return nil
}

// orthonormal returns the Q of a Gaussian d x r matrix, row-major.
func orthonormal(d, r int, seed uint64) []float64 {
	q := make([]float64, d*r)
	s := newStream(seed, math.MaxUint64) // no client's
	s.normals(q)
	a := blas64.General{Rows: d, Cols: r, Stride: r, Data: q}
	tau := make([]float64, r)
	work := make([]float64, 1)
	lapack64.Geqrf(a, tau, work, -1)
	work = make([]float64, max(int(work[0]), r))
	lapack64.Geqrf(a, tau, work, len(work))
	lapack64.Orgqr(a, tau, work, len(work))
	return q
}

func transpose(a []float64, rows, cols int) []float64 {
	t := make([]float64, len(a))
	for i := range rows {
		for j := range cols {
			t[j*rows+i] = a[i*cols+j]
		}
	}
	return t
}

// Len is the number of clients.
func (g *Generated) Len() int { return g.cfg.Clients }

// Dim is d.
func (g *Generated) Dim() int { return g.cfg.Dim }

// U returns a copy of U*, d x r row-major.
func (g *Generated) U() []float64 { return transpose(g.ut, g.cfg.Rank, g.cfg.Dim) }

// Parameters implements Truth. An outlier has no sparse part: its support is
// empty, and its theta lies in no subspace.
func (g *Generated) Parameters(i int, theta []float64, support []int32) []int32 {
	s, _ := g.client(i)
	support = support[:0]
	g.parameters(&s, theta, &support)
	return support
}

// Train generates client i's samples. It allocates only where dst is too
// short.
func (g *Generated) Train(i int, dst *Samples) {
	s, m := g.client(i)
	d := g.cfg.Dim
	x := resize(dst.X, (m+1)*d)
	theta := x[m*d:] // behind the samples, so that it needs no storage of its own
	dst.X, dst.Y, dst.Columns = x[:m*d], resize(dst.Y, m), nil

	g.parameters(&s, theta, nil)
	s.normals(dst.X)
	if rho := g.cfg.Correlation; rho != 0 {
		for row := range slices.Chunk(dst.X, d) {
			correlate(row, rho)
		}
	}
	if g.cfg.HeavyTails {
		s.students(dst.Y)
	} else {
		s.normals(dst.Y)
	}
	for j := range dst.Y {
		dst.Y[j] = floats.Dot(dst.X[j*d:(j+1)*d], theta) + g.cfg.LabelNoise*dst.Y[j]
	}
}

// Test implements Population: nothing is held out.
func (g *Generated) Test(_ int, dst *Samples) {
	dst.X, dst.Y, dst.Columns = dst.X[:0], dst.Y[:0], nil
}

// spread is the standard deviation of the logarithm of unequal sample counts:
// the largest twentieth of the users has 5 times the median, or more.
const spread = 1.0

// client opens client i's stream and draws the number of its samples.
func (g *Generated) client(i int) (stream, int) {
	s := newStream(g.seed, uint64(i))
	if !g.cfg.UnequalSamples {
		return s, g.cfg.Samples
	}
	m := float64(g.cfg.Samples) * math.Exp(spread*s.normal()-spread*spread/2)
	return s, max(1, int(math.Round(m)))
}

// parameters draws theta from a client's stream, and appends the support of b
// to support unless that is nil.
func (g *Generated) parameters(s *stream, theta []float64, support *[]int32) {
	if g.cfg.Outliers > 0 && s.uniform() < g.cfg.Outliers {
		s.normals(theta)
		floats.Scale(2, theta)
		return
	}
	d := g.cfg.Dim
	clear(theta)
	for c := range g.cfg.Rank {
		floats.AddScaled(theta, g.cfg.WScale*s.normal(), g.ut[c*d:(c+1)*d])
	}
	// Selection sampling (Knuth, TAOCP 2, Algorithm S): k of d, in order.
	for j, left := 0, g.cfg.Sparsity; left > 0; j++ {
		if float64(d-j)*s.uniform() >= float64(left) {
			continue
		}
		left--
		theta[j] += math.Copysign(1+4*s.uniform(), s.uniform()-0.5)
		if support != nil {
			*support = append(*support, int32(j))
		}
	}
}

// correlate turns independent N(0, 1) into an AR(1) sequence of unit variance.
func correlate(row []float64, rho float64) {
	fresh := math.Sqrt(1 - rho*rho)
	for j := 1; j < len(row); j++ {
		row[j] = rho*row[j-1] + fresh*row[j]
	}
}

// students fills dst with Student's t of 3 degrees of freedom over its
// standard deviation, sqrt(3).
func (s *stream) students(dst []float64) {
	var z [4]float64
	for j := range dst {
		s.normals(z[:])
		dst[j] = z[0] / math.Sqrt(z[1]*z[1]+z[2]*z[2]+z[3]*z[3])
	}
}

// resize returns a slice of length n, in buf's storage if that is enough.
func resize(buf []float64, n int) []float64 { return slices.Grow(buf[:0], n)[:n] }
