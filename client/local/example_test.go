package local_test

import (
	"fmt"
	"math/rand/v2"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/noise"
)

// A device fits its user's part of the model, keeps it, and predicts.
func Example() {
	// From the server: the subspace of the first two of six features.
	model := &lowrank.Model{Dim: 6, Rank: 2, U: []float64{
		1, 0, 0, 0, 0, 0,
		0, 1, 0, 0, 0, 0,
	}}
	// From the app: y = x^T theta, where the user differs in feature 4.
	theta := []float64{2, -1, 0, 0, 3, 0}
	r := rand.New(rand.NewPCG(1, 2))
	var data local.Samples
	for range 20 {
		var y float64
		for _, t := range theta {
			x := r.NormFloat64()
			data.X = append(data.X, x)
			y += x * t
		}
		data.Y = append(data.Y, y)
	}

	solver := local.Solver{Sparsity: 1}
	fit, err := solver.Solve(model, data)
	if err != nil {
		fmt.Println(err)
		return
	}
	own := fit.Personal(nil)
	y, err := local.Predict(model, own, []float64{1, 1, 1, 1, 1, 1}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("w = %.2f, b = %.2f on feature %d\n", own.W, own.B[0].Value, own.B[0].Feature)
	fmt.Printf("prediction %.2f\n", y)
	// Output:
	// w = [1.99 -0.99], b = 3.00 on feature 4
	// prediction 3.99
}

// A device computes what it sends: a contribution of bounded norm, made
// integer, with its share of the noise added from a cryptographic source. The
// lattice, the noise multiplier and n_min are public and the same for all.
func ExampleContributor() {
	const noiseMultiplier, nMin = 10.0, 1000
	lattice := dp.Lattice{ScaleBits: 24, ModulusBits: 62}
	config := lowrank.Config{Dim: 6, Rank: 2, Features: lowrank.Standard, Update: lowrank.Gradient, Rounds: 5}
	state := config.Start() // later: what the server has released
	phase, _ := state.Phase()
	layout := config.Layout(phase.Kind)

	data := local.Samples{
		X: []float64{1, 0, 2, 0, 0, 1, 0, 1, 0, 1, 3, 0},
		Y: []float64{2, -1},
	}
	contribution := make([]float64, layout.Len())
	var contributor local.Contributor
	if err := contributor.Contribute(contribution, state, data); err != nil {
		fmt.Println(err) // contribution is zeros then: send these
	}

	sensitivity, _ := lattice.Bound(layout.Bound())
	total, _ := noise.SigmaAtLeast(noiseMultiplier * float64(sensitivity))
	share, _, err := noise.Share(total, nMin)
	if err != nil {
		fmt.Println(err)
		return
	}
	mechanism, err := local.NewMechanism(lattice, sensitivity, share, noise.NewSecret())
	if err != nil {
		fmt.Println(err)
		return
	}
	update := make([]int64, len(contribution))
	if err := mechanism.Encode(update, contribution); err != nil { // store it, then send it
		fmt.Println(err)
		return
	}
	fmt.Printf("%s: %d integers\n", phase.Kind, len(update))
	// Output: initialise: 21 integers
}
