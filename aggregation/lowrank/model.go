package lowrank

import "math"

// Model is what the server releases: the parameters that all users share.
// User i's parameters are theta_i = Mean + U w_i + b_i.
type Model struct {
	Dim  int `json:"dim"`
	Rank int `json:"rank"`
	// U is d x r with orthonormal columns, stored column by column.
	U []float64 `json:"u"`
	// Mean is the shared mean of theta (d), nil where the method has none.
	Mean []float64 `json:"mean,omitempty"`
	// Prior is what is known of the users' w; nil is a flat prior.
	Prior *Prior `json:"prior,omitempty"`
}

// Prior is the distribution of the coordinates that the users share,
// w ~ N(0, Cov), and of the response noise, both learned from noised
// statistics.
type Prior struct {
	Cov           []float64 `json:"cov"` // r x r
	NoiseVariance float64   `json:"noise_variance"`
}

// Column returns column c of U.
func (m *Model) Column(c int) []float64 { return m.U[c*m.Dim : (c+1)*m.Dim] }

// Finite reports whether every number of the model is one.
func (m *Model) Finite() bool {
	for _, s := range [][]float64{m.U, m.Mean} {
		for _, v := range s {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return false
			}
		}
	}
	return true
}
