package local

import "errors"

// What a function of this package returns matches one of these, or one of
// those of the personal state's format (see Personal.UnmarshalBinary).
var (
	// ErrSamples says that samples do not fit together or not the model: X of
	// another size than len(Y) x width, Columns out of order or range.
	ErrSamples = errors.New("local: samples of the wrong shape")
	// ErrModel says that a shared model, or the state it came with, is none
	// that a server can have released.
	ErrModel = errors.New("local: malformed model")
	// ErrNotFinite says that samples or a model hold a NaN, an infinity, or
	// numbers so large that a sum of their squares exceeds 1e100.
	ErrNotFinite = errors.New("local: a value is not finite, or too large")
)

// Sums of squares stay within these: X^T X, (XU)^T XU and their products with
// y and w are then normal numbers. What is smaller counts as zero.
const (
	largestSquare  = 1e100
	smallestSquare = 1e-100
)
