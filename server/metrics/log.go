package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/undertone-fl/undertone/server/replication"
)

// WatchLog adds the figures of the replicated log.
func (m *Metrics) WatchLog(stats func() replication.Stats) {
	m.Registry.MustRegister(replicatedLog(stats))
}

// replicatedLog reads a node's log when it is collected.
type replicatedLog func() replication.Stats

var (
	nodes          = describe("nodes", "Nodes of the cluster.")
	committedIndex = describe("committed_index", "Index of the last log entry known to be committed.")
	logEntries     = describe("log_entries", "Entries kept in the log.")
	logBytes       = describe("log_bytes_total", "Bytes of entries appended to the log since the node started.")
	leaderContact  = describe("leader_contact_seconds", "Since the leader was heard of; 0 on the leader.")
	proposals      = describe("proposals_total", "Commands that were seen through, applied or refused.")
	proposeSeconds = describe("propose_seconds_total", "Time that they took, all together.")
	diverged       = describe("diverged", "1 on a node whose state differs from the others'.")
)

func (replicatedLog) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{nodes, committedIndex, logEntries, logBytes, leaderContact, proposals, proposeSeconds, diverged} {
		ch <- d
	}
}

func (l replicatedLog) Collect(ch chan<- prometheus.Metric) {
	s := l()
	add := func(d *prometheus.Desc, kind prometheus.ValueType, v float64) {
		ch <- prometheus.MustNewConstMetric(d, kind, v)
	}
	add(nodes, prometheus.GaugeValue, float64(s.Members))
	add(committedIndex, prometheus.GaugeValue, float64(s.Committed))
	if s.FirstEntry > 0 && s.LastEntry >= s.FirstEntry {
		add(logEntries, prometheus.GaugeValue, float64(s.LastEntry-s.FirstEntry+1))
	} else {
		add(logEntries, prometheus.GaugeValue, 0)
	}
	add(logBytes, prometheus.CounterValue, float64(s.LogBytes))
	add(leaderContact, prometheus.GaugeValue, s.LastContact.Seconds())
	add(proposals, prometheus.CounterValue, float64(s.Proposals))
	add(proposeSeconds, prometheus.CounterValue, s.ProposeTime.Seconds())
	add(diverged, prometheus.GaugeValue, oneIf(s.Diverged))
}
