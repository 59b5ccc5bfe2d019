package accounting

// Directions returns the deltas for removal and for addition of a user.
func (p *PLD) Directions(epsilon float64) (remove, add float64) {
	return p.remove.delta(epsilon), p.add.delta(epsilon)
}

func (p *PLD) Cells() (int, float64) { return len(p.remove.mass), p.remove.step }
