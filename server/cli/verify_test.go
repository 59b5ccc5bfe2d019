package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/dp/ledger/report"
)

// What a ledger's times and backups mean is said where it is verified.
func TestVerdictWarns(t *testing.T) {
	show := func(r report.Ledger, restored ...int64) string {
		v := &verified{history: &ledger.History{Restored: restored}, report: &report.Report{Ledger: r}, took: time.Second}
		var b bytes.Buffer
		if err := v.print(&b, "ledger.zip"); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if text := show(report.Ledger{}); strings.Contains(text, "WARNING") || strings.Contains(text, "restored") {
		t.Error(text)
	}
	text := show(report.Ledger{Ahead: 2}, 14)
	for _, want := range []string{"WARNING       the last 2 records are dated in the future", "restored      from a backup at record 14: what came between the two is not in this ledger"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q:\n%s", want, text)
		}
	}
}
