package pages

import (
	"context"
	"slices"
	"time"
)

// Observe is what Run does every few seconds, at a time of the test's.
func (p *Pages) Observe(at time.Time) {
	p.meter.samples = slices.DeleteFunc(p.meter.samples, func(s sample) bool { return s.at.After(at) })
	p.meter.tick(context.Background(), at)
}

// Throughput is the rate that the operator's page shows.
func (p *Pages) Throughput(over time.Duration) (float64, bool) { return p.meter.rate(over) }

// SetClock is what links count their time with.
func (l *Links) SetClock(now func() time.Time) { l.now = now }

// SetClock is what certificates are judged by.
func (p *Pages) SetClock(now func() time.Time) { p.now = now }

// How pages write numbers.
var Significant = significant

func Whole(n int) string { return whole(n) }
