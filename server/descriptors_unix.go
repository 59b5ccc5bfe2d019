//go:build unix

package server

import (
	"math"
	"syscall"
)

// openFiles is how many files the process may have open. Go has raised the soft
// limit to the hard one by now.
func openFiles() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return math.MaxUint64 // there is none to be known
	}
	return uint64(limit.Cur) // signed on some systems
}
