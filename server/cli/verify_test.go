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

// What was carried over from before the ledger, and what is doubtful, is said too, in text
// and JSON.
func TestVerdictOfDoubts(t *testing.T) {
	h := &ledger.History{Before: 7, Doubts: []ledger.Doubt{{Record: 9, Job: "films", Problem: "odd"}}}
	v := &verified{history: h, report: new(report.Report), took: time.Second}
	var b bytes.Buffer
	if err := v.print(&b, "ledger.zip"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"the first 7 records are of before the ledger: their times are the operator's word", "record 9 (job films): odd"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q:\n%s", want, b.String())
		}
	}
	if out := v.view("ledger.zip"); out.Before != 7 || len(out.Warnings) != 1 || out.Warnings[0] != "record 9 (job films): odd" {
		t.Errorf("%+v", out)
	}
}
