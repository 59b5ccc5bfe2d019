package client_test

import (
	"fmt"
	"math/rand/v2"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/client"
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
	var data client.Samples
	for range 20 {
		var y float64
		for _, t := range theta {
			x := r.NormFloat64()
			data.X = append(data.X, x)
			y += x * t
		}
		data.Y = append(data.Y, y)
	}

	solver := client.Solver{Sparsity: 1}
	fit, err := solver.Solve(model, data)
	if err != nil {
		fmt.Println(err)
		return
	}
	own := fit.Personal(nil)
	y, err := client.Predict(model, own, []float64{1, 1, 1, 1, 1, 1}, nil)
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
