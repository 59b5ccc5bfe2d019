package noise

import (
	"fmt"
	"math"
	"math/big"
)

// MinShare is the narrowest share of noise that [Share] hands out: two lattice
// units. There the sum of shares is within 1e-16 of one discrete Gaussian.
const MinShare Sigma = 2 << sigmaFractionBits

// ShareError says that noise split among that many clients would be too
// narrow for a sum of discrete Gaussians to be as good as one. The lattice
// wants to be finer.
type ShareError struct {
	Total, Local Sigma
	NMin         int
}

func (e *ShareError) Error() string {
	return fmt.Sprintf("noise: sigma %g split among %d clients is %g lattice units each, below %g: use a finer lattice",
		e.Total.Float64(), e.NMin, e.Local.Float64(), MinShare.Float64())
}

// Share splits noise among clients: local is the least sigma for which nMin
// shares have together at least the variance total^2.
//
// The sum of nMin shares is not quite a discrete Gaussian. Its probabilities
// and those of N_Z(0, nMin local^2) differ by a factor of at most
// exp(closeness), in either direction and for each coordinate, with
//
//	closeness = 10 sum_{k=1}^{nMin-1} exp(-2 pi^2 local^2 k/(k+1)),
//
// local in lattice units (Kairouz, Liu, Steinke, "The Distributed Discrete
// Gaussian Mechanism for Federated Learning with Secure Aggregation", 2021,
// arXiv 2102.06387, section 3). A release of d coordinates is then rho-zCDP
// with sqrt(2 rho) <= Delta/sigma + closeness sqrt(d).
//
// Fails with a *[ShareError] if local is below [MinShare].
func Share(total Sigma, nMin int) (local Sigma, closeness float64, err error) {
	if err := total.check(); err != nil {
		return 0, 0, err
	}
	if nMin < 1 {
		return 0, 0, fmt.Errorf("noise: a share among %d clients", nMin)
	}
	// local = ceil(sqrt(total^2 / nMin)), where the square root of a ceiling
	// rounds to the same.
	variance := new(big.Int).SetUint64(uint64(total))
	variance.Mul(variance, variance)
	n := big.NewInt(int64(nMin))
	variance.Add(variance, n).Sub(variance, big.NewInt(1)).Quo(variance, n)
	root := new(big.Int).Sqrt(variance)
	if new(big.Int).Mul(root, root).Cmp(variance) < 0 {
		root.Add(root, big.NewInt(1))
	}
	local = Sigma(root.Uint64())
	if local < MinShare {
		return 0, 0, &ShareError{Total: total, Local: local, NMin: nMin}
	}
	return local, sumCloseness(local.Float64(), nMin), nil
}

// sumCloseness returns 10 sum_{k=1}^{n-1} exp(-2 pi^2 sigma^2 k/(k+1)), or an
// upper bound on it: the terms fall with k, and from the thousandth on all
// count as much as that one.
func sumCloseness(sigma float64, n int) float64 {
	const separate = 1000
	term := func(k int) float64 {
		return math.Exp(-2 * math.Pi * math.Pi * sigma * sigma * float64(k) / float64(k+1))
	}
	var sum float64
	for k := min(n-1, separate); k >= 1; k-- {
		sum += term(k)
	}
	if rest := n - 1 - separate; rest > 0 {
		sum += float64(rest) * term(separate)
	}
	return 10 * sum
}
