package pages

import (
	"context"
	"slices"
	"sync"
	"time"

	"gonum.org/v1/plot/plotter"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/server/pages/figure"
	"github.com/undertone-fl/undertone/server/replication"
)

// meter remembers how many contributions the cluster had taken, for a while.
//
// It measures only while the node keeps up. What a node learns of when it joins, or comes
// back, was taken before; so after that it begins anew, with what it knows once it has
// seen all that was committed until then.
type meter struct {
	node     Node
	stats    func() replication.Stats
	notReady func() []string

	current   bool   // it keeps up, since it last made sure
	installed uint64 // snapshots by then

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

func newMeter(n Node, stats func() replication.Stats, notReady func() []string) *meter {
	return &meter{node: n, stats: stats, notReady: notReady}
}

func (m *meter) run(ctx context.Context) {
	tick := time.NewTicker(meterPause)
	defer tick.Stop()
	for {
		m.tick(ctx, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// tick takes a sample if the node keeps up, and else forgets those there are.
func (m *meter) tick(ctx context.Context, now time.Time) {
	if installed := m.stats().Installed; len(m.notReady()) > 0 || installed != m.installed {
		m.current, m.installed = false, installed
		m.forget()
	}
	if !m.current && len(m.notReady()) == 0 {
		ctx, cancel := context.WithTimeout(ctx, meterPause)
		defer cancel()
		_, err := m.node.Barrier(ctx)
		m.current = err == nil
	}
	if m.current {
		m.read(now)
	}
}

func (m *meter) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.samples = nil
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
	if len(m.samples) == 0 {
		return 0, false
	}
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
		Name: "throughput", Title: "Contributions a second", X: "minutes from now", Y: "contributions/s",
		Caption: "What all nodes together have committed, over the last quarter of an hour or since this node keeps up.",
	}, []series{line}, nil, nil)
	f.Panels[0].X.Min, f.Panels[0].X.Max = line.points[0].X, 0
	f.Panels[0].X.Tick.Marker = figure.EvenTicks{Room: 6}
	f.Panels[0].Y.Min = 0
	return f
}
