package lowrank

import (
	"math"

	"gonum.org/v1/gonum/floats"
)

// A feature's scale is learned from a histogram of its own, coarser than the
// others: one bin for each power of two.
const (
	scaleBins   = 24
	lowestScale = -8 // of two
)

// ScaleBin returns the bin of a feature's root mean square, -1 for zero.
func ScaleBin(rms float64) int {
	if !(rms > 0) {
		return -1
	}
	return min(max(int(math.Floor(math.Log2(rms)))-lowestScale, 0), scaleBins-1)
}

// learnScales sets the diagonal whitening from the features' histograms: the
// fullest bin, among the users whose feature is not zero in all samples. Where
// no bin stands out of the noise the feature stays left out: of what is not
// even known in size, any coefficient could be too large.
func (s *State) learnScales(sum []float64, sd float64) {
	d := s.Config.Dim
	s.White.Diagonal = make([]float64, d)
	for j := range d {
		bins := sum[j*scaleBins : (j+1)*scaleBins]
		if peak := floats.MaxIdx(bins); bins[peak] > 4*sd {
			s.White.Diagonal[j] = math.Exp2(-(float64(peak+lowestScale) + 0.5))
		}
	}
}

// learnMoments whitens the features by their noised second moment and, if the
// method is centred, sets the mean to the pooled regression. A user sends
// [X^T X ; X^T y / rms(y)], of norm 1 whatever its size, so the sum weighs users
// evenly, and both parts alike.
func (s *State) learnMoments(sum []float64, sd float64) {
	d := s.Config.Dim
	n := triangle(d)
	second := unpack(sum[:n], d)
	var trace float64
	for i := range d {
		trace += second.At(i, i)
	}
	if !(trace > 2*sd*math.Sqrt(float64(d))) { // the noise of the trace itself, twice
		return
	}
	unit := float64(d) / trace
	second.ScaleSym(unit, second)
	diagonal := append([]float64(nil), s.White.Diagonal...)
	s.White.whiten(second, spectralNoise(sd, d)*unit)
	if !s.Config.Centred {
		return
	}
	// The statistics were taken under the diagonal; W^T turns the cross moment
	// once that diagonal is taken out of it again.
	cross := append([]float64(nil), sum[n:]...)
	floats.Scale(unit, cross)
	for i, v := range diagonal {
		if v != 0 {
			cross[i] /= v
		}
	}
	s.White.Pull(s.Center, cross)
	shrink(s.Center, sd*unit)
	s.boundMean()
}

// boundMean keeps the mean within largestMean.
func (s *State) boundMean() {
	if n := floats.Norm(s.Center, 2); n > largestMean {
		floats.Scale(largestMean/n, s.Center)
	}
}

// shrink multiplies x, an estimate with noise sd in each coordinate, by the
// positive-part James-Stein factor (James, Stein 1961), which is the share of
// its squared norm that noise does not explain.
func shrink(x []float64, sd float64) float64 {
	if sd == 0 {
		return 1
	}
	gain := max(0, 1-sd*sd*float64(len(x))/floats.Dot(x, x))
	floats.Scale(gain, x)
	return gain
}

// learnItems sets the whitening of one-hot features from how often each item
// occurs, and the mean from the items' mean responses. A user sends
// [counts ; sums of y / rms(y)], each of norm 1/sqrt(2).
func (s *State) learnItems(sum []float64, sd float64) {
	d := s.Config.Dim
	items := d - 1
	count, response := sum[:items], sum[d:d+items]
	total := floats.Sum(count)
	s.White.Diagonal = make([]float64, d)
	if !(total > 2*sd*math.Sqrt(float64(items))) {
		total, sd = 0, math.Inf(1)
	}
	// An item that noise could have made rare is taken as a tenth of average.
	mean, noise := make([]float64, items), 0.0
	share := make([]float64, items)
	for j := range items {
		c := 1.0
		if total > 0 {
			c = max(count[j], total/float64(items)/10)
			mean[j] = response[j] / c
			noise += sd * sd / (c * c)
		}
		share[j] = c
	}
	floats.Scale(1/floats.Sum(share), share)
	// The items' means shrink towards their average by what noise explains.
	average := floats.Sum(mean) / float64(items)
	var spread float64
	for _, v := range mean {
		spread += (v - average) * (v - average)
	}
	gain := 0.0
	if spread > 0 {
		gain = max(0, 1-noise/spread)
	}
	for j := range items {
		f := math.Sqrt(share[j])
		s.White.Diagonal[j] = 1 / f
		if s.Config.Centred {
			s.Center[j] = f * (average + gain*(mean[j]-average))
		}
	}
	// The constant is the sum of the items: the shared part leaves it out.
	s.White.Diagonal[d-1] = 0
}
