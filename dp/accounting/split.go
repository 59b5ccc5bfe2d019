package accounting

import "fmt"

// Split divides a budget among releases in the given shares (positive, of sum
// at most 1 up to rounding) and returns each one's charge, rounded down, so
// that together they fit. Fails with ErrBudgetExceeded if a release would get
// nothing: the budget cannot pay for so many.
func (r NanoRho) Split(shares []float64) ([]NanoRho, error) {
	charges := make([]NanoRho, len(shares))
	left := r
	for i, share := range shares {
		if !(share > 0 && share <= 1) {
			return nil, &ParameterError{"share", share, "must be in (0, 1]"}
		}
		charges[i] = min(NanoRho(share*float64(r)), left)
		if charges[i] == 0 {
			return nil, fmt.Errorf("%w: %v cannot pay for %d releases", ErrBudgetExceeded, r, len(shares))
		}
		left -= charges[i]
	}
	return charges, nil
}
