package population

import (
	"math"
	"math/bits"
)

// stream is xoshiro256++ (Blackman and Vigna, "Scrambled linear pseudorandom
// number generators", 2021). It is fast and small rather than unpredictable:
// it draws simulated data, never noise that protects anybody.
type stream struct{ s0, s1, s2, s3 uint64 }

// newStream returns the stream of one label (a client, say) of a seed. Its
// state is expanded by SplitMix64, as the authors of xoshiro advise.
func newStream(seed, label uint64) stream {
	at := mix(mix(seed) ^ label)
	expand := func() uint64 {
		at += 0x9e3779b97f4a7c15
		return mix(at)
	}
	return stream{expand(), expand(), expand(), expand()}
}

// mix is the finaliser of SplitMix64, a bijection.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// next returns 64 uniform bits.
func (s *stream) next() (u uint64) {
	u, *s = s.step()
	return u
}

// step returns the next 64 bits and the stream behind them. It takes s by
// value so that a loop can keep its stream in registers.
func (s stream) step() (uint64, stream) {
	out := bits.RotateLeft64(s.s0+s.s3, 23) + s.s0
	t := s.s1 << 17
	s.s2 ^= s.s0
	s.s3 ^= s.s1
	s.s1 ^= s.s2
	s.s0 ^= s.s3
	s.s2 ^= t
	s.s3 = bits.RotateLeft64(s.s3, 45)
	return out, s
}

// uniform returns a multiple of 2^-53 in [0, 1).
func (s *stream) uniform() float64 { return float64(s.next()>>11) * 0x1p-53 }

// normal returns one N(0, 1).
func (s *stream) normal() float64 {
	var x [1]float64
	s.normals(x[:])
	return x[0]
}

// normals fills dst with independent N(0, 1) by the ziggurat method
// (Marsaglia and Tsang, 2000): the density is covered by layers of equal
// area, and nearly always the drawn point lies in the part of its layer that
// is wholly under the curve.
func (s *stream) normals(dst []float64) {
	at := *s
	for n := range dst {
		var u uint64
		u, at = at.step()
		layer := u % layers
		x := float64(int64(u)>>11) * zig.scale[layer]
		if math.Abs(x) >= zig.x[layer+1] {
			*s = at
			x = s.edge(layer, x)
			at = *s
		}
		dst[n] = x
	}
	*s = at
}

// edge finishes a draw whose x in a layer is not known to be under the curve.
func (s *stream) edge(layer uint64, x float64) float64 {
	for math.Abs(x) >= zig.x[layer+1] {
		if layer == 0 {
			return math.Copysign(s.tail(), x)
		}
		y := zig.f[layer] + s.uniform()*(zig.f[layer+1]-zig.f[layer])
		if y < math.Exp(-x*x/2) {
			return x
		}
		u := s.next()
		layer = u % layers
		x = float64(int64(u)>>11) * zig.scale[layer]
	}
	return x
}

// tail returns |N(0, 1)| given that it exceeds tailStart (Marsaglia, 1964).
func (s *stream) tail() float64 {
	for {
		x := -math.Log(1-s.uniform()) / tailStart
		y := -math.Log(1 - s.uniform())
		if 2*y >= x*x {
			return tailStart + x
		}
	}
}

// A ziggurat of 256 layers; the two constants are those of Marsaglia and
// Tsang, section 3: where the tail begins, and the area of every layer.
const (
	layers    = 256
	tailStart = 3.6541528853610088
	layerArea = 0.00492867323399
)

// zig holds the right edges x of the layers from the base (x[0], whose
// rectangle has the area of strip and tail together) to the top (0), the
// density f there, and the factor that takes 53 signed bits to (-x, x).
var zig = func() (z struct {
	x, f  [layers + 1]float64
	scale [layers]float64
}) {
	density := func(x float64) float64 { return math.Exp(-x * x / 2) }
	z.x[0] = layerArea / density(tailStart)
	z.x[1] = tailStart
	z.f[0], z.f[1] = 0, density(tailStart)
	for i := 2; i < layers; i++ {
		z.f[i] = z.f[i-1] + layerArea/z.x[i-1]
		z.x[i] = math.Sqrt(-2 * math.Log(z.f[i]))
	}
	z.x[layers], z.f[layers] = 0, 1
	for i := range z.scale {
		z.scale[i] = z.x[i] * 0x1p-52
	}
	return z
}()
