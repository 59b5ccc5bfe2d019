package local

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
)

// Constants of the threshold schedule (Pal et al., Algorithm 1; 0 < c1 < 1/2).
// Its fixed point is Delta = (alpha + c1 beta / sqrt(k)) / (1 - 2 c1), here
// (c4 + c1 c5) B / sqrt(k). While b is zero, k coefficients of equal size have
// size B / sqrt(k), so that c4 + c1 c5 < 1 or they are never found.
const (
	thresholdC1    = 0.25
	thresholdC4    = 0.2
	thresholdC5    = 0.2
	thresholdSteps = 12
	thresholdTurns = 6 // alternations between b and w within one local step
)

// threshold chooses the support as AMHT-LRS does: from v = U w, steps of
// gradient descent in b, each followed by the hard threshold
//
//	Delta = alpha + c1 (gamma + beta / sqrt(k)),
//	gamma <- 2 c1 gamma + 2 (alpha + c1 beta / sqrt(k)),
//	alpha = c4 B / (2 sqrt(k)),  beta = c5 B / 2,
//
// in turn with w = (U^T X^T X U)^-1 U^T X^T (y - X b). The paper's B bounds
// ||U - U*||_F and gamma's first value the error of b; here both are the
// user's own: the root mean square of the residual, and the largest
// coordinate of the first gradient. The step is the normalised one (Blumensath
// and Davies 2010): with the fixed step of the paper the iteration diverges
// when m < d. At most k indices are kept, the largest.
func (s *Solver) threshold(k int) []int {
	m, p, r := s.m, s.p, s.r
	h := &s.hard
	h.b, h.g, h.e, h.w = grow(h.b, p), grow(h.g, p), grow(h.e, m), grow(h.w, r)
	clear(h.b)
	root := math.Sqrt(float64(k))
	gamma := 0.0
	for turn := range thresholdTurns {
		// w given b, then e = y - X U w - X b.
		copy(h.e, s.y)
		for i := range m {
			h.e[i] -= floats.Dot(s.row(i), h.b)
		}
		for c := range r {
			h.w[c] = floats.Dot(s.xu[c*m:(c+1)*m], h.e)
		}
		forward(s.chol, r, h.w)
		backward(s.chol, r, h.w)
		for c, w := range h.w {
			floats.AddScaled(h.e, -w, s.xu[c*m:(c+1)*m])
		}
		bound := rms(h.e)
		alpha, beta := thresholdC4*bound/(2*root), thresholdC5*bound/2
		for step := range thresholdSteps {
			clear(h.g)
			for i, e := range h.e {
				floats.AddScaled(h.g, e, s.row(i))
			}
			if turn == 0 && step == 0 {
				gamma = floats.Norm(h.g, math.Inf(1)) / float64(m)
			}
			size := s.normalisedStep(k)
			if size == 0 {
				break
			}
			floats.AddScaled(h.b, size, h.g)
			delta := alpha + thresholdC1*(gamma+beta/root)
			for j, v := range h.b {
				if math.Abs(v) < delta {
					h.b[j] = 0
				}
			}
			keepLargest(h.b, k, &h.order)
			gamma = 2*thresholdC1*gamma + 2*(alpha+thresholdC1*beta/root)
			copy(h.e, s.y)
			for c, w := range h.w {
				floats.AddScaled(h.e, -w, s.xu[c*m:(c+1)*m])
			}
			for i := range m {
				h.e[i] -= floats.Dot(s.row(i), h.b)
			}
		}
	}
	h.support = h.support[:0]
	for j, v := range h.b {
		if v != 0 {
			h.support = append(h.support, j)
		}
	}
	return h.support
}

// hard is the storage of the hard-thresholding schedule.
type hard struct {
	b, g, e, w []float64
	order      []int
	support    []int
}

// normalisedStep is ||g_S||^2 / ||X g_S||^2 over b's support, or over the k
// largest entries of g while b is zero; 0 where there is none.
func (s *Solver) normalisedStep(k int) float64 {
	h := &s.hard
	h.order = h.order[:0]
	for j, v := range h.b {
		if v != 0 {
			h.order = append(h.order, j)
		}
	}
	if len(h.order) == 0 {
		for j := range h.g {
			h.order = append(h.order, j)
		}
		slices.SortFunc(h.order, func(a, b int) int { return cmpAbs(h.g, a, b) })
		h.order = h.order[:min(k, len(h.order))]
	}
	var up, down float64
	for _, j := range h.order {
		up += h.g[j] * h.g[j]
	}
	for i := range s.m {
		row, v := s.row(i), 0.0
		for _, j := range h.order {
			v += row[j] * h.g[j]
		}
		down += v * v
	}
	if !(down > 0) {
		return 0
	}
	return up / down
}

// keepLargest zeroes all but the k entries of x that are largest in magnitude.
func keepLargest(x []float64, k int, order *[]int) {
	*order = (*order)[:0]
	for j, v := range x {
		if v != 0 {
			*order = append(*order, j)
		}
	}
	if len(*order) <= k {
		return
	}
	slices.SortFunc(*order, func(a, b int) int { return cmpAbs(x, a, b) })
	for _, j := range (*order)[k:] {
		x[j] = 0
	}
}

// cmpAbs orders indices by falling magnitude of x, then by index.
func cmpAbs(x []float64, a, b int) int {
	switch va, vb := math.Abs(x[a]), math.Abs(x[b]); {
	case va > vb:
		return -1
	case va < vb:
		return 1
	}
	return a - b
}
