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

// longestTrace is how many measures a state carries to every client, at about 85 bytes
// each.
const longestTrace = 128

// measure adds what the last release has measured to the trace. Of a long schedule every
// second release is kept, or every fourth, and so on, beside the last.
func (s *State) measure(m Measure) {
	stride := 1
	for s.Step/stride >= longestTrace {
		stride *= 2
	}
	var trace []Measure
	for _, old := range s.Trace {
		if old.Step%stride == 0 {
			trace = append(trace, old)
		}
	}
	s.Trace = append(trace, m)
}
