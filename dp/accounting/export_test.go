package accounting

// Directions returns the deltas for removal and for addition of a user.
func (p *PLD) Directions(epsilon float64) (remove, add float64) {
	return p.remove.delta(epsilon), p.add.delta(epsilon)
}

// LogGaussianDelta is ln of GaussianDelta, also where that underflows.
func LogGaussianDelta(mu, epsilon float64) float64 { return logGaussianDelta(mu, epsilon) }
