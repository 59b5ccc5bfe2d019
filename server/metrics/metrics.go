// Package metrics is what a node counts, for Prometheus. It counts requests,
// batches and rounds, never what a client sent.
package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/undertone-fl/undertone/aggregation/rounds"
)

// Node is what is read when metrics are collected.
type Node interface {
	View(func(m *rounds.Machine, index uint64))
	Leading() (bool, uint64)
}

// Metrics has a registry of its own, so that a program may embed several nodes.
type Metrics struct {
	Registry *prometheus.Registry

	Accepted  prometheus.Counter     // contributions acknowledged for the first time
	Duplicate prometheus.Counter     // contributions acknowledged again
	Refused   *prometheus.CounterVec // requests refused, by reason
	Panics    prometheus.Counter     // requests that ended in a recovered panic

	BatchMembers  prometheus.Histogram
	CommitSeconds prometheus.Histogram // of a batch, from its proposal on
	Reproposed    prometheus.Counter   // batches proposed again
	Inflight      prometheus.Gauge     // bytes of contributions that are being received or committed
	Connections   prometheus.Gauge

	Actions        *prometheus.CounterVec // of the leader: open, close, release, fail; by outcome
	AdvanceSeconds prometheus.Histogram
	Held           *prometheus.GaugeVec // jobs whose next attempt waits for an operator
	Unsigned       prometheus.Gauge     // a leader opens no rounds, as it cannot sign the ledger
}

// New returns metrics at zero.
func New() *Metrics {
	m := &Metrics{
		Registry:  prometheus.NewRegistry(),
		Accepted:  counter("contributions_accepted_total", "Contributions acknowledged for the first time."),
		Duplicate: counter("contributions_duplicate_total", "Contributions acknowledged again, after a retry."),
		Refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "refused_total", Help: "Requests refused, by reason.",
		}, []string{"reason"}),
		Panics: counter("panics_total", "Requests that ended in a panic, which was recovered."),
		BatchMembers: histogram("batch_members", "Contributions in a committed batch.",
			prometheus.ExponentialBuckets(1, 2, 13)),
		CommitSeconds: histogram("batch_commit_seconds", "From the proposal of a batch to its commitment.",
			prometheus.ExponentialBuckets(0.0005, 2, 16)),
		Reproposed:  counter("batches_reproposed_total", "Batches proposed again, because the outcome was not known or a member was counted."),
		Inflight:    gauge("inflight_bytes", "Contributions that are being received or committed."),
		Connections: gauge("connections", "Open connections of clients, operators and auditors."),
		Actions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "round_actions_total", Help: "What this node did to rounds as the leader.",
		}, []string{"action", "outcome"}),
		AdvanceSeconds: histogram("advance_seconds", "Computation of a round's new state.",
			prometheus.ExponentialBuckets(0.001, 2, 16)),
		Held: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: namespace, Name: "job_held", Help: "1: another attempt at the round would spend what later rounds need, so an operator decides.",
		}, []string{"job"}),
		Unsigned: gauge("rounds_wait_for_key", "1: this node leads and cannot sign the ledger, so no round is opened."),
	}
	m.Registry.MustRegister(m.Accepted, m.Duplicate, m.Refused, m.Panics, m.BatchMembers, m.CommitSeconds,
		m.Reproposed, m.Inflight, m.Connections, m.Actions, m.AdvanceSeconds, m.Held, m.Unsigned,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

const namespace = "undertone"

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
}

func histogram(name, help string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets})
}

// Watch adds what is read off a node's state.
func (m *Metrics) Watch(n Node) { m.Registry.MustRegister(&state{n}) }

// state reads a node when it is collected.
type state struct{ node Node }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

var (
	appliedIndex = describe("applied_index", "Index of the last log entry applied.")
	leader       = describe("leader", "1 on the node that leads.")
	term         = describe("term", "Term of the leadership, as this node knows it.")
	clients      = describe("clients", "Clients that ever took part.")
	openRounds   = describe("open_rounds", "Rounds that collect.")
	members      = describe("round_members", "Contributions in the last attempt at a round.", "job")
	released     = describe("rounds_released", "Rounds released.", "job")
	spent        = describe("spent_nano_rho", "Privacy budget spent, in nano-rho.", "job")
	budget       = describe("budget_nano_rho", "Privacy budget, in nano-rho.", "job")
)

func (s *state) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{appliedIndex, leader, term, clients, openRounds, members, released, spent, budget} {
		ch <- d
	}
}

func (s *state) Collect(ch chan<- prometheus.Metric) {
	leading, inTerm := s.node.Leading()
	var metrics []prometheus.Metric // sent after View: a slow reader must not hold it
	add := func(d *prometheus.Desc, v float64, labels ...string) {
		metrics = append(metrics, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...))
	}
	add(leader, oneIf(leading))
	add(term, float64(inTerm))
	s.node.View(func(m *rounds.Machine, index uint64) {
		add(appliedIndex, float64(index))
		add(clients, float64(m.Clients()))
		open := 0
		for _, name := range m.Jobs() {
			j, _ := m.Job(name)
			if n := len(j.Attempts); n > 0 {
				last := &j.Attempts[n-1]
				add(members, float64(last.Members), name)
				if last.Phase == rounds.Collecting {
					open++
				}
			}
			add(released, float64(j.Released), name)
			add(spent, float64(j.Spent), name)
			add(budget, float64(j.Spec.Budget), name)
		}
		add(openRounds, float64(open))
	})
	for _, metric := range metrics {
		ch <- metric
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
