//go:build !unix

package simulations

import "runtime"

// peakRSS is what the runtime has obtained from the system, in bytes: the
// nearest that is known here.
func peakRSS() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys)
}
