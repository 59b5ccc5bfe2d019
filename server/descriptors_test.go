package server

import (
	"math"
	"testing"
)

func TestConnectionsLeaveFiles(t *testing.T) {
	for _, test := range []struct {
		files uint64
		want  int // 0: refused
	}{
		{256, 0}, {575, 0}, {576, 64}, {1024, 512}, {33280, 32768}, {1 << 20, 32768}, {math.MaxUint64, 32768},
	} {
		got, err := connections(test.files)
		if got != test.want || (err != nil) != (test.want == 0) {
			t.Errorf("with %d files: %d connections, %v, want %d", test.files, got, err, test.want)
		}
	}
}
