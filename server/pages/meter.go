package pages

import (
	"context"
	"slices"
	"sync"
	"time"

	"gonum.org/v1/plot/plotter"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/server/pages/figure"
)

// meter remembers how many contributions the cluster had taken, for a while.
type meter struct {
	node Node

	mu      sync.Mutex
	samples []sample // the oldest first
}

type sample struct {
	at    time.Time
	taken int64
}

const (
	meterPause = 5 * time.Second
	meterTime  = 15 * time.Minute
)

func newMeter(n Node) *meter {
	m := &meter{node: n}
	m.read(time.Now())
	return m
}

func (m *meter) run(ctx context.Context) {
	tick := time.NewTicker(meterPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			m.read(now)
		}
	}
}

// read takes a sample. All that was ever committed is in the state, so the figure is the
// cluster's, whichever node it is read on.
func (m *meter) read(now time.Time) {
	var taken int64
	m.node.View(func(machine *rounds.Machine, _ uint64) {
		for _, name := range machine.Jobs() {
			j, _ := machine.Job(name)
			for i := range j.Attempts {
				taken += int64(j.Attempts[i].Members)
			}
		}
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.samples = append(m.samples, sample{now, taken})
	m.samples = slices.DeleteFunc(m.samples, func(s sample) bool { return now.Sub(s.at) > meterTime })
}

// rate is what was taken a second, over the last while or as much of it as is known;
// false if nothing is.
func (m *meter) rate(over time.Duration) (perSecond float64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := m.samples[len(m.samples)-1]
	i := slices.IndexFunc(m.samples, func(s sample) bool { return last.at.Sub(s.at) <= over })
	first := m.samples[i]
	if first.at.Equal(last.at) {
		return 0, false
	}
	return float64(last.taken-first.taken) / last.at.Sub(first.at).Seconds(), true
}

// figure draws the rate over time, nil as long as there is none.
func (m *meter) figure() *figure.Figure {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.samples) < 3 {
		return nil
	}
	last := m.samples[len(m.samples)-1]
	line := series{look: figure.Look{Paint: released.Paint}}
	for i, s := range m.samples[1:] {
		before := m.samples[i]
		line.points = append(line.points, plotter.XY{
			X: s.at.Sub(last.at).Minutes(), Y: float64(s.taken-before.taken) / s.at.Sub(before.at).Seconds(),
		})
	}
	f := chart(&figure.Figure{
		Name: "throughput", Title: "Contributions a second", X: "minutes from now", Y: "contributions/s", Width: 400,
		Caption: "What all nodes together have committed, over the last quarter of an hour or since this node started.",
	}, []series{line}, nil, nil)
	f.Panels[0].X.Min, f.Panels[0].X.Max = line.points[0].X, 0
	f.Panels[0].X.Tick.Marker = figure.EvenTicks{Room: 6}
	f.Panels[0].Y.Min = 0
	return f
}
