package pages

import (
	"slices"
	"time"
)

// Observe is what Run does every few seconds, at a time of the test's.
func (p *Pages) Observe(at time.Time) {
	p.meter.samples = slices.DeleteFunc(p.meter.samples, func(s sample) bool { return s.at.After(at) })
	p.meter.read(at)
}

// SetClock is what links count their time with.
func (l *Links) SetClock(now func() time.Time) { l.now = now }

// How pages write numbers.
var Significant = significant

func Whole(n int) string { return whole(n) }
