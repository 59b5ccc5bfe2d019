package simulations

import "fmt"

// meter counts client-rounds.
type meter struct {
	total    int64
	done     int64
	stage    string
	expected map[*unit]int64
	unitDone int64
	tell     func(Progress)
}

func newMeter(todo []*unit, clients int, tell func(Progress)) *meter {
	m := &meter{expected: map[*unit]int64{}, tell: tell}
	for _, u := range todo {
		passes := 1
		if u.plan != nil {
			passes = len(u.plan.Phases()) + 1 // and the measurement at the end
		}
		m.expected[u] = int64(passes) * int64(clients)
		m.total += m.expected[u]
	}
	return m
}

func (m *meter) begin(u *unit) {
	m.unitDone = 0
	m.stage = u.method
	if u.plan != nil {
		m.stage += fmt.Sprintf(", epsilon %v", u.epsilon)
	}
	if u.cfg.Seeds > 1 {
		m.stage += fmt.Sprintf(", seed %d of %d", u.seed-u.cfg.Seed+1, u.cfg.Seeds)
	}
	m.add(0)
}

func (m *meter) add(n int64) {
	m.done += n
	m.unitDone += n
	if m.tell != nil {
		m.tell(Progress{Done: m.done, Total: m.total, Stage: m.stage})
	}
}

// end takes rounds that were not needed out of the total.
func (m *meter) end(u *unit) {
	m.total += m.unitDone - m.expected[u]
	m.add(0)
}

func (m *meter) skip(u *unit) { m.done += m.expected[u] }
