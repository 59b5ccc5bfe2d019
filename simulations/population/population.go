// Package population gives simulated experiments their users: synthetic ones,
// drawn from the AMHT-LRS model and from harder variants of it, and those of
// a CSV file. A user's samples are generated or gathered when they are needed,
// so memory does not grow with the number of synthetic users, and with a
// file only as the file does. Everything is a function of the configuration
// and a seed: neither the order of calls nor the number of goroutines changes
// a bit of it.
//
// # CSV files
//
// A file is plain or gzipped (its first bytes tell, not its name), with a
// header that names the columns. The rows of a user need not be adjacent;
// users and items are numbered in order of first appearance. Names of columns
// are matched in any case.
//
// Format "features" is one sample a row:
//
//	school,x1,x2,x3,score
//	17,1,0,24,31
//	17,0,1,24,19
//
// The user is the column called user, else the first; any text names a user.
// The response is the column called response, y or target, else the last. All
// other columns are features, numbers, in their order: d of them. No constant
// is added.
//
// Format "ratings" is one rating a row:
//
//	user,item,rating,timestamp
//	ann,film 3,4.5,1112486027
//
// The columns called user, item and rating are read, else the first three
// (unless one of these names stands elsewhere); further columns are ignored.
// A sample's features are one-hot: 1 for its item, and 1 for the constant,
// which is the last of d = items + 1. They come in compact form, see Samples.
//
// Which items occur in the file, and so d and their order, is taken as public,
// as a shop's catalogue is: an item that a single user has rated is no secret.
//
// Each user's rows are shuffled by the seed, the user's name and nothing else.
// The first of them, CSV.Train rows or that fraction of them (rounded), are
// for training, the others are held out; a user of two rows or more has at
// least one of each, and the row of a user with only one is for training.
//
// A file is refused, with the row and the column at fault (*RowError), when a
// number is missing, malformed, NaN, infinite or too large, a name is empty, a
// row has too many or too few fields, the header is missing (its response is a
// number), lacks a column or repeats one, the compressed data is damaged or
// cut off, or no row would be held out.
package population

import "github.com/undertone-fl/undertone/client/local"

// Samples are one user's data.
type Samples = local.Samples

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
