package lowrank

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
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
	// Clamped as a float: the conversion of infinity differs by machine.
	return int(min(max(math.Floor(math.Log2(rms))-lowestScale, 0), scaleBins-1))
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
		if peak := floats.MaxIdx(bins); bins[peak] > detection*sd {
			s.White.Diagonal[j] = math.Exp2(-(float64(peak+lowestScale) + 0.5))
		}
	}
}

// learnMoments whitens the features by their noised second moment and, if the
// method is centred, sets the mean to the pooled regression. A user sends
// [X^T X ; X^T y / rms(y)], of norm 1 whatever its size, so the sum weighs users
// evenly, and both parts alike. Above LargestMoment features it is the
// diagonal of X^T X, and each feature is scaled by itself.
func (s *State) learnMoments(sum []float64, sd float64) error {
	d, n := s.Config.Dim, s.Config.momentLen()
	var second *mat.SymDense
	trace := 0.0
	if n == d {
		trace = floats.Sum(sum[:d])
	} else {
		second = unpack(sum[:n], d)
		trace = mat.Trace(second)
	}
	if !(trace > detection/2*sd*math.Sqrt(float64(d))) { // in noise of the trace itself
		return nil
	}
	unit := float64(d) / trace
	cross := slices.Clone(sum[n:])
	floats.Scale(unit, cross)
	diagonal := slices.Clone(s.White.Diagonal)
	if second == nil {
		if s.White.Diagonal == nil {
			s.White.Diagonal = slices.Repeat([]float64{1}, d)
		}
		for j := range d {
			s.White.Diagonal[j] *= inverseRoot(sum[j]*unit, sd*unit)
		}
	} else {
		second.ScaleSym(unit, second)
		if err := s.White.whiten(second, spectralNoise(sd, d)*unit); err != nil {
			return err
		}
	}
	if !s.Config.Centred {
		return nil
	}
	// The statistics were taken under the diagonal; W^T turns the cross moment
	// once that diagonal is taken out of it again.
	for i, v := range diagonal {
		if v != 0 {
			cross[i] /= v
		}
	}
	s.White.Pull(s.Center, cross)
	shrink(s.Center, sd*unit)
	return nil
}

// learnItems sets the whitening of one-hot features from how often each item
// occurs, and the mean from the items' mean responses. A user sends
// [counts ; sums of y / rms(y)], each of norm 1/sqrt(2). If the counts do not
// stand out of the noise, all items are taken as equally frequent.
func (s *State) learnItems(sum []float64, sd float64) {
	d := s.Config.Dim
	items := d - 1
	count, response := sum[:items], sum[d:d+items]
	s.White.Diagonal = make([]float64, d) // the constant stays left out
	average := floats.Sum(count) / float64(items)
	if !(average > detection/2*sd/math.Sqrt(float64(items))) { // in noise of the average itself
		for j := range items {
			s.White.Diagonal[j] = math.Sqrt(float64(items))
		}
		return
	}
	var total, noise float64
	share, mean := make([]float64, items), make([]float64, items)
	for j := range items {
		share[j] = max(count[j], rarest*average)
		total += share[j]
		mean[j] = response[j] / share[j]
		noise = math.Hypot(noise, sd/share[j])
	}
	// The items' means shrink towards their average by what noise explains.
	center := floats.Sum(mean) / float64(items)
	floats.AddConst(-center, mean)
	floats.Scale(gain(floats.Norm(mean, 2), noise), mean)
	for j := range items {
		f := math.Sqrt(share[j] / total)
		s.White.Diagonal[j] = 1 / f
		if s.Config.Centred {
			s.Center[j] = f * (center + mean[j])
		}
	}
}

// rarest is the least share of an average item's count that an item is taken
// to have: noise could have made it rare, and 1/count would blow that up.
const rarest = 0.1
