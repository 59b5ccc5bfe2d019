package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/undertone-fl/undertone/simulations"
)

// fixtures are results of version 1, and stay so.
var fixtures = []string{"synthetic-v1.json", "features-v1.json"}

func readFixture(t *testing.T, name string) *simulations.Result {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	res, err := Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestOldResultsAreRead(t *testing.T) {
	for _, name := range fixtures {
		res := readFixture(t, name)
		var again bytes.Buffer
		if err := Encode(&again, res); err != nil {
			t.Fatal(err)
		}
		back, err := Decode(&again)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(res, back) {
			t.Errorf("%s: written and read again, it is another result", name)
		}
	}
}

func TestOtherVersionsAreRefused(t *testing.T) {
	_, err := Decode(strings.NewReader(`{"version": 2}`))
	if !errors.Is(err, ErrVersion) {
		t.Errorf("version 2: got %v, want %v", err, ErrVersion)
	}
}

// TestFormatIsDocumented holds FORMAT.md to the types, in both directions.
func TestFormatIsDocumented(t *testing.T) {
	page, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(page), "## Metrics")
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(text, -1) {
		documented = append(documented, m[1])
	}
	fields := jsonFields("", reflect.TypeFor[simulations.Result]())
	for _, f := range fields {
		if !slices.Contains(documented, f) {
			t.Errorf("FORMAT.md does not describe %s", f)
		}
	}
	for _, d := range documented {
		if !slices.Contains(fields, d) {
			t.Errorf("FORMAT.md describes %s, which does not exist", d)
		}
	}
}

// jsonFields lists the paths of all fields below a type, as FORMAT.md writes
// them.
func jsonFields(prefix string, typ reflect.Type) []string {
	switch {
	case typ == reflect.TypeFor[simulations.Epsilon]():
		return nil
	case typ == reflect.TypeFor[simulations.Round]():
		// It has a format of its own, with the metrics among its fields.
		names := []string{"round", "phase", "epsilon_spent", "clip", "noise_multiplier"}
		for _, m := range metrics {
			names = append(names, m.name)
		}
		for i := range names {
			names[i] = prefix + "." + names[i]
		}
		return names
	case typ.Kind() == reflect.Pointer:
		return jsonFields(prefix, typ.Elem())
	case typ.Kind() == reflect.Slice:
		return jsonFields(prefix+"[]", typ.Elem())
	case typ.Kind() != reflect.Struct:
		return nil
	}
	var fields []string
	for f := range typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		path := strings.TrimPrefix(prefix+"."+name, ".")
		fields = append(append(fields, path), jsonFields(path, f.Type)...)
	}
	return fields
}

// TestRoundFields holds the list in jsonFields to what is written.
func TestRoundFields(t *testing.T) {
	round := simulations.Round{Metrics: map[string]float64{}}
	for _, m := range metrics {
		round.Metrics[m.name] = 1
	}
	text, err := round.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	want := jsonFields("", reflect.TypeFor[simulations.Round]())
	if got := strings.Count(string(text), `":`); got != len(want) {
		t.Errorf("a round has %d fields, want %d: %s", got, len(want), text)
	}
	for _, name := range want {
		if !strings.Contains(string(text), `"`+strings.TrimPrefix(name, ".")+`":`) {
			t.Errorf("a round does not have %s: %s", name, text)
		}
	}
}

func TestWrite(t *testing.T) {
	for _, name := range fixtures {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			res := readFixture(t, name)
			const command = "undertone simulate --preset quick --out 'a <b>'"
			if err := Write(dir, res, command); err != nil {
				t.Fatal(err)
			}
			want := []string{ResultFile, HTMLFile}
			for _, f := range []string{"error-by-epsilon", "error-by-round", "gain-by-samples", "budget-by-round"} {
				want = append(want, f+".png", f+".svg")
			}
			slices.Sort(want)
			if got := names(t, dir); !slices.Equal(got, want) {
				t.Fatalf("files %v, want %v", got, want)
			}
			for _, f := range want {
				switch filepath.Ext(f) {
				case ".png":
					checkPNG(t, filepath.Join(dir, f))
				case ".svg":
					checkXML(t, filepath.Join(dir, f))
				}
			}
			page, err := os.ReadFile(filepath.Join(dir, HTMLFile))
			if err != nil {
				t.Fatal(err)
			}
			checkPage(t, string(page))
			if !bytes.Contains(page, []byte("a &lt;b&gt;")) {
				t.Error("the page does not show the command, escaped")
			}
			if !strings.Contains(strings.ReplaceAll(string(page), "\u00a0", " "), Headline(res)) {
				t.Error("the page does not show the headline")
			}
		})
	}
}

// checkPage looks for what would make a page depend on anything outside of it.
func checkPage(t *testing.T, page string) {
	t.Helper()
	outside := regexp.MustCompile(`(?i)<script|<link|<img|<iframe|@import|url\(|\ssrc=|href="[^#]`)
	if found := outside.FindString(page); found != "" {
		t.Errorf("the page asks for something outside of it: %q", found)
	}
	if n := strings.Count(page, "<svg"); n != 4 {
		t.Errorf("%d figures on the page, want 4", n)
	}
	// A colour that is written out would not follow the reader's choice of
	// light or dark.
	figures := strings.Join(regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1), "")
	if fixed := regexp.MustCompile(`#[0-9A-Fa-f]{6}`).FindString(figures); fixed != "" {
		t.Errorf("a figure on the page has the fixed colour %s", fixed)
	}
	if strings.Contains(page, "ZgotmplZ") {
		t.Error("the template refused a value")
	}
	if strings.Contains(page, "NaN") || strings.Contains(page, "Inf") {
		t.Error("the page shows something that is not a number")
	}
}

func checkPNG(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.DecodeConfig(f)
	if err != nil {
		t.Errorf("%s: %v", path, err)
	}
	if img.Width < 1500 || img.Height < 400 {
		t.Errorf("%s: %d x %d pixels are too few to read", path, img.Width, img.Height)
	}
}

func checkXML(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for dec := xml.NewDecoder(f); ; {
		switch _, err := dec.Token(); err {
		case nil:
		case io.EOF:
			return
		default:
			t.Fatalf("%s: %v", path, err)
		}
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestWriteIsDeterministic(t *testing.T) {
	res := readFixture(t, fixtures[0])
	first, second := t.TempDir(), t.TempDir()
	for _, dir := range []string{first, second} {
		if err := Write(dir, res, "undertone simulate"); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names(t, first) {
		a, err := os.ReadFile(filepath.Join(first, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(second, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs between two reports of one result", name)
		}
	}
}

// TestWriteKeepsTheOldFile: what cannot be replaced stays as it was, with no
// debris beside it.
func TestWriteKeepsTheOldFile(t *testing.T) {
	dir := t.TempDir()
	// A directory in the place of the file cannot be renamed over.
	if err := os.MkdirAll(filepath.Join(dir, ResultFile, "kept"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, readFixture(t, fixtures[0]), ""); err == nil {
		t.Fatal("no error")
	}
	if got := names(t, dir); !slices.Equal(got, []string{ResultFile}) {
		t.Errorf("left behind: %v", got)
	}
}

// TestSparseResults: whatever part of a result is missing, there is a report
// of the rest.
func TestSparseResults(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*simulations.Result)
	}{
		{"nothing", func(r *simulations.Result) { r.Runs, r.Summary, r.Interrupted = nil, nil, true }},
		{"no privacy", only(simulations.AMHTLRS, unlimited)},
		{"privacy alone", only(simulations.AMHTLRS, 1)},
		{"local alone", only(simulations.Local, unlimited)},
		{"no rounds", func(r *simulations.Result) {
			for i := range r.Runs {
				r.Runs[i].Rounds = nil
			}
		}},
		{"one error", func(r *simulations.Result) {
			for i := range r.Summary {
				r.Summary[i].Mean, r.Summary[i].CI95 = 0.5, 0
			}
		}},
		{"perfect", func(r *simulations.Result) {
			for i := range r.Summary {
				r.Summary[i].Mean, r.Summary[i].CI95 = 0, 0
			}
		}},
		{"diverged", func(r *simulations.Result) {
			r.Summary[0].Mean, r.Summary[0].CI95 = 1e30, 1e31
			r.Runs[0].Users[0].Error = 1e30
		}},
		{"one user", func(r *simulations.Result) {
			for i := range r.Runs {
				r.Runs[i].Users = r.Runs[i].Users[:min(1, len(r.Runs[i].Users))]
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := readFixture(t, fixtures[0])
			tt.change(res)
			dir := t.TempDir()
			if err := Write(dir, res, "undertone simulate"); err != nil {
				t.Fatal(err)
			}
			page, err := os.ReadFile(filepath.Join(dir, HTMLFile))
			if err != nil {
				t.Fatal(err)
			}
			if text := string(page); strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
				t.Error("the page shows something that is not a number")
			}
		})
	}
}

// only keeps one method at one epsilon.
func only(method string, e simulations.Epsilon) func(*simulations.Result) {
	return func(r *simulations.Result) {
		r.Config.Methods = []string{method}
		r.Config.Epsilons = []simulations.Epsilon{e}
		r.Runs = slices.DeleteFunc(r.Runs, func(run simulations.Run) bool { return run.Method != method || run.Epsilon != e })
		r.Summary = slices.DeleteFunc(r.Summary, func(s simulations.Summary) bool { return s.Method != method || s.Epsilon != e })
	}
}

func TestHeadline(t *testing.T) {
	const method = simulations.AMHTLRS
	inf := simulations.Epsilon(math.Inf(1))
	for _, tt := range []struct {
		name   string
		errors map[simulations.Epsilon]float64
		local  float64
		want   string
	}{
		{"cheap", map[simulations.Epsilon]float64{0.5: 0.2, 1: 0.104, 2: 0.108, inf: 0.1}, 0.3,
			"Down to ε = 1, privacy costs at most 8 % in error: there the relative error of AMHT-LRS is 0.104, against 0.100 without privacy. " +
				"That is 2.9 times smaller than what users reach alone (0.300)."},
		{"free", map[simulations.Epsilon]float64{1: 0.0999, inf: 0.1}, 0.11,
			"Down to ε = 1, privacy costs at most 1 % in error: there the relative error of AMHT-LRS is 0.0999, against 0.100 without privacy. " +
				"That is 9.2 % smaller than what users reach alone (0.110)."},
		{"dear", map[simulations.Epsilon]float64{0.5: 0.1, 1: 0.4, inf: 0.1}, 0.3,
			"At ε = 1, the relative error of AMHT-LRS is 0.400, against 0.100 without privacy. Users do better alone (0.300)."},
		{"without privacy", map[simulations.Epsilon]float64{inf: 0.1}, 0.3,
			"Without privacy, the relative error of AMHT-LRS is 0.100. That is 3.0 times smaller than what users reach alone (0.300)."},
		{"nothing to compare with", map[simulations.Epsilon]float64{0.5: 0.3, 1: 0.2}, 0.5,
			"At ε = 1, the relative error of AMHT-LRS is 0.200. That is 2.5 times smaller than what users reach alone (0.500)."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := &simulations.Result{Config: simulations.Config{Methods: []string{method, simulations.Local}}}
			for e, v := range tt.errors {
				res.Config.Epsilons = append(res.Config.Epsilons, e)
				res.Summary = append(res.Summary,
					simulations.Summary{Method: method, Epsilon: e, Metric: simulations.RelativeError, Mean: v},
					simulations.Summary{Method: simulations.Local, Epsilon: e, Metric: simulations.RelativeError, Mean: tt.local})
			}
			if got := Headline(res); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			// One seed, or means that say little, allow no claim.
			res.Config.Seeds = 1
			if got := Headline(res); strings.Contains(got, "privacy costs") {
				t.Errorf("of one seed: %s", got)
			}
			res.Config.Seeds = 0
			for i := range res.Summary {
				res.Summary[i].CI95 = res.Summary[i].Mean
			}
			if got := Headline(res); strings.Contains(got, "privacy costs") {
				t.Errorf("of wide intervals: %s", got)
			}
		})
	}
}

func TestCells(t *testing.T) {
	for _, tt := range []struct {
		mean, ci float64
		want     string
	}{
		{0.0209, 0.0004, "0.0209 ± 0.0004"},
		{4.3163, 0.0041, "4.316 ± 0.004"},
		{0.54, 0, "0.540"},
		{0.0105, 1e-6, "0.0105 ± <0.0001"},
		{1234, 20, "1234 ± 20"},
		{0, 0, "0.000"},
		{7.741e-5, 1.33e-6, "7.74e-5 ± 1.3e-6"},
	} {
		if got := newCell(simulations.Summary{Mean: tt.mean, CI95: tt.ci}).String(); got != tt.want {
			t.Errorf("%v ± %v is shown as %q, want %q", tt.mean, tt.ci, got, tt.want)
		}
	}
	if got := (Cell{}).String(); got != "-" {
		t.Errorf("no figure is shown as %q", got)
	}
}

func TestGains(t *testing.T) {
	res := &simulations.Result{Runs: []simulations.Run{
		{Method: simulations.Local, Epsilon: unlimited, Seed: 1, Users: []simulations.UserError{{Client: 0, Samples: 3, Error: 2}, {Client: 7, Samples: 9, Error: 3}}},
		{Method: simulations.AMHTLRS, Epsilon: 1, Seed: 1, Users: []simulations.UserError{{Client: 7, Samples: 9, Error: 1}, {Client: 0, Samples: 3, Error: 4}, {Client: 8, Samples: 1, Error: 1}}},
	}}
	got := gains(res, simulations.AMHTLRS, 1)
	want := []gain{{9, 3}, {3, 0.5}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v: users matched by number, those without a match left out", got, want)
	}
	if _, winners := medianGain(got); winners != 0.5 {
		t.Errorf("%v of the users gain, want 0.5", winners)
	}
	if got := gains(res, simulations.LowRank, 1); got != nil {
		t.Errorf("gains of a method that did not run: %v", got)
	}
}

func TestByRound(t *testing.T) {
	round := func(l int, v float64) simulations.Round {
		return simulations.Round{Round: l, Metrics: map[string]float64{"m": v}}
	}
	res := &simulations.Result{Runs: []simulations.Run{
		// The first release of round 0 has no figure, the second has.
		{Method: "a", Epsilon: 1, Seed: 1, Rounds: []simulations.Round{{Round: 0}, round(0, 8), round(1, 4), round(2, 2)}},
		{Method: "a", Epsilon: 1, Seed: 2, Rounds: []simulations.Round{round(0, 6), round(1, 1)}},
		{Method: "a", Epsilon: 2, Seed: 1, Rounds: []simulations.Round{round(0, 100)}},
		{Method: "b", Epsilon: 1, Seed: 1, Rounds: []simulations.Round{round(0, 100)}},
	}}
	got := byRound(res, "a", 1, metricOf("m"))
	want := []point{{0, 7, 6, 8}, {1, 2.5, 1, 4}, {2, 1.5, 1, 2}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestEpsilonTicks(t *testing.T) {
	var labels []string
	for _, tick := range newEpsilonAxis([]simulations.Epsilon{0.25, 0.5, 0.51, 4, unlimited}).Ticks(-2, 4) {
		if tick.Label != "" {
			labels = append(labels, tick.Label)
		}
	}
	if got, want := strings.Join(labels, " "), "0.25 0.5 4 ∞"; got != want {
		t.Errorf("labels %q, want %q", got, want)
	}
}
