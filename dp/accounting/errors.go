package accounting

import (
	"errors"
	"fmt"
	"math"
)

// What a caller may decide on, with [errors.Is]. The types beside them carry
// the figures, for [errors.As].
var (
	ErrParameter      = errors.New("parameter out of range")           // *ParameterError
	ErrUnsupported    = errors.New("event cannot be accounted")        // *UnsupportedError
	ErrBudgetExceeded = errors.New("privacy budget exceeded")          // *BudgetError
	ErrOverflow       = errors.New("cost exceeds what can be counted") // a charge beyond NanoRho, a loss beyond the grid
)

// ParameterError is a number outside its domain.
type ParameterError struct {
	Name  string
	Value float64
	Want  string
}

func (e *ParameterError) Error() string {
	return fmt.Sprintf("accounting: %s is %v, want %s", e.Name, e.Value, e.Want)
}

func (e *ParameterError) Unwrap() error { return ErrParameter }

// UnsupportedError is an event that an accountant has no sound bound for.
type UnsupportedError struct {
	Accountant string
	Event      Event
	Reason     string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("accounting: %s cannot account for %v: %s", e.Accountant, e.Event, e.Reason)
}

func (e *UnsupportedError) Unwrap() error { return ErrUnsupported }

// BudgetError is a charge that a [Filter] refused.
type BudgetError struct {
	Budget, Spent, Charge NanoRho
}

func (e *BudgetError) Error() string {
	return fmt.Sprintf("accounting: a charge of %v does not fit: %v of %v are spent", e.Charge, e.Spent, e.Budget)
}

func (e *BudgetError) Unwrap() error { return ErrBudgetExceeded }

// The comparisons below are written so that NaN fails them.

func checkPositive(name string, v float64) error {
	if v > 0 && !math.IsInf(v, 1) {
		return nil
	}
	return &ParameterError{name, v, "a positive number"}
}

func checkEpsilon(v float64) error {
	if v >= 0 && !math.IsInf(v, 1) {
		return nil
	}
	return &ParameterError{"epsilon", v, "a number of at least 0"}
}

func checkDelta(v float64) error {
	if v > 0 && v < 1 {
		return nil
	}
	return &ParameterError{"delta", v, "a number between 0 and 1, both excluded"}
}

func checkRate(v float64) error {
	if v >= 0 && v <= 1 {
		return nil
	}
	return &ParameterError{"sampling rate", v, "a number from 0 to 1"}
}

func checkCount(name string, n int) error {
	if n >= 1 {
		return nil
	}
	return &ParameterError{name, float64(n), "at least 1"}
}
