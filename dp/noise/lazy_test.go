package noise

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// scripted is a source of given words; it fails the test when they run out.
type scripted struct {
	t     *testing.T
	words []uint64
}

func (s *scripted) Uint64() uint64 {
	if len(s.words) == 0 {
		s.t.Fatal("more bits drawn than the decision needs")
	}
	w := s.words[0]
	s.words = s.words[1:]
	return w
}

func (*scripted) sealed() {}

func scriptedSampler(t *testing.T, sigma float64) (*DiscreteGaussian, *scripted) {
	s, err := SigmaAtLeast(sigma)
	if err != nil {
		t.Fatal(err)
	}
	src := &scripted{t: t}
	d, err := NewDiscreteGaussian(s, src)
	if err != nil {
		t.Fatal(err)
	}
	return d, src
}

var awkwardSigmas = []float64{0.5, 1.7, 31.99, 32, 33, 63.9999, 64, 1000.7, 1<<20 - 0.5, 1 << 40}

func TestTablesStayWithinTheirBounds(t *testing.T) {
	for _, sigma := range awkwardSigmas {
		d, _ := scriptedSampler(t, sigma)
		if len(d.below) >= 1<<9 {
			t.Errorf("sigma %g: %d strips", sigma, len(d.below))
		}
		// The proportions of strips against floats, to what floats can tell.
		c, _ := new(big.Rat).SetFrac(d.cNum, d.cDen).Float64()
		var total, sum float64
		for k := range 1000 {
			total += math.Exp(-c * float64(k*k))
		}
		for k, below := range d.below {
			sum += math.Exp(-c * float64(k*k))
			if got, want := math.Ldexp(float64(below), -63), sum/total; math.Abs(got-want) > 1e-13 {
				t.Errorf("sigma %g: P[strip <= %d] = %g, want %g", sigma, k, got, want)
			}
		}
	}
}

// Digits from Python's decimal module at 90 digits.
func TestExpNegEncloses(t *testing.T) {
	const n = 250
	for _, c := range []struct {
		num, den int64
		exp      string
	}{
		{0, 1, "1"},
		{1, 1, "0.36787944117144232159552377016146086744581113103176783450783680169746149574489980"},
		{1, 2, "0.60653065971263342360379953499118045344191813548718695568289215873505651941374842"},
		{2, 1, "0.13533528323661269189399949497248440340763154590957588146815887265407337410148769"},
		{3, 7, "0.65143905753105559000298718362934035123255055835947500016773282910887545770742348"},
		{1, 2048, "0.99951183793988936538793575610300292133499532995622201484839464935542616412994702"},
		{16, 1, "1.1253517471925911451377517906012719163794080065765430257775012913108704437E-7"},
	} {
		lo, hi := expNeg(big.NewInt(c.num), big.NewInt(c.den), n)
		want, ok := new(big.Rat).SetString(c.exp)
		if !ok {
			t.Fatal(c.exp)
		}
		want.Mul(want, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), n)))
		if want.Cmp(new(big.Rat).SetInt(lo)) < 0 || want.Cmp(new(big.Rat).SetInt(hi)) > 0 {
			t.Errorf("exp(-%d/%d) is not enclosed", c.num, c.den)
		}
		if width := hi.Sub(hi, lo); width.Cmp(big.NewInt(2)) > 0 {
			t.Errorf("exp(-%d/%d) is enclosed %d wide", c.num, c.den, width)
		}
	}
}

// edges returns 256-bit numbers, as words, that agree with a threshold
// t/2^256 in their first bits and are on a known side of it: some leave it in
// the first word (in units of 2^-firstBits), some in the last.
func edges(threshold *big.Int, firstBits uint) []*big.Int {
	var u []*big.Int
	for _, shift := range []uint{256 - firstBits, 256 - firstBits - 64, 8} {
		for _, offset := range []int64{-1 << 40, -1000, -66, -65, -64, -63, -3, -2, -1, 1, 2, 3, 63, 64, 65, 66, 1000, 1 << 40} {
			x := new(big.Int).Lsh(big.NewInt(offset), shift)
			if x.Add(x, threshold).Sign() >= 0 && x.BitLen() <= 256 {
				u = append(u, x)
			}
		}
	}
	return u
}

// split returns the first bits of a 256-bit fraction, and the words after them.
func split(u *big.Int, firstBits uint) (first uint64, rest []uint64) {
	first = new(big.Int).Rsh(u, 256-firstBits).Uint64()
	for n := firstBits; n < 256; n += 64 {
		w := new(big.Int).Lsh(u, n)
		rest = append(rest, w.Rsh(w, 192).And(w, new(big.Int).SetUint64(math.MaxUint64)).Uint64())
	}
	return first, rest
}

// However close U comes to the threshold, accept decides as the real numbers
// do.
func TestAcceptDecidesAtTheEdge(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, sigma := range awkwardSigmas {
		d, src := scriptedSampler(t, sigma)
		if d.q == 0 {
			continue
		}
		for range 40 {
			k := rnd.Uint64N(uint64(len(d.below)) + 20) // some beyond the table
			j := 1 + rnd.Uint64N(1<<d.q-1)
			num := new(big.Int).SetUint64(j)
			num.Mul(num, new(big.Int).SetUint64(2*k<<d.q+j)).Mul(num, d.cNum)
			lo, _ := expNeg(num, new(big.Int).Lsh(d.cDen, 2*d.q), 256)
			threshold := new(big.Int).Lsh(big.NewInt(1), 256)
			threshold.Sub(threshold, lo)
			for _, u := range edges(threshold, 64) {
				first, rest := split(u, 64)
				src.words = append([]uint64{first}, rest...)
				if got, want := d.accept(k, j), u.Cmp(threshold) >= 0; got != want {
					t.Fatalf("sigma %g: accept(%d, %d) = %v at %d/2^256 from the edge", sigma, k, j, got, u.Sub(u, threshold))
				}
			}
		}
	}
}

// However close U comes to the border of two strips, or however far into the
// tail, strip decides as the real numbers do.
func TestStripDecidesAtTheEdge(t *testing.T) {
	for _, sigma := range awkwardSigmas {
		d, src := scriptedSampler(t, sigma)
		below, _ := d.cumulative(256)
		borders := min(len(d.below)+20, len(below)-20)
		for k := 0; k < borders; k += 1 + borders/6 {
			for _, u := range edges(below[k], stripBits) {
				want := uint64(0)
				for below[want].Cmp(u) <= 0 {
					want++
				}
				first, rest := split(u, stripBits)
				src.words = rest
				if got := d.strip(first); got != want {
					t.Fatalf("sigma %g: strip %d, want %d, at %d/2^256 from border %d", sigma, got, want, u.Sub(u, below[k]), k)
				}
			}
		}
	}
}

// accept, and its lazy form alone, return true with probability exp(-a/b).
// False alarms: 1e-8 each, by the normal approximation; the source is seeded.
func TestAcceptIsBernoulliExp(t *testing.T) {
	sigma, _ := SigmaAtLeast(1000.7)
	d, err := NewDiscreteGaussian(sigma, NewSeeded(1))
	if err != nil {
		t.Fatal(err)
	}
	c, _ := new(big.Rat).SetFrac(d.cNum, d.cDen).Float64()
	for _, kj := range [][2]uint64{{0, 0}, {0, 1}, {0, 31}, {3, 17}, {40, 8}, {200, 31}, {250, 31}} {
		k, j := kj[0], kj[1]
		v := math.Ldexp(float64(j), -int(d.q))
		p := math.Exp(-c * v * (2*float64(k) + v))
		for _, form := range []struct {
			name  string
			draw  func() bool
			draws int
		}{
			{"accept", func() bool { return d.accept(k, j) }, 400_000},
			{"lazyAccept", func() bool { return d.lazyAccept(k, j, 0, 0) }, 4_000},
		} {
			var n float64
			for range form.draws {
				if form.draw() {
					n++
				}
			}
			sd := math.Sqrt(float64(form.draws) * p * (1 - p))
			if math.Abs(n-float64(form.draws)*p) > 5.73*sd {
				t.Errorf("%s(%d, %d): %g of %d, want probability %g", form.name, k, j, n, form.draws, p)
			}
		}
	}
}
