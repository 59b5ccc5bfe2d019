package pages

import (
	"bytes"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server/notary"
	"github.com/undertone-fl/undertone/server/pages/figure"
)

//go:embed templates
var files embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"significant": significant, "whole": func(n any) string { return group(fmt.Sprint(n)) },
	"moment": moment, "brief": brief, "size": size, "sentence": sentence,
	"icon": func() template.URL {
		return "data:image/svg+xml;base64," + template.URL(base64.StdEncoding.EncodeToString(embedded("icon.svg")))
	},
}).ParseFS(files, "templates/*.tmpl"))

// style is the pages' style sheet, with the figures' colours.
var style = template.CSS(strings.NewReplacer(
	"/*light paints*/", figure.Variables(false), "/*dark paints*/", figure.Variables(true)).Replace(string(embedded("style.css"))))

func embedded(name string) []byte {
	b, err := files.ReadFile("templates/" + name)
	if err != nil {
		panic(err) // it is there
	}
	return b
}

// routes are all addresses. Those that end in a file's name serve a page's table.
func (p *Pages) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /live.js", serve("text/javascript; charset=utf-8", embedded("live.js")))
	for _, name := range []string{"icon.svg", "favicon.ico"} { // browsers ask for the latter where no page names one
		mux.HandleFunc("GET /"+name, serve("image/svg+xml", embedded("icon.svg")))
	}
	mux.HandleFunc("GET /style.css", serve("text/css; charset=utf-8", []byte(style)))
	mux.HandleFunc("GET "+enterPath+"{secret}", p.enter)

	mux.HandleFunc("GET /{$}", p.forVisitors(func(w http.ResponseWriter, r *http.Request, v visitor) {
		to := "/audit"
		if v.Role == identity.Operator {
			to = "/operate"
		}
		http.Redirect(w, r, to, http.StatusSeeOther)
	}))
	for _, route := range []struct {
		build    func(*http.Request) (*page, error)
		patterns []string
	}{
		{p.auditPage, []string{"/audit", "/audit/{job}", "/audit/{job}/{table}"}},
		{p.operatePage, []string{"/operate", "/operate/{table}"}},
		{p.jobPage, []string{"/jobs/{job}", "/jobs/{job}/{table}"}},
		{p.downloadsPage, []string{"/downloads", "/downloads/{table}"}},
	} {
		for _, pattern := range route.patterns {
			mux.HandleFunc("GET "+pattern, p.forVisitors(func(w http.ResponseWriter, r *http.Request, v visitor) {
				p.show(w, r, v, route.build)
			}))
		}
	}
	for name, write := range p.takeHome() {
		mux.HandleFunc("GET /downloads/"+name, p.forVisitors(func(w http.ResponseWriter, r *http.Request, v visitor) {
			if err := write(w, r, v); err != nil {
				p.explain(w, r, err)
			}
		}))
	}
	mux.HandleFunc("/", p.forVisitors(func(w http.ResponseWriter, r *http.Request, _ visitor) {
		p.explain(w, r, errNoPage)
	}))
	return mux
}

func serve(kind string, content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(content) // to a browser that may have gone
	}
}

var (
	errNoPage  = errors.New("pages: no such page")
	errTooMany = errors.New("pages: too many downloads at a time")
)

// page is what a request's answer is made of.
type page struct {
	Name   string // of its template
	Title  string
	Path   string // without a table
	Live   bool   // it changes while one looks
	Tables []*table
	Body   any
}

// view is what all templates get.
type view struct {
	Title, Path, Next string
	Node              string
	Style             template.CSS // of a file that stands alone
	Visitor           *visitor
	Live              bool
	Now               time.Time
	Body              any

	query  url.Values
	tables []*table
}

// Table is a table of the page, by name.
func (v view) Table(name string) (*shown, error) {
	for _, t := range v.tables {
		if t.name == name {
			return t.show(name, 2, v.Path, v.query), nil
		}
	}
	return nil, fmt.Errorf("no table %s", name)
}

// show answers with a page, or one of its tables.
func (p *Pages) show(w http.ResponseWriter, r *http.Request, v visitor, build func(*http.Request) (*page, error)) {
	// No job's name has a dot in it: /audit/jobs.csv is a table's.
	if job := r.PathValue("job"); strings.Contains(job, ".") && r.PathValue("table") == "" {
		r.SetPathValue("job", "")
		r.SetPathValue("table", job)
	}
	made, err := build(r)
	if err != nil {
		p.explain(w, r, err)
		return
	}
	if file := r.PathValue("table"); file != "" {
		made.serveTable(w, r, p, file)
		return
	}
	p.render(w, http.StatusOK, made.Name, view{
		Title: made.Title, Path: made.Path, Visitor: &v, Live: made.Live, Body: made.Body,
		query: r.URL.Query(), tables: made.Tables,
	})
}

// serveTable answers with NAME.csv or NAME.json.
func (made *page) serveTable(w http.ResponseWriter, r *http.Request, p *Pages, file string) {
	for _, t := range made.Tables {
		var kind string
		write := t.writeCSV
		switch file {
		case t.name + ".csv":
			kind = "text/csv; charset=utf-8; header=present"
		case t.name + ".json":
			kind, write = "application/json", t.writeJSON
		default:
			continue
		}
		saveAs(w, kind, strings.Trim(strings.ReplaceAll(made.Path, "/", "-"), "-")+"-"+file)
		_ = write(w) // to a program that may have gone
		return
	}
	p.explain(w, r, errNoPage)
}

// saveAs sets what an answer is, and what its file is called.
func saveAs(w http.ResponseWriter, kind, name string) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Disposition", fmt.Sprintf("inline; filename=%q", path.Base(name)))
}

// render answers with a template's page, whole or not at all.
func (p *Pages) render(w http.ResponseWriter, status int, name string, v view) {
	v.Node, v.Now = p.config.Name, time.Now().UTC()
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name+".tmpl", v); err != nil {
		p.config.Logger.Error("a page could not be made", "page", name, "err", err)
		http.Error(w, "this page could not be made: the server's log says more", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = b.WriteTo(w) // to a browser that may have gone
}

// problem is what a page that is none says.
type problem struct{ What, Why string }

func (p *Pages) fail(w http.ResponseWriter, r *http.Request, status int, what, why string) {
	page := view{Title: what, Body: problem{what, why}}
	if v, ok := p.visitorOf(r); ok {
		page.Visitor = &v
	}
	p.render(w, status, "problem", page)
}

// explain answers with what stands in the way of a page.
func (p *Pages) explain(w http.ResponseWriter, r *http.Request, err error) {
	var fault *ledger.Fault
	switch {
	case errors.Is(err, errNoPage):
		p.fail(w, r, http.StatusNotFound, "There is no such page", "It may be of a job that there never was.")
	case errors.Is(err, errTooMany):
		w.Header().Set("Retry-After", "1")
		p.fail(w, r, http.StatusTooManyRequests, "Too many downloads at a time", "The whole ledger may be on its way "+count(maxDownloads, "time", "times")+" at once.")
	case errors.Is(err, notary.ErrNoLedger):
		why := "The leader begins it as soon as there is one."
		if older := p.config.Older(); len(older) > 0 {
			why = "It begins when all members read it: " + strings.Join(older, ", ") + " are to be upgraded."
		}
		p.fail(w, r, http.StatusServiceUnavailable, "The ledger has not begun", why)
	case errors.Is(err, notary.ErrNoKey):
		why := "It has not the ledger's key"
		if mistake, ok := errors.AsType[*notary.KeyError](err); ok {
			why = mistake.Error()
		}
		p.fail(w, r, http.StatusServiceUnavailable, "This node cannot sign the ledger", why+". Another node may.")
	case errors.As(err, &fault):
		p.config.Logger.Error("the ledger does not verify", "err", err)
		p.fail(w, r, http.StatusInternalServerError, "The ledger does not verify", sentence(fault.Error())+".")
	default:
		p.config.Logger.Error("a page failed", "err", err)
		p.fail(w, r, http.StatusInternalServerError, "This page could not be made", "The server's log says more.")
	}
}

// writeJSON answers with a value as a file.
func writeJSON(w http.ResponseWriter, name string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	saveAs(w, "application/json", name)
	_, _ = w.Write(append(b, '\n')) // to a program that may have gone
	return nil
}
