package noise_test

import (
	"fmt"
	"testing"

	"github.com/undertone-fl/undertone/dp/noise"
)

// BenchmarkAdd noises vectors of 50 x 3 coordinates.
func BenchmarkAdd(b *testing.B) {
	const length = 150
	for _, x := range []float64{2, 1000, 1 << 20} {
		sigma, err := noise.SigmaAtLeast(x)
		if err != nil {
			b.Fatal(err)
		}
		exact, err := noise.NewDiscreteGaussian(sigma, noise.NewSecret())
		if err != nil {
			b.Fatal(err)
		}
		google, err := noise.NewGoogleGaussian(sigma)
		if err != nil {
			b.Fatal(err)
		}
		for _, s := range []noise.Sampler{exact, google} {
			b.Run(fmt.Sprintf("%T/sigma=%g", s, x), func(b *testing.B) {
				vector := make([]int64, length)
				b.ReportAllocs()
				for b.Loop() {
					s.Add(vector)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*length), "ns/draw")
			})
		}
	}
}

func BenchmarkNewDiscreteGaussian(b *testing.B) {
	sigma, _ := noise.SigmaAtLeast(1000)
	for b.Loop() {
		if _, err := noise.NewDiscreteGaussian(sigma, nil); err != nil {
			b.Fatal(err)
		}
	}
}
