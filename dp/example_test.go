package dp_test

import (
	"fmt"

	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/noise"
)

// A sum over clients, each of which adds a share of the noise.
func Example() {
	const clients, bound, multiplier = 1000, 1.0, 5

	lattice := dp.Lattice{ScaleBits: 16, ModulusBits: 40}
	sensitivity, err := lattice.Bound(bound)
	if err != nil {
		panic(err)
	}
	sigma, err := noise.SigmaAtLeast(multiplier * float64(sensitivity))
	if err != nil {
		panic(err)
	}
	if err := lattice.Capacity(clients, bound, sigma.Float64()); err != nil {
		panic(err)
	}
	share, _, err := noise.Share(sigma, clients)
	if err != nil {
		panic(err)
	}

	// A device would use noise.NewSecret.
	src := noise.NewSeeded(1)
	sampler, err := noise.NewDiscreteGaussian(share, src)
	if err != nil {
		panic(err)
	}
	sum := make([]int64, 3)
	update := make([]int64, 3)
	for range clients {
		if err := lattice.Encode(update, []float64{0.3, -0.4, 0.5}, bound, src); err != nil {
			panic(err)
		}
		sampler.Add(update)
		for i, v := range update {
			sum[i] += v
		}
	}

	mean := make([]float64, 3)
	lattice.Decode(mean, sum)
	for _, v := range mean {
		fmt.Printf("%.1f\n", v/clients)
	}
	// Output:
	// 0.3
	// -0.4
	// 0.5
}
