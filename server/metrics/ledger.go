package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/undertone-fl/undertone/server/notary"
)

// WatchLedger adds the figures of the ledger.
func (m *Metrics) WatchLedger(n *notary.Notary) { m.Registry.MustRegister(book{n}) }

// book reads a notary when it is collected.
type book struct{ notary *notary.Notary }

var (
	ledgerRecords     = describe("ledger_records", "Records of the ledger under this node's last checkpoint.")
	ledgerSigned      = describe("ledger_key", "1 on a node that has the ledger's key, and so can sign its checkpoints.")
	ledgerCheckpoints = describe("ledger_checkpoints_signed_total", "Checkpoints signed since the node started.")
)

func (book) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{ledgerRecords, ledgerSigned, ledgerCheckpoints} {
		ch <- d
	}
}

func (b book) Collect(ch chan<- prometheus.Metric) {
	head, err := b.notary.Head()
	if err == nil {
		ch <- prometheus.MustNewConstMetric(ledgerRecords, prometheus.GaugeValue, float64(head.Checkpoint.Size))
	}
	ch <- prometheus.MustNewConstMetric(ledgerSigned, prometheus.GaugeValue, oneIf(err == nil))
	ch <- prometheus.MustNewConstMetric(ledgerCheckpoints, prometheus.CounterValue, float64(b.notary.Signed()))
}
