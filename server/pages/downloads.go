package pages

import (
	"net/http"
	"time"

	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/server/notary"
)

// downloadTime is how long the ledger may take to a slow reader.
const downloadTime = 10 * time.Minute

// takeHome are what writes what an auditor takes home.
func (p *Pages) takeHome() map[string]func(http.ResponseWriter, *http.Request, visitor) error {
	head := func(write func(http.ResponseWriter, *notary.Head)) func(http.ResponseWriter, *http.Request, visitor) error {
		return func(w http.ResponseWriter, _ *http.Request, _ visitor) error {
			h, err := p.config.Ledger.Head()
			if err == nil {
				write(w, h)
			}
			return err
		}
	}
	lines := func(w http.ResponseWriter, name, text string) {
		saveAs(w, "text/plain; charset=utf-8", name)
		_, _ = w.Write([]byte(text)) // to a program that may have gone
	}
	// whole is of everything on record: each identity has maxDownloads of those at a
	// time, for longer than an answer may take otherwise.
	whole := func(write func(http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request, visitor) error {
		return func(w http.ResponseWriter, r *http.Request, v visitor) error {
			leave, ok := p.downloads.Enter(v.Identity)
			if !ok {
				return errTooMany
			}
			defer leave()
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(downloadTime)) // else it is shorter
			return write(w, r)
		}
	}
	return map[string]func(http.ResponseWriter, *http.Request, visitor) error{
		"ledger.zip": whole(func(w http.ResponseWriter, r *http.Request) error {
			b, err := p.config.Ledger.Bundle()
			if err != nil {
				return err
			}
			saveAs(w, "application/zip", "ledger.zip")
			if r.Method == http.MethodHead {
				return nil
			}
			if err := ledger.WriteBundle(w, b); err != nil {
				p.config.Logger.Debug("a download ended early", "err", err)
			}
			return nil
		}),
		p.claimedKey(): head(func(w http.ResponseWriter, h *notary.Head) { lines(w, p.claimedKey(), h.Key+"\n") }),
		"checkpoint":   head(func(w http.ResponseWriter, h *notary.Head) { lines(w, "checkpoint", string(h.Note)) }),
		"report.json": whole(func(w http.ResponseWriter, _ *http.Request) error {
			a, err := p.books.audit()
			if err != nil {
				return err
			}
			return writeJSON(w, "report.json", a.Report)
		}),
		"report.html": whole(func(w http.ResponseWriter, _ *http.Request) error {
			a, err := p.books.audit()
			if err != nil {
				return err
			}
			saveAs(w, "text/html; charset=utf-8", "report.html")
			w.Header().Set("Content-Disposition", `attachment; filename="report.html"`) // its styles are its own
			return WriteReport(w, a.Report)
		}),
	}
}

// claimedKey is the file of the key that this node says is the ledger's. Its name is not
// that of the key which an auditor trusts, so that it does not take that one's place.
func (p *Pages) claimedKey() string { return "claimed-by-" + p.config.Name + ".pub" }

func (p *Pages) downloadsPage(*http.Request) (*page, error) {
	h, err := p.config.Ledger.Head()
	if err != nil {
		return nil, err
	}
	t := &table{
		name: "downloads", Caption: "Downloads", Explains: true,
		Note:    "Nothing of this is secret from those who may see these pages, and nothing of it is taken on trust: the ledger proves itself.",
		columns: []column{{key: "file", Head: "File"}, {key: "what", Head: "What it is"}},
	}
	for _, f := range []struct{ name, what string }{
		{"ledger.zip", "The whole ledger: " + count(h.Checkpoint.Size, "record", "records") + ", their signed checkpoint, and the specifications of all jobs. undertone audit verify reads it."},
		{"checkpoint", "The signed checkpoint alone (C2SP tlog-checkpoint). Keep it: whatever comes later has to extend it."},
		{p.claimedKey(), "The public key that this node claims signs the ledger now: to be compared with the one that you hold, and not to be verified with. A node that lies about the ledger lies about its key."},
		{"report.json", "The auditor's page as JSON."},
		{"report.html", "The auditor's page as one file that needs no network."},
	} {
		t.add(cell{value: f.name, Link: "/downloads/" + f.name}, text(f.what))
	}
	return &page{Name: "downloads", Title: "Downloads", Path: "/downloads", Tables: []*table{t}, Body: p.lag()}, nil
}
