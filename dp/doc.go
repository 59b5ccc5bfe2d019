// Package dp turns one user's contribution into integers of bounded norm.
//
// [Lattice.Encode] clips a contribution, rounds it onto a public lattice and
// checks its norm in integers; package noise noises it in integers; and from
// there on it is only added, modulo a power of two. What the privacy argument
// needs is decided by integer comparisons alone; floats decide how useful the
// contribution is. [Clip] is the first step by itself, for a part that is
// bounded before it joins others.
//
// Two contributions that are released together are one vector with one bound,
// or each is charged.
package dp
