package pages_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/server/internal/solo"
)

// long is a node with so many attempts at rounds, one after the other in one job, that all
// failed for want of contributions.
func long(t testing.TB, attempts int) *solo.Node {
	t.Helper()
	n := solo.New()
	n.BeginLedger(t)
	terms := solo.Terms("endless")
	terms.Epsilon, terms.Spare = 400, attempts
	spec, err := jobs.New(solo.Parameters(), terms)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if spec, err = rounds.ParseSpec(raw); err != nil {
		t.Fatal(err)
	}
	n.CreateFrom(t, spec, raw)
	for i := range attempts {
		n.Do(t, rounds.OpenRound{Job: spec.Job, Round: 1, Attempt: i + 1})
		n.Do(t, rounds.CloseRound{Job: spec.Job, Round: 1, Attempt: i + 1})
	}
	return n
}

// A page shows some rows of a long table at a time, and the way to the others; its files
// have all.
func TestLongTables(t *testing.T) {
	const attempts = 450
	n := serveNode(t, long(t, attempts), solo.SecretKey)
	c := n.browser(t, &carol)
	if rows := n.rows(t, c, "/audit/endless/releases"); len(rows) != attempts {
		t.Errorf("%d rows in files", len(rows))
	}
	for page, want := range map[string]struct {
		rows int
		some string
	}{
		"":                      {200, "Rows 1 to 200 of 450."},
		"?endless-releases=2":   {200, "Rows 201 to 400 of 450."},
		"?endless-releases=3":   {50, "Rows 401 to 450 of 450."},
		"?endless-releases=4":   {200, "Rows 1 to 200 of 450."},
		"?endless-releases=-1":  {200, "Rows 1 to 200 of 450."},
		"?endless-releases=all": {200, "Rows 1 to 200 of 450."},
	} {
		resp, body := n.get(t, c, "/audit/endless"+page)
		if resp.StatusCode != http.StatusOK || !strings.Contains(body, want.some) {
			t.Errorf("%q: %s, no %s", page, resp.Status, want.some)
		}
		if rows := strings.Count(body, `<span class="is-failed">failed</span>`); rows != want.rows {
			t.Errorf("%q: %d rows, want %d", page, rows, want.rows)
		}
	}
}

// BenchmarkPage is one look at the pages of a ledger of 60,000 records, over HTTPS, once
// its report is there; first-ms is the look that has it computed.
func BenchmarkPage(b *testing.B) {
	n := serveNode(b, long(b, 30_000), solo.SecretKey)
	c := n.browser(b, &carol)
	start := time.Now()
	n.get(b, c, "/audit")
	first := time.Since(start)
	for _, path := range []string{"/audit", "/audit/endless", "/operate", "/jobs/endless", "/audit/endless/releases.csv"} {
		b.Run(strings.TrimPrefix(path, "/"), func(b *testing.B) {
			for b.Loop() {
				if resp, body := n.get(b, c, path); resp.StatusCode != http.StatusOK {
					b.Fatal(resp.Status, body)
				}
			}
		})
	}
	b.Logf("the first look took %v", first)
}
