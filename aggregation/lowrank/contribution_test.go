package lowrank_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/client/local"
	"gonum.org/v1/gonum/floats"
)

// population draws users of theta = mean + U w, features of the kind that the
// method expects, and U itself where the features are standard.
func population(rng *rand.Rand, c lowrank.Config, users, samples int) (data []local.Samples, u []float64) {
	d := c.Dim
	truth := lowrank.Config{Dim: d, Sketch: c.Rank}.Start().Omega() // any basis
	for range users {
		theta := make([]float64, d)
		for r := range c.Rank {
			floats.AddScaled(theta, rng.NormFloat64(), truth[r*d:(r+1)*d])
		}
		if c.Centred {
			theta[0] += 0.5
		}
		s := local.Samples{X: make([]float64, samples*d), Y: make([]float64, samples)}
		for i := range samples {
			x := s.X[i*d : (i+1)*d]
			if c.Features == lowrank.OneHot {
				x[rng.IntN(d-1)], x[d-1] = 1, 1
			} else {
				for j := range x {
					x[j] = rng.NormFloat64()
					if c.Features == lowrank.Unscaled {
						x[j] *= math.Exp2(float64(j))
					}
				}
			}
			s.Y[i] = floats.Dot(x, theta) + 0.01*rng.NormFloat64()
		}
		data = append(data, s)
	}
	return data, truth
}

// collect sums the users' contributions to the next release, and checks that
// every part keeps within its bound and is filled by somebody.
func collect(t *testing.T, s *lowrank.State, data []local.Samples) []float64 {
	t.Helper()
	phase, _ := s.Phase()
	layout := s.Config.Layout(phase.Kind)
	sum, one := make([]float64, layout.Len()), make([]float64, layout.Len())
	var c local.Contributor
	filled := make([]bool, len(layout))
	for i := range data {
		if err := c.Contribute(one, s, data[i]); err != nil {
			t.Fatal(err)
		}
		for j, p := range layout {
			n := floats.Norm(layout.Part(p.Name, one), 2)
			if !(n <= p.Bound*(1+1e-12)) {
				t.Fatalf("%s of user %d to %s has norm %v, bound %v", p.Name, i, phase.Kind, n, p.Bound)
			}
			filled[j] = filled[j] || n > 0
		}
		floats.Add(sum, one)
	}
	for j, p := range layout {
		if !filled[j] {
			t.Errorf("nobody fills %s of %s", p.Name, phase.Kind)
		}
	}
	return sum
}

// TestClientsFillTheLayout runs whole schedules of both halves of the method.
func TestClientsFillTheLayout(t *testing.T) {
	for _, features := range []lowrank.Features{lowrank.Standard, lowrank.Unscaled, lowrank.OneHot} {
		for _, centred := range []bool{false, true} {
			for _, update := range []lowrank.Update{lowrank.Gradient, lowrank.LeastSquares} {
				for _, sketch := range []int{0, 4} {
					c := lowrank.Config{Dim: 6, Rank: 2, Rounds: 4, Features: features, Centred: centred, Update: update, Sketch: sketch}
					t.Run(fmt.Sprintf("%s/centred=%v/%s/sketch=%d", features, centred, update, sketch), func(t *testing.T) {
						data, truth := population(rand.New(rand.NewPCG(1, 2)), c, 80, 12)
						s := c.Start()
						for _, more := s.Phase(); more; _, more = s.Phase() {
							next, err := s.Advance(collect(t, s, data), 0)
							if err != nil {
								t.Fatal(err)
							}
							s = next
						}
						if features != lowrank.Standard || centred {
							return
						}
						// ||U^T truth||_F^2 = r where the spans agree.
						off := float64(c.Rank)
						for a := range c.Rank {
							for b := range c.Rank {
								v := floats.Dot(s.Model.Column(a), truth[b*c.Dim:(b+1)*c.Dim])
								off -= v * v
							}
						}
						if off > 1e-4 { // 0.01 squared, the responses' noise
							t.Errorf("U at squared distance %v from the truth", off)
						}
					})
				}
			}
		}
	}
}
