package lowrank

// Model is what the server releases after every round: the parameters that
// all users share. A user's response to features x is
//
//	y = Scale * x^T (Mean + U w + b) + noise.
type Model struct {
	Dim  int `json:"dim"`
	Rank int `json:"rank"`
	// U is d x r, stored column by column. Its columns are orthonormal in the
	// whitened features.
	U []float64 `json:"u"`
	// Mean is the shared mean of theta (d), nil where the method has none.
	Mean []float64 `json:"mean,omitempty"`
	// Scale is the size of a typical response; 0 means 1.
	Scale float64 `json:"scale,omitempty"`
	// Prior is the covariance (r x r) of the users' w ~ N(0, Prior). While it is
	// nil a user has only a weak one, from their own responses.
	Prior []float64 `json:"prior,omitempty"`
	// NoiseVariance is that of a typical user's responses, in units of Scale^2;
	// 0 is unknown.
	NoiseVariance float64 `json:"noise_variance,omitempty"`
}

// Column returns column c of U.
func (m *Model) Column(c int) []float64 { return m.U[c*m.Dim : (c+1)*m.Dim] }

// ResponseScale is Scale, or 1 where it is not set.
func (m *Model) ResponseScale() float64 {
	if m.Scale > 0 {
		return m.Scale
	}
	return 1
}
