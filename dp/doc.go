// Package dp turns one user's contribution into integers of bounded norm.
//
// A contribution is clipped in floats ([Clip]), rounded onto a public
// [Lattice] and checked in integers ([Lattice.Encode]), noised in integers
// (package noise), and from there on only added, modulo a power of two. What
// the privacy argument needs is decided by integer comparisons alone; floats
// decide how useful the contribution is.
//
// Two contributions that are released together are one vector with one bound,
// or each is charged.
package dp
