package pages_test

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"gonum.org/v1/plot/font/liberation"
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
		if u, err := url.Parse(e.Request.URL); err == nil && u.Host != b.node.address && u.Scheme != "data" && u.Scheme != "about" {
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

// picture is the upper part of the page, 1200 pixels wide.
func (b *tab) picture(name string, height int64) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(1200, height))
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
	const most, unlike = 192, 64
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
	for _, p := range []struct {
		path, name string
		height     int64
	}{{"/audit/films", "audit", 1640}, {"/operate", "operate", 1240}, {"/jobs/films", "job", 1000}} {
		b.open(p.path)
		b.picture(p.name, p.height)
	}
	b.dark(true)
	b.open("/audit/films")
	b.picture("audit-dark", 1640)
}
