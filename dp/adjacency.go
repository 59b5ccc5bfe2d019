package dp

import "fmt"

// Adjacency says which pairs of data sets must be hard to tell apart. The
// cohort's size is public in both.
type Adjacency uint8

const (
	// ZeroOut: one user's whole contribution is replaced by zero. The sum moves
	// by at most the bound C on a contribution's norm.
	ZeroOut Adjacency = iota
	// ReplaceOne: one user's contribution is replaced by any other. The sum
	// moves by at most 2C, so the same noise buys less: 20 rounds at noise
	// multiplier 5 and delta 1e-6 are epsilon 4.306 under ZeroOut and 9.617
	// under ReplaceOne.
	ReplaceOne
)

// ParseAdjacency reads "zero-out" or "replace-one".
func ParseAdjacency(s string) (Adjacency, error) {
	switch s {
	case "zero-out":
		return ZeroOut, nil
	case "replace-one":
		return ReplaceOne, nil
	}
	return 0, fmt.Errorf(`dp: adjacency %q is neither "zero-out" nor "replace-one"`, s)
}

func (a Adjacency) String() string {
	switch a {
	case ZeroOut:
		return "zero-out"
	case ReplaceOne:
		return "replace-one"
	}
	return fmt.Sprintf("Adjacency(%d)", uint8(a))
}

// SensitivityFactor is the sensitivity of a sum whose summands have norm at
// most 1.
func (a Adjacency) SensitivityFactor() float64 {
	if a == ReplaceOne {
		return 2
	}
	return 1
}

// MarshalText writes a as String does.
func (a Adjacency) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what ParseAdjacency does.
func (a *Adjacency) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAdjacency(string(text))
	return err
}
