package pages_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/html"
	"golang.org/x/sync/errgroup"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/dp/ledger/report"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server/authority"
	"github.com/undertone-fl/undertone/server/internal/solo"
	"github.com/undertone-fl/undertone/server/notary"
	"github.com/undertone-fl/undertone/server/pages"
	"github.com/undertone-fl/undertone/server/replication"
)

// browser is a client with somebody's certificate, or none, that keeps cookies and
// follows no redirection.
func (n *node) browser(t testing.TB, who *identity.Identity) *http.Client {
	t.Helper()
	roots := &tls.Config{InsecureSkipVerify: true} // the node's certificate is not what is tested
	if who != nil {
		roots = n.certificate(t, n.authority, *who)
	}
	transport := &http.Transport{TLSClientConfig: roots, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	jar, err := cookiejar.New(nil)
	must(t, err)
	return &http.Client{Transport: transport, Timeout: time.Minute, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (n *node) certificate(t testing.TB, a *authority.Authority, who identity.Identity) *tls.Config {
	t.Helper()
	issued, err := a.Issue(authority.Request{Identity: who, Hosts: []string{"localhost"}})
	must(t, err)
	b, err := issued.Bearer()
	must(t, err)
	config := b.ClientTLS()
	config.InsecureSkipVerify, config.VerifyConnection = true, nil
	return config
}

func (n *node) ask(t testing.TB, c *http.Client, method, path string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "https://"+n.address+path, nil)
	must(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp, string(body)
}

func (n *node) get(t testing.TB, c *http.Client, path string) (*http.Response, string) {
	t.Helper()
	return n.ask(t, c, http.MethodGet, path)
}

// everything is an address of each kind.
var everything = []string{
	"/", "/audit", "/audit/films", "/audit/jobs.csv", "/audit/films/releases.json", "/operate", "/operate/nodes.csv",
	"/jobs/films", "/jobs/films/rounds.csv", "/downloads", "/downloads/ledger.zip", "/downloads/claimed-by-n1.pub",
	"/downloads/checkpoint", "/downloads/report.json", "/downloads/report.html", "/jobs/nothing", "/nothing",
}

// Only an operator and an auditor see anything, and everybody else sees the same thing,
// whatever it is that they ask for.
func TestRoles(t *testing.T) {
	n := serve(t)
	for _, who := range []*identity.Identity{nil, {Role: identity.Client, Name: "alice"}, {Role: identity.Node, Name: "n2"}} {
		c := n.browser(t, who)
		_, want := n.get(t, c, "/")
		for _, path := range everything {
			resp, body := n.get(t, c, path)
			if resp.StatusCode != http.StatusForbidden || !strings.Contains(body, "undertone audit link") {
				t.Errorf("%v gets %s of %s", who, resp.Status, path)
			}
			if cut := func(s string) string { return s[:strings.Index(s, "<footer>")] }; cut(body) != cut(want) {
				t.Errorf("%v learns something of %s", who, path)
			}
		}
	}
	for _, who := range []*identity.Identity{&carol, &olaf} {
		c := n.browser(t, who)
		for _, path := range everything {
			want := http.StatusOK
			switch {
			case path == "/":
				want = http.StatusSeeOther
			case strings.HasSuffix(path, "nothing"):
				want = http.StatusNotFound
			}
			if resp, body := n.get(t, c, path); resp.StatusCode != want {
				t.Errorf("%v gets %s of %s: %s", who, resp.Status, path, body)
			}
		}
		resp, _ := n.get(t, c, "/")
		if want := map[identity.Role]string{identity.Auditor: "/audit", identity.Operator: "/operate"}[who.Role]; resp.Header.Get("Location") != want {
			t.Errorf("%v is led to %s, want %s", who, resp.Header.Get("Location"), want)
		}
	}
	// A certificate of another authority is not as good as none: whoever shows it is not
	// who they say.
	other, err := authority.New()
	must(t, err)
	c := http.Client{Transport: &http.Transport{TLSClientConfig: n.certificate(t, other, carol)}}
	if resp, err := c.Get("https://" + n.address + "/audit"); err == nil {
		t.Errorf("somebody else's auditor gets %s", resp.Status)
	}
}

// A connection does not keep anybody in whose certificate has expired, or whose authority
// is none any more, and over the next one a browser may show another.
func TestCertificatesEndOverConnections(t *testing.T) {
	status := func(t *testing.T, n *node, c *http.Client) int {
		t.Helper()
		resp, body := n.get(t, c, "/audit")
		if resp.StatusCode == http.StatusForbidden && !strings.Contains(body, "No entry") {
			t.Error(body)
		}
		return resp.StatusCode
	}
	t.Run("expired", func(t *testing.T) {
		n := serve(t)
		now := time.Now()
		n.pages.SetClock(func() time.Time { return now })
		c, dials := countDials(n.browser(t, &carol))
		if got := status(t, n, c); got != http.StatusOK || *dials != 1 {
			t.Fatalf("at first: %d, over %d connections", got, *dials)
		}
		now = now.Add(authority.LeafLifetime - time.Minute)
		if got := status(t, n, c); got != http.StatusOK {
			t.Errorf("a minute before its end: %d", got)
		}
		now = now.Add(2 * time.Minute)
		if got := status(t, n, c); got != http.StatusForbidden || *dials != 1 {
			t.Errorf("a minute after its end: %d, over %d connections", got, *dials)
		}
		if status(t, n, c); *dials != 2 {
			t.Errorf("asked again over the same connection, of %d", *dials)
		}
	})
	t.Run("of an authority that was replaced", func(t *testing.T) {
		n := serve(t)
		c, dials := countDials(n.browser(t, &carol))
		if got := status(t, n, c); got != http.StatusOK {
			t.Fatalf("at first: %d", got)
		}
		next, err := authority.New()
		must(t, err)
		must(t, os.WriteFile(n.files.Authority, next.PEM(), 0o600))
		must(t, n.bearer.Reload())
		if got := status(t, n, c); got != http.StatusForbidden || *dials != 1 {
			t.Errorf("after that: %d, over %d connections", got, *dials)
		}
	})
}

// countDials counts a browser's connections.
func countDials(c *http.Client) (*http.Client, *int) {
	dials := new(int)
	c.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		*dials++
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return c, dials
}

func TestHeaders(t *testing.T) {
	n := serve(t)
	for _, who := range []*identity.Identity{nil, &carol} {
		c := n.browser(t, who)
		for _, path := range append([]string{"/style.css", "/live.js", "/icon.svg", "/favicon.ico", "/enter/forged"}, everything...) {
			resp, _ := n.get(t, c, path)
			for name, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "X-Frame-Options": "DENY",
				"Cross-Origin-Resource-Policy": "same-origin",
			} {
				if got := resp.Header.Get(name); got != want {
					t.Errorf("%s: %s: %q", path, name, got)
				}
			}
			policy := resp.Header.Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
				if !strings.Contains(policy, want) {
					t.Errorf("%s: the policy lacks %s", path, want)
				}
			}
			if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
				t.Errorf("%s: the policy is %s", path, policy)
			}
		}
	}
}

// There is nothing to be done but to read.
func TestMethods(t *testing.T) {
	n := serve(t)
	c := n.browser(t, &olaf)
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace, "CONJURE"} {
		resp, _ := n.ask(t, c, method, "/audit")
		if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %s, Allow %q", method, resp.Status, resp.Header.Get("Allow"))
		}
	}
	for _, path := range everything {
		get, _ := n.get(t, c, path)
		head, body := n.ask(t, c, http.MethodHead, path)
		if head.StatusCode != get.StatusCode || body != "" || head.Header.Get("Content-Type") != get.Header.Get("Content-Type") {
			t.Errorf("HEAD %s: %s, %q, after GET: %s", path, head.Status, body, get.Status)
		}
	}
}

// link makes a link, as a path.
func (n *node) link(t *testing.T, who identity.Identity, d time.Duration) string {
	t.Helper()
	address, _, err := n.pages.Links().Create(who, d)
	must(t, err)
	u, err := url.Parse(address)
	must(t, err)
	if u.Scheme != "https" || u.Host != n.address {
		t.Fatalf("the link is to %s", address)
	}
	return u.Path
}

func TestLinks(t *testing.T) {
	n := serve(t)
	now := time.Now()
	n.pages.Links().SetClock(func() time.Time { return now })
	status := func(c *http.Client, path string, header ...string) int {
		t.Helper()
		resp, _ := n.ask(t, c, http.MethodGet, path, header...)
		return resp.StatusCode
	}
	t.Run("lets one browser in", func(t *testing.T) {
		link := n.link(t, carol, 0)
		if resp, _ := n.ask(t, n.browser(t, nil), http.MethodHead, link); resp.StatusCode != http.StatusForbidden {
			t.Error("HEAD looks at what a link shows")
		}
		for _, header := range []string{"Sec-Purpose", "Purpose", "X-Purpose", "X-Moz"} {
			if got := status(n.browser(t, nil), link, header, "prefetch"); got != http.StatusForbidden {
				t.Errorf("a browser that looks ahead, and says so by %s, uses the link up", header)
			}
		}
		c := n.browser(t, nil)
		resp, body := n.get(t, c, link)
		if resp.StatusCode != http.StatusOK || !strings.Contains(body, `http-equiv="refresh" content="0; url=/"`) {
			t.Fatalf("%s: %s", resp.Status, body)
		}
		cookies := resp.Cookies()
		if len(cookies) != 1 {
			t.Fatalf("cookies: %v", cookies)
		}
		k := cookies[0]
		if !k.HttpOnly || !k.Secure || k.SameSite != http.SameSiteStrictMode || k.Path != "/" || k.Domain != "" ||
			!strings.HasPrefix(k.Name, "__Host-") || k.MaxAge != 900 {
			t.Errorf("the cookie is %v", k)
		}
		if strings.Contains(link, k.Value) {
			t.Error("the link's secret goes on as the cookie's")
		}
		if resp, _ := n.get(t, c, "/"); resp.Header.Get("Location") != "/audit" {
			t.Errorf("an auditor's link leads to %q", resp.Header.Get("Location"))
		}
		if _, body := n.get(t, c, "/audit"); !strings.Contains(body, "auditor/carol, by link until") {
			t.Error("the page does not say who reads it")
		}
		if got := status(n.browser(t, nil), link); got != http.StatusForbidden {
			t.Errorf("the second use: %d", got)
		}
		// One secret does not pass for the other.
		if got := status(n.browser(t, nil), "/enter/"+k.Value); got != http.StatusForbidden {
			t.Errorf("the cookie as a link: %d", got)
		}
		fresh := path.Base(n.link(t, carol, 0))
		if got := status(n.browser(t, nil), "/audit", "Cookie", k.Name+"="+fresh); got != http.StatusForbidden {
			t.Errorf("the link as a cookie: %d", got)
		}
		// It ends when it was to end, however much it is used.
		now = now.Add(pages.MaxLink - time.Second)
		if got := status(c, "/audit"); got != http.StatusOK {
			t.Errorf("a second before its end: %d", got)
		}
		now = now.Add(time.Second)
		if got := status(c, "/audit"); got != http.StatusForbidden {
			t.Errorf("at its end: %d", got)
		}
	})
	t.Run("whatever certificate is shown", func(t *testing.T) {
		for _, who := range []identity.Identity{{Role: identity.Client, Name: "alice"}, {Role: identity.Node, Name: "n2"}, olaf} {
			c := n.browser(t, &who)
			if got := status(c, n.link(t, carol, 0)); got != http.StatusOK {
				t.Errorf("%v comes by a link: %d", who, got)
			}
			if got := status(c, "/audit"); got != http.StatusOK {
				t.Errorf("%v with its cookie: %d", who, got)
			}
		}
	})
	t.Run("has the role of who made it", func(t *testing.T) {
		c := n.browser(t, nil)
		n.get(t, c, n.link(t, olaf, 0))
		if resp, _ := n.get(t, c, "/"); resp.Header.Get("Location") != "/operate" {
			t.Errorf("an operator's link leads to %q", resp.Header.Get("Location"))
		}
		for _, role := range []identity.Role{identity.Client, identity.Node} {
			if _, _, err := n.pages.Links().Create(identity.Identity{Role: role, Name: "x"}, 0); !errors.Is(err, pages.ErrLink) {
				t.Errorf("a %s's link: %v", role, err)
			}
		}
	})
	t.Run("expires unused", func(t *testing.T) {
		link := n.link(t, carol, time.Minute)
		now = now.Add(time.Minute)
		if got := status(n.browser(t, nil), link); got != http.StatusForbidden {
			t.Errorf("after a minute of one: %d", got)
		}
		for _, d := range []time.Duration{-1, time.Millisecond, pages.MaxLink + 1} {
			if _, _, err := n.pages.Links().Create(carol, d); !errors.Is(err, pages.ErrLink) {
				t.Errorf("a link of %v: %v", d, err)
			}
		}
	})
	t.Run("forged", func(t *testing.T) {
		link := n.link(t, carol, 0)
		flipped := []byte(link)
		flipped[len(flipped)-1] ^= 1
		for _, forged := range []string{"/enter/", "/enter/x", string(flipped), link[:len(link)-1], link + "A"} {
			if got := status(n.browser(t, nil), forged); got != http.StatusForbidden {
				t.Errorf("%s: %d", forged, got)
			}
		}
		if got := status(n.browser(t, nil), link); got != http.StatusOK {
			t.Errorf("the true one, after those: %d", got)
		}
	})
	t.Run("are few", func(t *testing.T) {
		first := n.link(t, carol, 0)
		for range 8 {
			n.link(t, carol, 0)
		}
		if got := status(n.browser(t, nil), first); got != http.StatusForbidden {
			t.Errorf("the first of nine: %d", got)
		}
		kept := n.link(t, carol, 0)
		for i := range 255 {
			n.link(t, identity.Identity{Role: identity.Auditor, Name: fmt.Sprint("a", i)}, 0)
		}
		if got := status(n.browser(t, nil), kept); got != http.StatusOK {
			t.Errorf("one of 256: %d", got)
		}
		n.link(t, identity.Identity{Role: identity.Auditor, Name: "last"}, 0)
	})
}

// A secret is in no line of the log, at any level.
func TestSecretsAreNotLogged(t *testing.T) {
	n := serve(t)
	link := n.link(t, carol, 0)
	c := n.browser(t, nil)
	resp, _ := n.get(t, c, link)
	n.get(t, c, link)
	n.get(t, c, "/audit")
	for _, secret := range []string{path.Base(link), resp.Cookies()[0].Value} {
		if strings.Contains(n.log.String(), secret) {
			t.Errorf("the log has it:\n%s", n.log.String())
		}
	}
}

// Strangers who open connections and say nothing do not keep an auditor out.
func TestStrangersMakeRoom(t *testing.T) {
	n := serve(t)
	for range 120 {
		c, err := net.Dial("tcp", n.address)
		must(t, err)
		defer c.Close()
	}
	if resp, _ := n.get(t, n.browser(t, &carol), "/downloads/checkpoint"); resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
}

// Nobody who may come in takes all the room: of many connections the oldest are closed.
func TestNobodyTakesAllConnections(t *testing.T) {
	n := serve(t)
	for range 100 { // more than there may be of everybody
		c := n.browser(t, &olaf)
		if resp, _ := n.get(t, c, "/downloads/checkpoint"); resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
	}
	if resp, _ := n.get(t, n.browser(t, &carol), "/downloads/checkpoint"); resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
}

// The whole ledger is on its way to one identity twice at a time, over whatever
// connections, and to another one all the same.
func TestDownloadsAtATime(t *testing.T) {
	n := serve(t)
	n.ledger.entered, n.ledger.wait = make(chan struct{}), make(chan struct{})
	var group errgroup.Group
	for range 2 {
		c := n.browser(t, &carol)
		group.Go(func() error {
			if resp, _ := n.get(t, c, "/downloads/ledger.zip"); resp.StatusCode != http.StatusOK {
				return errors.New(resp.Status)
			}
			return nil
		})
		<-n.ledger.entered
	}
	for _, name := range []string{"ledger.zip", "report.json", "report.html"} {
		if resp, body := n.get(t, n.browser(t, &carol), "/downloads/"+name); resp.StatusCode != http.StatusTooManyRequests || !strings.Contains(body, "Too many downloads") {
			t.Errorf("the third, %s: %s", name, resp.Status)
		}
	}
	other := n.browser(t, &olaf)
	group.Go(func() error {
		if resp, _ := n.get(t, other, "/downloads/ledger.zip"); resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
	<-n.ledger.entered
	close(n.ledger.wait)
	must(t, group.Wait())
	go func() { <-n.ledger.entered }()
	if resp, _ := n.get(t, n.browser(t, &carol), "/downloads/ledger.zip"); resp.StatusCode != http.StatusOK {
		t.Errorf("after those: %s", resp.Status)
	}
}

// reportOf is the ledger's, computed apart from the pages.
func (n *node) reportOf(t *testing.T) *report.Report {
	t.Helper()
	b, err := n.notary.Bundle()
	must(t, err)
	h, err := ledger.Verify(b, solo.PublicKey, ledger.Checkpoint{})
	must(t, err)
	r, err := report.New(h, b.Checkpoint)
	must(t, err)
	return r
}

// rows fetches a table both ways, and checks that they say the same.
func (n *node) rows(t *testing.T, c *http.Client, path string) []map[string]any {
	t.Helper()
	resp, body := n.get(t, c, path+".json")
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || kind != "application/json" {
		t.Fatalf("%s.json: %s, %s", path, resp.Status, kind)
	}
	var rows []map[string]any
	must(t, json.Unmarshal([]byte(body), &rows))
	resp, body = n.get(t, c, path+".csv")
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "text/csv;") {
		t.Fatalf("%s.csv: %s, %s", path, resp.Status, kind)
	}
	lines, err := csv.NewReader(strings.NewReader(body)).ReadAll()
	must(t, err)
	if len(lines) != len(rows)+1 {
		t.Fatalf("%s: %d rows as CSV, %d as JSON", path, len(lines)-1, len(rows))
	}
	for i, row := range rows {
		if len(row) != len(lines[0]) {
			t.Fatalf("%s: a row with %d names of %d", path, len(row), len(lines[0]))
		}
		for k, key := range lines[0] {
			want := ""
			switch v := row[key].(type) {
			case nil:
			case float64:
				var same float64
				must(t, json.Unmarshal([]byte(lines[i+1][k]), &same))
				if same != v && key != "left_seconds" { // time passes
					t.Errorf("%s row %d: %s is %s, not %v", path, i, key, lines[i+1][k], v)
				}
				continue
			default:
				want = fmt.Sprint(v)
			}
			if lines[i+1][k] != want {
				t.Errorf("%s row %d: %s is %q, not %q", path, i, key, lines[i+1][k], want)
			}
		}
	}
	return rows
}

// What the files say is what the report says.
func TestFilesAgreeWithTheReport(t *testing.T) {
	n := serve(t)
	c := n.browser(t, &carol)
	want := n.reportOf(t)
	_, body := n.get(t, c, "/downloads/report.json")
	var got report.Report
	must(t, json.Unmarshal([]byte(body), &got))
	if a, b := encode(t, got), encode(t, want); a != b {
		t.Errorf("report.json is\n%s\nwant\n%s", a, b)
	}
	for i, row := range n.rows(t, c, "/audit/jobs") {
		j := want.Jobs[i]
		if row["job"] != j.Name || row["epsilon_spent"] != j.Spent.Epsilon || row["epsilon_left"] != j.Left.Epsilon ||
			row["epsilon_cap"] != j.Cap.Epsilon || row["delta"] != j.Delta || row["failed_attempts"] != float64(j.FailedAttempts) {
			t.Errorf("%v, want %+v", row, j)
		}
	}
	j := want.Jobs[0]
	releases := n.rows(t, c, "/audit/films/releases")
	if len(releases) != len(j.Attempts) || len(releases) != 11 {
		t.Fatalf("%d rows of %d attempts", len(releases), len(j.Attempts))
	}
	for i, row := range releases {
		a := j.Attempts[i]
		for key, want := range map[string]any{
			"round": float64(a.Round), "attempt": float64(a.Attempt), "status": a.Status, "kind": a.Kind,
			"clip": a.Clip, "noise": a.Noise, "noise_multiplier": a.Multiplier, "n_min": float64(a.NMin), "sampler": a.Sampler,
			"charge_rho": a.Charge.Rho, "spent_epsilon": a.Spent.Epsilon, "spent_replace_one_epsilon": a.Spent.ReplaceOne,
			"leaf": float64(a.Leaf), "opened": a.Opened,
		} {
			if row[key] != want {
				t.Errorf("row %d: %s is %v, want %v", i, key, row[key], want)
			}
		}
	}
	for i, p := range []report.Privacy{j.Cap, j.Spent, j.Left, j.FailedSpent} {
		row := n.rows(t, c, "/audit/films/privacy")[i]
		if row["nano_rho"] != float64(p.NanoRho) || row["rho"] != p.Rho || row["mu"] != p.Mu || row["epsilon"] != p.Epsilon || row["replace_one_epsilon"] != p.ReplaceOne {
			t.Errorf("%v, want %+v", row, p)
		}
	}
	answers, err := j.Accountants.All()
	must(t, err)
	for i, row := range n.rows(t, c, "/audit/films/accountants") {
		if a := answers[i]; row["accountant"] != a.Name || row["epsilon"] != a.Epsilon {
			t.Errorf("%v, want %+v", row, a)
		}
	}
	for i, row := range n.rows(t, c, "/jobs/films/parameters") {
		if p := j.Parameters[i]; row["parameter"] != p.Name || row["value"] != p.Value || row["how"] != p.How {
			t.Errorf("%v, want %+v", row, p)
		}
	}
	failures := n.rows(t, c, "/operate/failures")
	if len(failures) != 1 || failures[0]["why"] == "" || failures[0]["ended"] != j.Attempts[5].Ended {
		t.Errorf("failures: %v, want that of %+v", failures, j.Attempts[5])
	}
	open := n.rows(t, c, "/operate/open")
	if len(open) != 1 || open[0]["members"] != 412.0 || open[0]["round"] != 10.0 || !(open[0]["left_seconds"].(float64) > 0) {
		t.Errorf("open rounds: %v", open)
	}
	lag := n.rows(t, c, "/operate/nodes")
	if len(lag) != 3 || lag[2]["node"] != "n3" || lag[2]["lag"] != 3.0 || lag[2]["status"] != "log: catching up" {
		t.Errorf("nodes: %v", lag)
	}
	_, v := n.job(films)
	for i, row := range n.rows(t, c, "/jobs/films/rounds") {
		if a := v.Attempts[i]; row["members"] != float64(a.Members) || row["phase"] != a.Phase.String() {
			t.Errorf("%v, want %+v", row, a)
		}
	}
	// The measures are of the updates: round 1 to 3 know nothing of how good the model is.
	quality := n.rows(t, c, "/jobs/films/quality")
	if len(quality) != 9 {
		t.Fatalf("quality of %d releases", len(quality))
	}
	for i, row := range quality {
		variance, measured := row["residual_variance"].(float64)
		if measured != (i >= 3) || measured && !(variance > 0 && variance < 1) {
			t.Errorf("quality of release %d: %v", i+1, row)
		}
	}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	must(t, err)
	return string(b)
}

// The bundle that is downloaded verifies, with the key that the auditor has.
func TestBundle(t *testing.T) {
	n := serve(t)
	c := n.browser(t, &carol)
	_, body := n.get(t, c, "/downloads/ledger.zip")
	b, err := ledger.ReadBundle(strings.NewReader(body), int64(len(body)))
	must(t, err)
	h, err := ledger.Verify(b, solo.PublicKey, ledger.Checkpoint{})
	must(t, err)
	if len(h.Jobs) != 2 || h.Jobs[0].Name != films {
		t.Errorf("%+v", h.Jobs)
	}
	if _, key := n.get(t, c, "/downloads/claimed-by-n1.pub"); key != solo.PublicKey+"\n" {
		t.Errorf("the key is %q", key)
	}
	if _, signed := n.get(t, c, "/downloads/checkpoint"); signed != string(b.Checkpoint) {
		t.Errorf("the checkpoint is %q", signed)
	}
}

// elements lists a document's, depth first.
func elements(t *testing.T, document string) (list []*html.Node) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(document))
	must(t, err)
	for x := range root.Descendants() {
		if x.Type == html.ElementNode {
			list = append(list, x)
		}
	}
	return list
}

func attribute(x *html.Node, name string) string {
	for _, a := range x.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// Every address that leads anywhere leads somewhere, and every name that is referred to
// is there once.
func TestNoDeadLinks(t *testing.T) {
	n := serve(t)
	c := n.browser(t, &carol)
	seen := map[string]bool{}
	for next := []string{"/audit", "/operate"}; len(next) > 0; next = next[1:] {
		resp, body := n.get(t, c, next[0])
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", next[0], resp.Status)
		}
		if strings.Contains(body, "ZgotmplZ") || strings.Contains(body, "NaN") || strings.Contains(body, "%!") {
			t.Errorf("%s shows what it should not", next[0])
		}
		if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
			continue
		}
		ids := map[string]int{}
		var wanted []string
		for _, x := range elements(t, body) {
			if id := attribute(x, "id"); id != "" {
				ids[id]++
			}
			for _, name := range []string{"aria-labelledby", "aria-describedby"} {
				wanted = append(wanted, strings.Fields(attribute(x, name))...)
			}
			to := attribute(x, "href")
			if to == "" {
				to = attribute(x, "src")
			}
			switch {
			case strings.HasPrefix(to, "#"):
				wanted = append(wanted, to[1:])
			case strings.HasPrefix(to, "/"):
				if !seen[to] {
					seen[to] = true
					next = append(next, to)
				}
			case to != "" && !strings.HasPrefix(to, "data:"):
				t.Errorf("%s leads to %s", next[0], to)
			}
		}
		for _, id := range wanted {
			if ids[id] == 0 {
				t.Errorf("%s refers to %s, which is not there", next[0], id)
			}
		}
		for id, times := range ids {
			if times > 1 {
				t.Errorf("%s has %s %d times", next[0], id, times)
			}
		}
	}
	if len(seen) < 40 {
		t.Errorf("only %d addresses", len(seen))
	}
}

// The report as a file needs nothing but itself, and says what the page says.
func TestWriteReport(t *testing.T) {
	n := serve(t)
	var b bytes.Buffer
	must(t, pages.WriteReport(&b, n.reportOf(t)))
	_, page := n.get(t, n.browser(t, &carol), "/audit")
	file, served := tablesOf(t, b.String()), tablesOf(t, page)
	// Of songs no round was opened, so it has no table of them.
	if len(file) != 1+4+3 || !maps.EqualFunc(file, served, slices.Equal[[]string]) {
		t.Errorf("the file has %d tables, the page %d", len(file), len(served))
	}
	for _, x := range elements(t, b.String()) {
		for _, name := range []string{"href", "src", "onload", "style"} {
			if v := attribute(x, name); v != "" && !strings.HasPrefix(v, "#") && !strings.HasPrefix(v, "data:image/svg+xml;base64,") {
				t.Errorf("<%s %s=%q>", x.Data, name, v)
			}
		}
		if x.Data == "script" || x.Data == "link" && attribute(x, "rel") != "icon" {
			t.Errorf("<%s>", x.Data)
		}
	}
	if strings.Contains(b.String(), "url(") || strings.Contains(b.String(), "@import") {
		t.Error("its style asks for something")
	}
}

// tablesOf is the text of all cells of a document's tables, by their headings' names.
func tablesOf(t *testing.T, document string) map[string][]string {
	t.Helper()
	tables := map[string][]string{}
	for _, x := range elements(t, document) {
		if x.Data != "section" || !strings.HasSuffix(attribute(x, "aria-labelledby"), "-caption") {
			continue
		}
		for cell := range x.Descendants() {
			if cell.Type != html.ElementNode || cell.Data != "td" && cell.Data != "th" {
				continue
			}
			var text strings.Builder
			for piece := range cell.Descendants() {
				if piece.Type == html.TextNode {
					text.WriteString(piece.Data)
				}
			}
			id := attribute(x, "id")
			tables[id] = append(tables[id], text.String())
		}
	}
	return tables
}

// counted is a ledger that counts how often all of it is read, and may keep who reads it
// waiting.
type counted struct {
	*notary.Notary
	bundles       atomic.Int32
	entered, wait chan struct{}
}

func (c *counted) Bundle() (*ledger.Bundle, error) {
	c.bundles.Add(1)
	if c.wait != nil {
		c.entered <- struct{}{}
		<-c.wait
	}
	return c.Notary.Bundle()
}

// A ledger that has not grown is not verified again.
func TestReportIsKept(t *testing.T) {
	n := serve(t)
	c := n.browser(t, &carol)
	for range 3 {
		n.get(t, c, "/audit")
		n.get(t, c, "/audit/films/releases.csv")
	}
	if times := n.ledger.bundles.Load(); times != 1 {
		t.Errorf("verified %d times", times)
	}
}

// A node that is cut off says so of its ledger, which others may have more of.
func TestLag(t *testing.T) {
	n := serve(t)
	c := n.browser(t, &carol)
	for why, want := range map[string]string{
		"":                      "",
		"no leader":             "No leader is known: this node&#39;s ledger may lag.",
		"log is being replayed": "This node is not ready (log is being replayed): its ledger may lag.",
	} {
		n.SetNotReady(strings.FieldsFunc(why, func(r rune) bool { return r == ';' })...)
		for _, path := range []string{"/audit", "/audit/films", "/downloads"} {
			if _, body := n.get(t, c, path); strings.Contains(body, "ledger may lag") != (want != "") || !strings.Contains(body, want) {
				t.Errorf("%s of a node with %q", path, why)
			}
		}
	}
}

// Rounds that are not opened, for the node that leads cannot sign, are said to wait.
func TestRoundsWaitForAKey(t *testing.T) {
	n := serve(t)
	c := n.browser(t, &olaf)
	says := func(path string) bool {
		_, body := n.get(t, c, path)
		return strings.Contains(body, "waits for a leader that can sign the ledger (n1: this node cannot sign it: ledger.key: why)")
	}
	if says("/operate") || says("/jobs/songs") {
		t.Error("it can sign")
	}
	n.leaderNotReady = []string{"no matter", notary.NotReadyPrefix + "this node cannot sign it: ledger.key: why"}
	if !says("/operate") || !says("/jobs/songs") {
		t.Error("what the job songs waits for is not said")
	}
}

// Contributions that a node learns of when it joins, or comes back, were taken before.
func TestThroughputOfANodeThatJoined(t *testing.T) {
	n := serve(t)
	now := time.Now()
	rate := func(seconds float64) (perSecond float64, ok bool) {
		now = now.Add(time.Duration(seconds * float64(time.Second)))
		n.pages.Observe(now)
		return n.pages.Throughput(time.Minute)
	}
	silent := func(when string, seconds float64) {
		t.Helper()
		if got, ok := rate(seconds); ok && got != 0 {
			t.Errorf("%s: %v/s", when, got)
		}
	}
	spec, _ := n.job(films)
	collect := func(from, to int) {
		zeros := aggregation.Pack(nil, make([]int64, spec.Releases[9].Length), spec.Width())
		n.Do(t, rounds.Collect{Job: films, Round: 10, Attempt: 1, Members: ids(to)[from:], Sum: rounds.BlobOf(zeros)})
	}
	silent("at first", 0)
	collect(412, 422)
	if got, ok := rate(5); !ok || got != 2 {
		t.Errorf("ten in 5 s: %v/s", got)
	}
	n.installed.Add(1)
	collect(422, 522) // by the snapshot
	silent("with a snapshot", 5)
	silent("after it", 5)
	n.SetNotReady("log is being replayed")
	silent("cut off", 5)
	collect(522, 622) // by the log
	silent("catching up", 5)
	n.SetNotReady()
	silent("caught up", 5)
	collect(622, 632)
	if got, ok := rate(5); !ok || got != 2 {
		t.Errorf("ten in 5 s after all that: %v/s", got)
	}
	n.barrier = replication.ErrNoLeader
	n.installed.Add(1)
	if got, ok := rate(5); ok {
		t.Errorf("before it is known what there was: %v/s", got)
	}
}

// A node that has no ledger yet, or not its key, says so.
func TestWithoutLedger(t *testing.T) {
	other, _, err := ledger.NewKey(solo.Origin)
	must(t, err)
	for _, test := range []struct {
		name   string
		begin  bool
		key    string
		saying string
	}{
		{"not begun", false, solo.SecretKey, "It begins when all members read it: n2 are to be upgraded."},
		{"no key", true, other, "ledger.key: it has not the key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bare := solo.New()
			if test.begin {
				bare.BeginLedger(t)
			}
			n := serveNode(t, bare, test.key)
			n.older = []string{"n2"}
			c := n.browser(t, &carol)
			for _, path := range []string{"/audit", "/downloads", "/downloads/ledger.zip"} {
				if resp, body := n.get(t, c, path); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, test.saying) {
					t.Errorf("%s: %s, %s", path, resp.Status, body)
				}
			}
			if resp, _ := n.get(t, c, "/operate"); resp.StatusCode != http.StatusOK {
				t.Errorf("the operator's page: %s", resp.Status)
			}
		})
	}
}

// A job of which every round is released is finished, in the same word everywhere, and
// nothing is said to come next.
func TestFinishedJob(t *testing.T) {
	bare := solo.New()
	bare.BeginLedger(t)
	spec := bare.Create(t, solo.Parameters(), solo.Terms("done"))
	for i := range spec.Releases {
		zeros := aggregation.Pack(nil, make([]int64, spec.Releases[i].Length), spec.Width())
		bare.Do(t, rounds.OpenRound{Job: "done", Round: i + 1, Attempt: 1})
		bare.Do(t, rounds.Collect{Job: "done", Round: i + 1, Attempt: 1, Members: ids(spec.RoundSize), Sum: rounds.BlobOf(zeros)})
		bare.Do(t, rounds.ReleaseRound{Job: "done", Round: i + 1, Attempt: 1, State: rounds.BlobOf([]byte{byte(i)})})
	}
	n := serveNode(t, bare, solo.SecretKey)
	c := n.browser(t, &carol)
	all := fmt.Sprintf("All %d rounds are released. What it costs", len(spec.Releases))
	for path, want := range map[string]string{
		"/jobs/done": all, "/audit": `<span class="badge is-finished">finished</span>`, "/audit/jobs.csv": "done,finished,", "/operate": "nothing: every round is released",
	} {
		if _, body := n.get(t, c, path); !strings.Contains(body, want) {
			t.Errorf("%s has no %q:\n%s", path, want, body)
		}
	}
}

// What others chose, such as why an attempt failed, is no formula to a spreadsheet.
func TestFormulasInCSV(t *testing.T) {
	bare := solo.New()
	bare.BeginLedger(t)
	bare.Create(t, solo.Parameters(), solo.Terms("job"))
	for i, why := range []string{`=HYPERLINK("https://example.org")`, "+1", "-1", "@x", "too few"} {
		bare.Do(t, rounds.OpenRound{Job: "job", Round: 1, Attempt: i + 1})
		bare.Do(t, rounds.FailRound{Job: "job", Round: 1, Attempt: i + 1, Why: why})
	}
	n := serveNode(t, bare, solo.SecretKey)
	c := n.browser(t, &carol)
	_, body := n.get(t, c, "/audit/job/releases.csv")
	lines, err := csv.NewReader(strings.NewReader(body)).ReadAll()
	must(t, err)
	var got []string
	for _, line := range lines[1:] {
		got = append(got, line[len(line)-1])
	}
	if want := []string{`'=HYPERLINK("https://example.org")`, "'+1", "'-1", "'@x", "too few"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if _, body := n.get(t, c, "/audit/job/releases.json"); !strings.Contains(body, `"why": "-1"`) {
		t.Error("JSON is not what was said")
	}
}

// text is a page's, in one line.
func (n *node) text(t *testing.T, path string) string {
	t.Helper()
	_, body := n.get(t, n.browser(t, &carol), path)
	return strings.Join(strings.Fields(html.UnescapeString(body)), " ")
}

// says fails unless a page has each of these, as text.
func (n *node) says(t *testing.T, path string, wanted ...string) {
	t.Helper()
	text := n.text(t, path)
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			t.Errorf("%s does not say %q:\n%s", path, want, text)
		}
	}
}

// What pages say in words of a job that has run for a while.
func TestAccountInWords(t *testing.T) {
	n := serve(t)
	n.says(t, "/audit/films",
		"if the noise is Gaussian (the tests of its shape found nothing against that); the attack reaches at most",
		"in the auditor's own program, with this specification: not this cluster's noise",
		"10⁻⁶, at least 0.00119 times 1/n: n = 1192, the most users in a release on record",
		"on 9 releases, 1 failed attempt and 1 attempt under way.",
		"Of one who took part in all 2 jobs of this ledger: ε together 4.45 (9.97 under replace-one), under zero-out, at δ = 10⁻⁶.",
		`or download <a href="/downloads/ledger.zip">ledger.zip</a>, and verify it with the key that you hold:</p> <pre tabindex="0">undertone audit fetch undertone audit verify ledger.zip --key ledger.pub</pre>`,
	)
	n.says(t, "/audit/songs", `<span class="badge is-created">created</span>`, "n = 2, n_min, as nothing is released yet")
	n.says(t, "/jobs/films", "How good the model is was released with it", "Residual variance:")
	if body := n.text(t, "/jobs/songs"); strings.Contains(body, "How good") || strings.Contains(body, "Quality by release") {
		t.Errorf("of songs nothing is released:\n%s", body)
	}

	var b bytes.Buffer
	r := n.reportOf(t)
	r.Jobs = r.Jobs[:1]
	r.Ledger.Carried, r.Jobs[0].Created = 3, "" // the latter is what a time beyond RFC 3339's is
	must(t, pages.WriteReport(&b, r))
	for _, want := range []string{"<title>Privacy account of films · undertone</title>", "<h1>Privacy account of films</h1>", "all 2 jobs of this ledger", "<dt>Carried over</dt><dd>3 records are from before the ledger began:", "created (a time beyond the year 9999) UTC"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("a report of one job has no %q", want)
		}
	}
}

// A job under replace-one has one ε, and of what is left of a job that is closed nothing
// can be spent. Its model of one item a sample has no residual variance.
func TestBudgetInWords(t *testing.T) {
	bare := solo.New()
	bare.BeginLedger(t)
	terms, p := solo.Terms("done"), solo.Parameters()
	terms.Adjacency, p.Features, p.Trace = dp.ReplaceOne, lowrank.OneHot, true
	spec := bare.Create(t, p, terms)
	for i := range spec.Releases {
		sum := make([]int64, spec.Releases[i].Length)
		for k := range sum {
			sum[k] = int64((k*k+i)%7) << 20
		}
		bare.Do(t, rounds.OpenRound{Job: "done", Round: i + 1, Attempt: 1})
		bare.Do(t, rounds.Collect{Job: "done", Round: i + 1, Attempt: 1, Members: ids(spec.RoundSize), Sum: rounds.BlobOf(aggregation.Pack(nil, sum, spec.Width()))})
		var state []byte
		var err error
		bare.View(func(m *rounds.Machine, _ uint64) {
			j, _ := m.Job("done")
			state, err = jobs.Advance(spec, i+1, j.Latest.Bytes, m.Sum("done"), spec.RoundSize)
		})
		must(t, err)
		bare.Do(t, rounds.ReleaseRound{Job: "done", Round: i + 1, Attempt: 1, State: rounds.BlobOf(state)})
	}
	n := serveNode(t, bare, solo.SecretKey)
	n.says(t, "/audit/done", "left, never to be spent")
	if body := n.text(t, "/audit/done"); strings.Count(body, "ε, replace-one") != 1 {
		t.Error(body)
	}
	n.says(t, "/jobs/done", "How the model changed was released with it")
	if body := n.text(t, "/jobs/done"); strings.Contains(body, "Residual variance") || strings.Contains(body, "How good") || !strings.Contains(body, "Change") {
		t.Error(body)
	}
	if rows := n.rows(t, n.browser(t, &carol), "/jobs/done/quality"); len(rows) != len(spec.Releases) || rows[0]["residual_variance"] != nil {
		t.Errorf("%v", rows)
	}
	if rows := n.rows(t, n.browser(t, &carol), "/audit/done/privacy"); rows[2]["amount"] != "left" || rows[2]["replace_one_epsilon"] == nil {
		t.Errorf("%v", rows)
	}
}

// A header that is long, and not more than is read, is answered, over HTTP/2 as well.
func TestLongHeaders(t *testing.T) {
	n := serve(t)
	resp, _ := n.ask(t, n.browser(t, &carol), http.MethodGet, "/audit", "X-Long", strings.Repeat("x", 20_000))
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		t.Errorf("%s over %s", resp.Status, resp.Proto)
	}
}
