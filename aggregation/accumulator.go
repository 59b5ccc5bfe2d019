// Package aggregation adds up what clients send, in integers, and knows how a
// contribution is laid out. It decides nothing about privacy (package dp
// does) and nothing about learning (package lowrank does): an accumulator
// sees integers and a layout sees lengths and norm bounds.
//
// Integer addition is exact and does not depend on the order of its terms.
// So a sum is the same whichever worker, server or batch an update passed
// through, and a sum that does not fit is an error, never a silent wrap.
package aggregation

import (
	"errors"
	"fmt"
)

// ErrOverflow says that a sum would leave the range of int64.
var ErrOverflow = errors.New("aggregation: the sum overflows")

// ErrLength says that a vector does not have the accumulator's length.
var ErrLength = errors.New("aggregation: vector of another length")

// ErrTooFew says that fewer vectors were added than a release needs: the
// noise shares of too few clients do not make up the noise that was charged.
var ErrTooFew = errors.New("aggregation: too few contributions")

// Accumulator is a sum of integer vectors and their number. The zero value is
// not usable; see NewAccumulator. It serves one goroutine.
type Accumulator struct {
	sum   []int64
	count int
}

// NewAccumulator returns the empty sum of vectors of n coordinates.
func NewAccumulator(n int) *Accumulator { return &Accumulator{sum: make([]int64, n)} }

// Add adds one vector, not the accumulator's own. On ErrOverflow or ErrLength
// the sum is as before.
func (a *Accumulator) Add(x []int64) error {
	if err := a.add(x); err != nil {
		return err
	}
	a.count++
	return nil
}

// Merge adds everything that b, another accumulator, has added up. On an
// error a is as before.
func (a *Accumulator) Merge(b *Accumulator) error {
	if err := a.add(b.sum); err != nil {
		return err
	}
	a.count += b.count
	return nil
}

// Sum returns the sum, which the accumulator goes on using.
func (a *Accumulator) Sum() []int64 { return a.sum }

// Release returns the sum if at least nMin vectors make it up, and ErrTooFew
// otherwise. The accumulator goes on using what it returns.
func (a *Accumulator) Release(nMin int) ([]int64, error) {
	if a.count < nMin {
		return nil, fmt.Errorf("%w: %d of %d", ErrTooFew, a.count, nMin)
	}
	return a.sum, nil
}

// Count is the number of vectors added.
func (a *Accumulator) Count() int { return a.count }

// Reset empties the sum, for vectors of n coordinates.
func (a *Accumulator) Reset(n int) {
	if cap(a.sum) < n {
		a.sum = make([]int64, n)
	}
	a.sum = a.sum[:n]
	clear(a.sum)
	a.count = 0
}

func (a *Accumulator) add(x []int64) error {
	if len(x) != len(a.sum) {
		return fmt.Errorf("%w: %d coordinates instead of %d", ErrLength, len(x), len(a.sum))
	}
	// Deliberate wrap: a sum overflowed if its sign differs from that of both
	// terms. The loop collects that bit and stays free of branches, and what
	// wrapped on the way up wraps back on the way down.
	var overflow int64
	for i, v := range x {
		s := a.sum[i] + v
		overflow |= (s ^ a.sum[i]) & (s ^ v)
		a.sum[i] = s
	}
	if overflow >= 0 {
		return nil
	}
	for i, v := range x {
		a.sum[i] -= v
	}
	return ErrOverflow
}
