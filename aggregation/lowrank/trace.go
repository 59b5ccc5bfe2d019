package lowrank

// Measure is how good the model was after a release, in figures that its state had: what
// was released, and paid for, then. Keeping them costs no privacy.
type Measure struct {
	Step int `json:"step"` // releases done
	// NoiseVariance and Scale are the model's, Change the state's. 0 is unknown.
	NoiseVariance float64 `json:"noise_variance,omitempty"`
	Scale         float64 `json:"scale,omitempty"`
	Change        float64 `json:"change,omitempty"`
}

// longestTrace is how many measures a state carries to every client, at about 70 bytes
// each: of more, every other one is dropped, and the last is kept.
const longestTrace = 128

// measure adds the state's own measure to its trace.
func (s *State) measure() {
	trace := s.Trace
	if len(trace) >= longestTrace {
		var some []Measure
		for i := 1; i < len(trace); i += 2 {
			some = append(some, trace[i])
		}
		trace = some
	}
	s.Trace = append(trace[:len(trace):len(trace)], Measure{s.Step, s.Model.NoiseVariance, s.Model.Scale, s.Change})
}
