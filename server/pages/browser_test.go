package pages_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"gonum.org/v1/plot/font/liberation"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/ledger/report"
	"github.com/undertone-fl/undertone/server/internal/solo"
	"github.com/undertone-fl/undertone/server/pages"
)

var update = flag.Bool("update", false, "write the screenshots")

// tab is a browser's tab, and what went wrong in it.
type tab struct {
	context.Context
	t    *testing.T
	node *node

	mu       sync.Mutex
	problems []string
	status   map[string]int64 // of documents, by path
}

// openBrowser starts Chromium. Where there is none the test is skipped, and says so.
func openBrowser(t *testing.T, n *node) *tab {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a browser")
	}
	var binary string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless-shell"} {
		if path, err := exec.LookPath(name); err == nil {
			binary = path
			break
		}
	}
	if binary == "" {
		t.Skip("NOT TESTED IN A BROWSER: there is no Chromium or Chrome on this machine's PATH")
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(binary), chromedp.IgnoreCertErrors, chromedp.WindowSize(1200, 900),
		chromedp.Flag("force-color-profile", "srgb"), chromedp.Flag("hide-scrollbars", true), chromedp.Flag("font-render-hinting", "none"))
	if *update {
		options = append(options, chromedp.Env("FONTCONFIG_FILE="+typefaces(t)))
	}
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, end := chromedp.NewContext(allocator)
	t.Cleanup(end)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	b := &tab{Context: ctx, t: t, node: n, status: map[string]int64{}}
	must(t, chromedp.Listen(ctx, b.listen))
	call(b, network.Enable, network.EnableParams{})
	call(b, log.Enable, cdp.Empty{})
	call(b, runtime.Enable, cdp.Empty{})
	return b
}

func (b *tab) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	note := func(format string, args ...any) { b.problems = append(b.problems, fmt.Sprintf(format, args...)) }
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(e.Request.URL); err == nil && u.Host != b.node.address && u.Scheme != "file" && u.Scheme != "about" {
			note("asks for %s", e.Request.URL)
		}
	case *network.EventLoadingFailed:
		if !e.Canceled {
			note("loading failed: %s", e.ErrorText)
		}
	case *network.EventResponseReceived:
		u, _ := url.Parse(e.Response.URL)
		if e.Type == network.ResourceTypeDocument {
			b.status[u.Path] = e.Response.Status
		} else if e.Response.Status >= 400 {
			note("%s: %d", e.Response.URL, e.Response.Status)
		}
	case *runtime.EventConsoleAPICalled:
		note("console: %s", e.Type)
	case *runtime.EventExceptionThrown:
		note("exception: %s", e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			note("log: %s (%s)", e.Entry.Text, e.Entry.URL)
		}
	}
}

// quiet fails unless nothing has gone wrong since it was last called.
func (b *tab) quiet(what string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.problems {
		b.t.Errorf("%s: %s", what, p)
	}
	b.problems = nil
}

// do acts in the tab.
func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	must(b.t, chromedp.Do(b, actions...))
}

// call is a command of the browser's own protocol.
func call[P, R any](b *tab, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	r, err := chromedp.Call(b, command, params)
	must(b.t, err)
	return r
}

// open navigates to a page of the node.
func (b *tab) open(path string) {
	b.t.Helper()
	b.do(chromedp.Navigate("https://"+b.node.address+path), chromedp.WaitReady("#content"))
}

// eval returns what an expression is in the page.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b, chromedp.Evaluate[T](expression))
	must(b.t, err)
	return v
}

// enter lets the browser in, with a link of the auditor's.
func (b *tab) enter() {
	b.t.Helper()
	link, _, err := b.node.pages.Links().Create(carol, 0)
	must(b.t, err)
	b.do(chromedp.Navigate(link), chromedp.WaitReady("nav"))
}

func (b *tab) dark(on bool) {
	b.t.Helper()
	value := "light"
	if on {
		value = "dark"
	}
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: value}},
	})
}

// picture is the upper part of the page, 1200 pixels wide, with all of an element.
func (b *tab) picture(name, last string) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(1200, 900))
	height := eval[float64](b, `document.querySelector("`+last+`").getBoundingClientRect().bottom`) + 12
	b.do(chromedp.EmulateViewport(1200, int64(height)))
	shot := call(b, page.CaptureScreenshot, page.CaptureScreenshotParams{})
	full, err := png.Decode(bytes.NewReader(shot.Data))
	must(b.t, err)
	var small bytes.Buffer
	must(b.t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, fewColours(full)))
	must(b.t, os.WriteFile(filepath.Join("screenshots", name+".png"), small.Bytes(), 0o644))
}

// fewColours keeps the colours that most of a picture is in, and some that are unlike all
// of those, so that its file is small.
func fewColours(full image.Image) image.Image {
	const most, unlike = 96, 32
	area := full.Bounds()
	count := map[color.RGBA]int{}
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(full.At(x, y)).(color.RGBA) }
	for y := range area.Dy() {
		for x := range area.Dx() {
			count[at(x, y)]++
		}
	}
	all := slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int {
		return cmp.Or(count[b]-count[a], int(a.R)-int(b.R), int(a.G)-int(b.G), int(a.B)-int(b.B))
	})
	var palette color.Palette
	for _, c := range all[:min(len(all), most)] {
		palette = append(palette, c)
	}
	distance := func(a, b color.RGBA) int {
		r, g, bl := int(a.R)-int(b.R), int(a.G)-int(b.G), int(a.B)-int(b.B)
		return r*r + g*g + bl*bl
	}
	for rest := all[len(palette):]; len(palette) < min(len(all), most+unlike); {
		farthest, far := color.RGBA{}, -1
		for _, c := range rest {
			nearest := distance(c, palette[palette.Index(c)].(color.RGBA))
			if nearest > far {
				farthest, far = c, nearest
			}
		}
		palette = append(palette, farthest)
	}
	index := map[color.RGBA]uint8{}
	few := image.NewPaletted(area, palette)
	for y := range area.Dy() {
		for x := range area.Dx() {
			c := at(x, y)
			i, known := index[c]
			if !known {
				i = uint8(palette.Index(c))
				index[c] = i
			}
			few.SetColorIndex(x, y, i)
		}
	}
	return few
}

// typefaces makes a configuration of fonts for a browser: those that figures are measured
// with, whatever the machine has.
func typefaces(t *testing.T) (file string) {
	t.Helper()
	dir := t.TempDir()
	for i, face := range liberation.Collection() {
		var b bytes.Buffer
		_, err := face.Face.WriteSourceTo(nil, &b)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.ttf", i)), b.Bytes(), 0o644))
	}
	alias := func(family, prefer string) string {
		return `<match target="pattern"><test name="family"><string>` + family + `</string></test><edit name="family" mode="prepend" binding="strong"><string>` + prefer + `</string></edit></match>`
	}
	file = filepath.Join(dir, "fonts.conf")
	must(t, os.WriteFile(file, []byte(`<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>
<include ignore_missing="yes">/etc/fonts/fonts.conf</include><dir>`+dir+`</dir>`+
		alias("sans-serif", "Liberation Sans")+alias("system-ui", "Liberation Sans")+alias("monospace", "Liberation Mono")+`</fontconfig>`), 0o644))
	return file
}

// The pages that there are to look at.
var shownPages = []string{"/audit", "/audit/films", "/operate", "/jobs/films", "/jobs/songs", "/downloads"}

// A browser that followed an auditor's link sees every page, nothing goes wrong, and
// nothing is asked of anybody else.
func TestPagesInABrowser(t *testing.T) {
	n := serve(t)
	n.collectForAWhile(t)
	b := openBrowser(t, n)
	link, _, err := n.pages.Links().Create(carol, 0)
	must(t, err)
	b.do(chromedp.Navigate(link), chromedp.WaitReady("nav"))
	if got := eval[string](b, "location.pathname"); got != "/audit" {
		t.Errorf("the link leads to %s", got)
	}
	b.quiet("the link")
	for _, path := range shownPages {
		b.open(path)
		b.quiet(path)
		if status := b.statusOf(path); status != 200 {
			t.Errorf("%s: %d", path, status)
		}
	}

	t.Run("numbers", func(t *testing.T) {
		b := b.in(t)
		b.open("/audit/films")
		r := n.reportOf(t).Jobs[0]
		rows := eval[[][]string](b, cells("films-releases"))
		if len(rows) != len(r.Attempts) {
			t.Fatalf("%d rows of %d attempts", len(rows), len(r.Attempts))
		}
		for i, a := range r.Attempts {
			members := strconv.Itoa(a.Members)
			if a.Status == "open" {
				members = "–"
			}
			want := []string{
				strconv.Itoa(a.Round), strconv.Itoa(a.Attempt), a.Status, a.Kind, pages.Significant(a.Clip), pages.Significant(a.Noise),
				pages.Significant(a.Multiplier), strconv.Itoa(a.NMin), members, a.Sampler, pages.Significant(a.Charge.Rho), pages.Significant(a.Spent.Epsilon),
			}
			got := rows[i][:len(want)]
			for k := range got {
				got[k] = strings.ReplaceAll(got[k], ",", "")
			}
			if !slices.Equal(got, want) {
				t.Errorf("row %d: %q, want %q", i, got, want)
			}
		}
		privacy := eval[[][]string](b, cells("films-privacy"))
		for i, p := range []report.Privacy{r.Cap, r.Spent, r.Left, r.FailedSpent} {
			want := []string{pages.Significant(p.Epsilon), pages.Significant(p.ReplaceOne), pages.Significant(p.Rho), pages.Significant(p.Mu), strconv.FormatUint(p.NanoRho, 10)}
			if got := privacy[i][1:]; strings.ReplaceAll(strings.Join(got, " "), ",", "") != strings.Join(want, " ") {
				t.Errorf("%s: %q, want %q", privacy[i][0], got, want)
			}
		}
	})

	t.Run("keyboard", func(t *testing.T) {
		b := b.in(t)
		for _, path := range shownPages {
			b.open(path)
			b.reachAll(path)
		}
	})

	t.Run("without sight", func(t *testing.T) {
		b := b.in(t)
		for _, path := range shownPages {
			b.open(path)
			b.hear(path)
		}
	})

	t.Run("contrast", func(t *testing.T) {
		b := b.in(t)
		backgrounds := map[string]bool{}
		for _, dark := range []bool{false, true} {
			b.dark(dark)
			for _, path := range append([]string{"/enter/forged"}, shownPages...) {
				b.open(path)
				for _, problem := range eval[[]string](b, contrast) {
					t.Errorf("%s, dark: %v: %s", path, dark, problem)
				}
				b.forget()
			}
			b.open("/audit/films")
			backgrounds[eval[string](b, "getComputedStyle(document.body).backgroundColor")] = true
			backgrounds[eval[string](b, "getComputedStyle(document.querySelector('figure svg text')).fill")] = true
		}
		if len(backgrounds) != 4 {
			t.Errorf("light and dark share colours: %v", backgrounds)
		}
		b.dark(false)
	})

	t.Run("narrow", func(t *testing.T) {
		b := b.in(t)
		b.do(chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile))
		for _, path := range append([]string{"/enter/forged"}, shownPages...) {
			b.open(path)
			b.fits(path, 390)
			b.hear(path)
			for _, wide := range eval[[]string](b, `[...document.querySelectorAll("pre, .scroll:has(.rows)")].filter(e => e.scrollWidth > e.clientWidth).map(e => e.outerHTML.slice(0, 80))`) {
				t.Errorf("%s: %s has no room", path, wide)
			}
			if bare := eval[int](b, `[...document.querySelectorAll(".scroll")].filter(e => !getComputedStyle(e).backgroundAttachment.startsWith("local, local, scroll")).length`); bare > 0 {
				t.Errorf("%s: of %d tables nobody sees that there is more", path, bare)
			}
		}
		b.forget()
		b.do(chromedp.ResetViewport())
	})

	// On a full page there is room for every table, and charts are of one size.
	t.Run("wide", func(t *testing.T) {
		b := b.in(t)
		b.do(chromedp.EmulateViewport(1200, 900))
		sizes := map[string]bool{}
		for _, path := range shownPages {
			b.open(path)
			b.fits(path, 1200)
			if over := eval[[]string](b, `[...document.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth).map(e => e.getAttribute("aria-labelledby") + " " + e.scrollWidth + "/" + e.clientWidth)`); len(over) > 0 {
				t.Errorf("%s has no room for %q", path, over)
			}
			for _, size := range eval[[]string](b, `[...document.querySelectorAll("figure svg")].map(e => (e.getScreenCTM().a * 9).toFixed(1))`) {
				sizes[size] = true // of letters of 9 points, in pixels
			}
		}
		for size := range sizes {
			if x, err := strconv.ParseFloat(size, 64); err != nil || x < 10 || x > 15 || len(sizes) > 2 {
				t.Errorf("letters of %v pixels", slices.Collect(maps.Keys(sizes)))
				break
			}
		}
		b.do(chromedp.ResetViewport())
	})

	t.Run("on paper", func(t *testing.T) {
		b := b.in(t)
		b.open("/audit/films")
		call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"})
		if height := eval[float64](b, `document.querySelector("details pre").getBoundingClientRect().height`); height == 0 {
			t.Error("the checkpoint is not printed")
		}
		call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{})
	})

	t.Run("refreshes", func(t *testing.T) {
		b := b.in(t)
		b.open("/jobs/films")
		spec, v := n.job(films)
		members := v.Attempts[len(v.Attempts)-1].Members
		zeros := aggregation.Pack(nil, make([]int64, spec.Releases[9].Length), spec.Width())
		n.Do(t, rounds.Collect{Job: films, Round: 10, Attempt: 1, Members: ids(members + 1)[members:], Sum: rounds.BlobOf(zeros)})
		want := pages.Whole(members+1) + " contributions of at most"
		_, err := chromedp.Run(b, chromedp.Poll[bool](`document.querySelector(".lede").textContent.includes("`+want+`")`, chromedp.WithPollingTimeout(time.Minute)))
		must(t, err)
		b.quiet("a refresh")
	})
}

// fits fails unless the page is no wider than the window.
func (b *tab) fits(path string, most int) {
	b.t.Helper()
	if width := eval[int](b, "document.documentElement.scrollWidth"); width > most {
		b.t.Errorf("%s is %d pixels wide: %v", path, width, eval[[]string](b, fmt.Sprintf(`[...document.querySelectorAll("main *")]
			.filter(e => e.getBoundingClientRect().right > %d && !e.closest(".scroll, pre")).map(e => e.outerHTML.slice(0, 80))`, most)))
	}
}

// A job's name may be as long as names are: it breaks, and not the page.
func TestLongNamesInABrowser(t *testing.T) {
	name := strings.Repeat("m", 63)
	bare := solo.New()
	bare.BeginLedger(t)
	for _, job := range []string{name, "short"} {
		bare.Create(t, solo.Parameters(), solo.Terms(job))
		bare.Do(t, rounds.OpenRound{Job: job, Round: 1, Attempt: 1})
		bare.Do(t, rounds.CloseRound{Job: job, Round: 1, Attempt: 1})
		bare.Do(t, rounds.OpenRound{Job: job, Round: 1, Attempt: 2})
	}
	n := serveNode(t, bare, solo.SecretKey)
	b := openBrowser(t, n)
	b.enter()
	for _, width := range []int{390, 1200} {
		b.do(chromedp.EmulateViewport(int64(width), 900))
		for _, path := range []string{"/audit", "/audit/" + name, "/jobs/" + name, "/operate"} {
			b.open(path)
			b.fits(path, width)
			for _, cut := range eval[[]string](b, `[...document.querySelectorAll("h1, h2, h3, th, .card p")].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 1).map(e => e.outerHTML.slice(0, 80))`) {
				t.Errorf("%s, %d: %s has no room", path, width, cut)
			}
		}
	}
	b.quiet("long names")
}

// A link is good once, in a browser too, and a page says how to get another.
func TestLinkInABrowser(t *testing.T) {
	n := serve(t)
	b := openBrowser(t, n)
	link, _, err := n.pages.Links().Create(carol, 0)
	must(t, err)

	// It may be in a message on the web: what leads to it is another site's page.
	mail := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<a id="link" href="%s">See for yourself</a>`, link)
	}))
	defer mail.Close()
	b.do(chromedp.Navigate(strings.Replace(mail.URL, "127.0.0.1", "localhost", 1)), chromedp.Click("#link"), chromedp.WaitReady("nav"))
	if got := eval[string](b, "location.pathname"); got != "/audit" {
		t.Errorf("a link on another site leads to %s", got)
	}
	if cookies := eval[string](b, "document.cookie"); cookies != "" {
		t.Errorf("scripts see the cookie: %s", cookies)
	}
	b.open(strings.TrimPrefix(link, "https://"+n.address))
	if text := eval[string](b, "document.body.innerText"); !strings.Contains(text, "undertone audit link") {
		t.Errorf("a used link shows %s", text)
	}
	if status := b.statusOf(strings.TrimPrefix(link, "https://"+n.address)); status != 403 {
		t.Errorf("a used link: %d", status)
	}

	// It works without scripts as well.
	fresh, _, err := n.pages.Links().Create(olaf, 0)
	must(t, err)
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	b.do(chromedp.Navigate(fresh), chromedp.WaitReady("nav"))
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{})
	if got := eval[string](b, "location.pathname"); got != "/operate" {
		t.Errorf("without scripts, a link leads to %s", got)
	}
}

// The report as a file, opened from a disk.
func TestReportFileInABrowser(t *testing.T) {
	n := serve(t)
	b := openBrowser(t, n)
	file := filepath.Join(t.TempDir(), "report.html")
	f, err := os.Create(file)
	must(t, err)
	must(t, pages.WriteReport(f, n.reportOf(t)))
	must(t, f.Close())
	b.do(chromedp.Navigate("file://"+file), chromedp.WaitReady("#content"))
	b.quiet("the file")
	if got := eval[string](b, "getComputedStyle(document.querySelector('.card')).backgroundColor"); got != "rgb(255, 255, 255)" {
		t.Errorf("a card is %s", got)
	}
	for _, problem := range eval[[]string](b, contrast) {
		t.Error(problem)
	}
	b.hear("the file")
}

// in is the tab in a subtest.
func (b *tab) in(t *testing.T) *tab {
	b.t = t
	return b
}

// forget forgets what has gone wrong: a refusal is a failed request.
func (b *tab) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = nil
}

func (b *tab) statusOf(path string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.status[path]
}

// cells is the text of a table's cells, as an expression.
func cells(id string) string {
	return `[...document.querySelectorAll("#` + id + ` tbody tr")].map(r => [...r.children].map(c => c.textContent))`
}

// reachAll fails unless the tab key reaches every link, every table and all else that can
// be used, and shows where it is.
func (b *tab) reachAll(path string) {
	b.t.Helper()
	want := eval[int](b, `(() => {
		const all = [...document.querySelectorAll("a[href], button, summary, [tabindex='0']")].filter(e => e.checkVisibility());
		all.forEach((e, i) => e.dataset.order = i);
		return all.length;
	})()`)
	if tables := eval[int](b, `[...document.querySelectorAll("table")].filter(e => !e.closest("[tabindex='0']")).length`); tables > 0 {
		b.t.Errorf("%s: %d tables cannot be scrolled by keyboard", path, tables)
	}
	for i := range want {
		b.do(chromedp.KeyEvent(kb.Tab))
		if got := eval[string](b, `document.activeElement.dataset.order || document.activeElement.tagName`); got != strconv.Itoa(i) {
			b.t.Fatalf("%s: tab %d leads to %s", path, i, got)
		}
		if got := eval[string](b, `(s => s.outlineStyle + " " + s.outlineWidth)(getComputedStyle(document.activeElement))`); strings.HasPrefix(got, "none") {
			b.t.Errorf("%s: element %d does not show that it has the focus: %s", path, i, got)
		}
	}
}

// hear fails unless the accessibility tree has a name for every chart, table and link, and
// headings that descend without a gap.
func (b *tab) hear(path string) {
	b.t.Helper()
	tree := call(b, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	heard, landmarks := map[string]int{}, map[string]int{}
	level := 0
	for _, x := range tree.Nodes {
		if x.Ignored || x.Role == nil {
			continue
		}
		var role, name string
		_ = json.Unmarshal(x.Role.Value, &role)
		if x.Name != nil {
			_ = json.Unmarshal(x.Name.Value, &name)
		}
		heard[role]++
		switch role {
		case "image", "table", "link", "heading", "region", "button":
			if strings.TrimSpace(name) == "" {
				b.t.Errorf("%s: a %s has no name", path, role)
			}
		}
		if slices.Contains([]string{"region", "navigation", "banner", "contentinfo", "main"}, role) {
			if landmarks[role+" "+name]++; landmarks[role+" "+name] == 2 {
				b.t.Errorf("%s: two landmarks are heard as %s %q", path, role, name)
			}
		}
		if role == "heading" {
			for _, p := range x.Properties {
				if p.Name == "level" {
					var next int
					_ = json.Unmarshal(p.Value.Value, &next)
					if next > level+1 {
						b.t.Errorf("%s: heading %q is of level %d below one of %d", path, name, next, level)
					}
					level = next
				}
			}
		}
	}
	for role, query := range map[string]string{"image": "svg", "table": "table", "heading": "h1, h2, h3, h4"} {
		if want := eval[int](b, `document.querySelectorAll("`+query+`").length`); heard[role] != want {
			b.t.Errorf("%s: %d of %d are heard as %s", path, heard[role], want, role)
		}
	}
	if heard["heading"] == 0 || heard["main"] != 1 {
		b.t.Errorf("%s: %v", path, heard)
	}
}

// contrast lists texts that are too near to what is behind them (WCAG 2, 1.4.3), in
// tables, prose and charts.
const contrast = `(() => {
	const parse = s => (s.match(/[\d.]+/g) || []).map(Number);
	const light = c => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => {
		const v = c[i] / 255;
		return sum + w * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
	}, 0);
	const behind = e => {
		for (; e; e = e.parentElement) {
			const c = parse(getComputedStyle(e).backgroundColor);
			if (c.length === 3 || c[3] === 1) return c;
		}
		return [255, 255, 255];
	};
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	const problems = [];
	let seen = 0;
	while (walk.nextNode()) {
		const e = walk.currentNode.parentElement;
		if (!walk.currentNode.textContent.trim() || e.closest("title, desc, caption, script")) continue;
		const style = getComputedStyle(e);
		const a = light(parse(e instanceof SVGElement ? style.fill : style.color)), b = light(behind(e));
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		seen++;
		if (ratio < 4.5) problems.push(ratio.toFixed(2) + ": " + walk.currentNode.textContent.trim().slice(0, 40));
	}
	if (seen < 10) problems.push("only " + seen + " texts");
	return problems;
})()`

// TestScreenshots writes the pictures that README.md shows, with -update.
func TestScreenshots(t *testing.T) {
	if !*update {
		t.Skip("without -update")
	}
	n := serve(t)
	n.collectForAWhile(t)
	b := openBrowser(t, n)
	b.enter()
	must(t, os.MkdirAll("screenshots", 0o755))
	for _, p := range []struct{ path, name, last string }{
		{"/audit/films", "audit", "#films-releases"},
		{"/operate", "operate", ".figures"},
		{"/jobs/films", "job", "#rounds"},
	} {
		b.open(p.path)
		b.picture(p.name, p.last)
	}
	b.dark(true)
	b.open("/audit/films")
	b.picture("audit-dark", ".figures")
}
