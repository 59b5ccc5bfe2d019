// Package population gives simulated experiments their users: synthetic ones,
// drawn from the AMHT-LRS model and from harder variants of it, and those of
// a CSV file. A user's samples are generated or read when they are needed, so
// memory does not grow with the number of synthetic users.
package population

// Samples are one user's data: y = X theta + noise.
//
// X is row-major, len(Y) x len(Columns) when Columns is set, else
// len(Y) x d. Columns lists, in increasing order, the features that are not
// zero in every one of the user's rows (one-hot items, say); the others are
// left out of X.
type Samples struct {
	X       []float64
	Y       []float64
	Columns []int32
}

// Width is the number of columns of X, for a population of dimension d.
func (s *Samples) Width(d int) int {
	if s.Columns != nil {
		return len(s.Columns)
	}
	return d
}

// Population is a set of users, numbered from 0. Its methods may be called
// from many goroutines; each passes its own destination, whose slices are
// reused when they are long enough.
type Population interface {
	// Len is the number of users.
	Len() int
	// Dim is d, the number of features.
	Dim() int
	// Train stores user i's training samples in dst.
	Train(i int, dst *Samples)
	// Test stores user i's held-out samples in dst; none on synthetic data,
	// where the truth itself is known.
	Test(i int, dst *Samples)
}

// Truth is what is known of a synthetic population.
type Truth interface {
	// U returns the shared basis U*, d x r row-major, with orthonormal columns.
	U() []float64
	// Parameters stores theta_i = U* w_i + b_i in theta (length d) and returns
	// the support of b_i in increasing order, in the storage of support.
	Parameters(i int, theta []float64, support []int32) []int32
}
