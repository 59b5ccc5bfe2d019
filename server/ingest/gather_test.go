package ingest

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/undertone-fl/undertone/aggregation/rounds"
)

// TestGatherWaitsOnceForAClient has clients begin large uploads and send nothing.
func TestGatherWaitsOnceForAClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := New(nil, Config{})
		large := terms{release: &rounds.Release{Length: largeSum}, width: 4}
		for _, step := range []struct {
			begins string
			want   time.Duration
		}{
			{"mallory", gatherTime}, {"mallory", 0}, {"ann", gatherTime}, {"mallory", 0}, {"ann", 0},
		} {
			u := &Upload{in: in, header: Header{Client: rounds.ClientOf(step.begins)}, terms: large}
			in.expect(u)
			start := time.Now()
			in.gather(u.attempt)
			if got := time.Since(start); got != step.want {
				t.Errorf("after an upload of %s began a batch waits %v, want %v", step.begins, got, step.want)
			}
		}
	})
}
