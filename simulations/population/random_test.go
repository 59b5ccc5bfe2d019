package population

import (
	"math/rand/v2"
	"testing"
)

func BenchmarkNormals(b *testing.B) {
	dst := make([]float64, 2500)
	b.Run("ziggurat", func(b *testing.B) {
		b.ReportAllocs()
		s := newStream(1, 1)
		for b.Loop() {
			s.normals(dst)
		}
	})
	b.Run("rand-v2", func(b *testing.B) {
		b.ReportAllocs()
		r := rand.New(rand.NewPCG(1, 1))
		for b.Loop() {
			for i := range dst {
				dst[i] = r.NormFloat64()
			}
		}
	})
}
