package lowrank

import (
	"math"
	"testing"
)

func TestPhaseShares(t *testing.T) {
	for _, features := range []Features{Standard, Unscaled, OneHot} {
		for _, centred := range []bool{false, true} {
			for _, rank := range []int{0, 1, 5} {
				for _, rounds := range []int{0, 1, 3, 20} {
					for _, dim := range []int{10, LargestMoment, LargestMoment + 1} {
						c := Config{Dim: dim, Rank: rank, Rounds: rounds, Features: features, Centred: centred, Update: Gradient}
						checkPhases(t, c)
					}
				}
			}
		}
	}
}

func checkPhases(t *testing.T, c Config) {
	t.Helper()
	phases := c.Phases()
	if len(phases) == 0 {
		// Without a subspace, a mean or unknown features, or without rounds
		// for the mean, there is nothing to release.
		if c.Rank > 0 || c.Features != Standard || c.Centred && c.Rounds > 0 {
			t.Errorf("%+v: no phases", c)
		}
		return
	}
	var total float64
	updates, moments := 0, false
	for i, p := range phases {
		if !(p.Share > 0) {
			t.Errorf("%+v: phase %d, %s, has share %v", c, i, p.Kind, p.Share)
		}
		total += p.Share
		if p.Kind == Refine {
			updates++
		} else if updates > 0 {
			t.Errorf("%+v: %s after an update", c, p.Kind)
		}
		moments = moments || p.Kind == Moments
		if bound := c.Layout(p.Kind).Bound(); bound > math.Sqrt(1+3*histogramBound*histogramBound) {
			t.Errorf("%+v: %s has norm %v", c, p.Kind, bound)
		}
	}
	if math.Abs(total-1) > 1e-12 {
		t.Errorf("%+v: shares sum to 1 %+.3g", c, total-1)
	}
	want := c.Rounds
	if c.Rank == 0 && !c.Centred {
		want = 0 // no column to update
	}
	if updates != want {
		t.Errorf("%+v: %d updates, want %d", c, updates, want)
	}
	if want := c.Features == Unscaled || c.Features == Standard && c.Centred; moments != want {
		t.Errorf("%+v: moments are released: %v", c, moments)
	}
	if n := c.Layout(Moments).Len(); c.Dim > LargestMoment && n > 2*c.Dim+histogramBins {
		t.Errorf("%+v: %d coordinates of moments", c, n)
	}
}

// TestResponseIsFirst: what sets the responses' scale rides with the first
// release of a centred schedule, as the mean is in its units from then on.
func TestResponseIsFirst(t *testing.T) {
	for _, c := range configurations() {
		for i, p := range c.Phases() {
			layout := c.Layout(p.Kind)
			has := layout.Part(PartResponse, make([]float64, layout.Len())) != nil
			if want := c.Centred && i == 0; has != want {
				t.Errorf("%v: release %d, %s, learns the responses' scale: %v", c, i, p.Kind, has)
			}
		}
	}
}
