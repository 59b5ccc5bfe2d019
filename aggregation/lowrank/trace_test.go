package lowrank

import (
	"bytes"
	"encoding/json"
	"testing"
)

// traced is a schedule of so many updates whose states keep their trace, or do not.
func traced(rounds int, trace bool) Config {
	return Config{Dim: 30, Rank: 2, Features: Standard, Centred: true, Rounds: rounds, Update: Gradient, Trace: trace}
}

// finish runs a schedule on sums of noise alone, which is as good as any to a trace.
func finish(t *testing.T, c Config) *State {
	t.Helper()
	rng := seeded(1)
	s := c.Start()
	for {
		phase, more := s.Phase()
		if !more {
			return s
		}
		sum := gaussian(rng, c.Layout(phase.Kind).Len(), 1)
		if part := c.Layout(phase.Kind).Part(PartNoise, sum); part != nil {
			part[5] += 1000 // everybody says the same of the noise
		}
		next, err := s.Advance(sum, 1)
		if err != nil {
			t.Fatal(err)
		}
		s = next
	}
}

func TestTrace(t *testing.T) {
	with, without := finish(t, traced(10, true)), finish(t, traced(10, false))
	if without.Trace != nil {
		t.Errorf("a trace that nobody asked for: %v", without.Trace)
	}
	if len(with.Trace) != with.Step {
		t.Fatalf("%d measures of %d releases", len(with.Trace), with.Step)
	}
	for i, m := range with.Trace {
		update := with.Config.Phases()[i].Kind == Refine // before, there is but what the method assumes
		if m.Step != i+1 || (m.NoiseVariance != 0) != update || (m.Change != 0) != update {
			t.Errorf("release %d (update: %v): %+v", i+1, update, m)
		}
	}
	if last := with.Trace[len(with.Trace)-1]; last.NoiseVariance != with.Model.NoiseVariance || last.Change != with.Change {
		t.Errorf("the last release measured %+v, and its state has %v and %v", last, with.Model.NoiseVariance, with.Change)
	}
	// Nothing else depends on it.
	with.Trace, with.Config.Trace = nil, false
	if a, b := encoded(t, with), encoded(t, without); !bytes.Equal(a, b) {
		t.Errorf("the states differ in more than the trace")
	}
}

func encoded(t *testing.T, s *State) []byte {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A trace of a long schedule is thinned, from the first release to the last.
func TestLongTrace(t *testing.T) {
	s := finish(t, traced(1000, true))
	n := len(s.Trace)
	if n < longestTrace/2 || n > longestTrace || s.Trace[n-1].Step != s.Step || s.Trace[0].Step > 20 || s.Trace[1].Step > 40 {
		t.Errorf("%d measures, from %+v to %+v", n, s.Trace[0], s.Trace[n-1])
	}
	full := len(encoded(t, s))
	s.Trace = nil
	t.Logf("%d measures take %d bytes, beside %d", n, full-len(encoded(t, s)), len(encoded(t, s)))
	if each := (full - len(encoded(t, s))) / n; each > 110 {
		t.Errorf("%d bytes a measure", each)
	}
}
