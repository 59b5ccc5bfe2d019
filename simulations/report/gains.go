package report

import (
	"cmp"
	"slices"

	"gonum.org/v1/gonum/stat"

	"github.com/undertone-fl/undertone/simulations"
)

// gain is how much better one user fares than alone.
type gain struct {
	samples int
	ratio   float64 // the local model's error over the method's: above 1 is a gain
}

// gains compares a method at e with the local model, user by user, on the
// first seed that recorded both.
func gains(res *simulations.Result, method string, e simulations.Epsilon) []gain {
	for _, run := range res.Runs {
		if run.Method != method || run.Epsilon != e || len(run.Users) == 0 {
			continue
		}
		alone := map[int]float64{}
		for _, l := range res.Runs {
			if l.Method == simulations.Local && l.Seed == run.Seed {
				for _, u := range l.Users {
					alone[u.Client] = u.Error
				}
			}
		}
		var gs []gain
		for _, u := range run.Users {
			if a, ok := alone[u.Client]; ok && a > 0 && u.Error > 0 {
				gs = append(gs, gain{u.Samples, a / u.Error})
			}
		}
		return gs
	}
	return nil
}

// medianGain is the median over users of the ratio, and the share of users
// who gain.
func medianGain(gs []gain) (median, winners float64) {
	ratios := make([]float64, len(gs))
	for i, g := range gs {
		ratios[i] = g.ratio
		if g.ratio > 1 {
			winners++
		}
	}
	slices.Sort(ratios)
	return stat.Quantile(0.5, stat.Empirical, ratios, nil), winners / float64(len(gs))
}

// medianBySamples returns the median ratio of users with about as many
// samples: bins of equal numbers of users.
func medianBySamples(gs []gain) []point {
	gs = slices.Clone(gs)
	slices.SortStableFunc(gs, func(a, b gain) int { return cmp.Compare(a.samples, b.samples) })
	bins := min(12, max(1, len(gs)/15))
	var points []point
	for b := range bins {
		bin := gs[b*len(gs)/bins : (b+1)*len(gs)/bins]
		var x, y []float64
		for _, g := range bin {
			x, y = append(x, float64(g.samples)), append(y, g.ratio)
		}
		slices.Sort(y)
		p := point{
			x: stat.Quantile(0.5, stat.Empirical, x, nil),
			y: stat.Quantile(0.5, stat.Empirical, y, nil),
		}
		if n := len(points); n > 0 && points[n-1].x == p.x {
			continue // a bin of the same number of samples
		}
		points = append(points, p)
	}
	return points
}
