package lowrank

// Measure is how good the model was after a release, in figures that its state had: what
// was released, and paid for, then. Keeping them costs no privacy.
type Measure struct {
	Step int `json:"step"` // releases done
	// NoiseVariance and Scale are the model's, Change the state's, as this release
	// measured them; 0 where it did not.
	NoiseVariance float64 `json:"noise_variance,omitempty"`
	Scale         float64 `json:"scale,omitempty"`
	Change        float64 `json:"change,omitempty"`
}

// longestTrace is how many measures a state carries to every client, at about 70 bytes
// each: of more, every other one is dropped, and the last is kept.
const longestTrace = 128

// measure adds to the trace what the release after the state before has measured.
func (s *State) measure(before *State) {
	trace := s.Trace
	if len(trace) >= longestTrace {
		var some []Measure
		for i := 1; i < len(trace); i += 2 {
			some = append(some, trace[i])
		}
		trace = some
	}
	m := Measure{Step: s.Step}
	if v := s.Model.NoiseVariance; v != before.Model.NoiseVariance {
		m.NoiseVariance = v
	}
	if v := s.Model.Scale; v != before.Model.Scale {
		m.Scale = v
	}
	if v := s.Change; v != before.Change {
		m.Change = v
	}
	s.Trace = append(trace[:len(trace):len(trace)], m)
}
