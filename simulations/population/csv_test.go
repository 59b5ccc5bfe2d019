package population_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/undertone-fl/undertone/simulations/population"
)

func gzipped(text string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(text))
	z.Close()
	return b.Bytes()
}

func write(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// read opens a text as if it were a file called file.csv.
func read(t testing.TB, format, text string, train float64, seed uint64) population.Population {
	t.Helper()
	pop, err := population.ReadCSV(strings.NewReader(text), population.CSV{Path: "file.csv", Format: format, Train: train}, seed)
	if err != nil {
		t.Fatal(err)
	}
	return pop
}

const school = `school,x1,x2,score
b,1,2,10
a,3,4,20
b,5,6,30
c,7,8,40
b,9,1e1,-5.5
a,11,12,60
`

// all returns the samples of a user, training and held out, densely, as the
// set of "features -> response" rows.
func all(p population.Population, i int) map[[3]float64]int {
	rows := map[[3]float64]int{}
	for _, get := range []func(int, *population.Samples){p.Train, p.Test} {
		var s population.Samples
		get(i, &s)
		for j, y := range s.Y {
			rows[[3]float64{s.X[2*j], s.X[2*j+1], y}]++
		}
	}
	return rows
}

func TestFeaturesFile(t *testing.T) {
	want := []map[[3]float64]int{
		{{1, 2, 10}: 1, {5, 6, 30}: 1, {9, 10, -5.5}: 1},
		{{3, 4, 20}: 1, {11, 12, 60}: 1},
		{{7, 8, 40}: 1},
	}
	for name, content := range map[string][]byte{
		"plain.csv":                  []byte(school),
		"zipped.csv.gz":              gzipped(school),
		"zipped-by-another-name.csv": gzipped(school),
		"plain.gz":                   []byte(school),
		"byte-order-mark":            []byte("\ufeff" + school),
		"carriage-returns":           []byte(strings.ReplaceAll(school, "\n", "\r\n")),
		"no-last-newline":            []byte(strings.TrimSpace(school)),
		"quoted":                     []byte(strings.ReplaceAll(school, "b,", `"b",`)),
		"named-columns":              []byte("x1,Y,x2,user\n1,10,2,b\n3,20,4,a\n5,30,6,b\n7,40,8,c\n9,-5.5,10,b\n11,60,12,a\n"),
		"user-last":                  []byte("x1,x2,score,User\n1,2,10,b\n3,4,20,a\n5,6,30,b\n7,8,40,c\n9,10,-5.5,b\n11,12,60,a\n"),
	} {
		t.Run(name, func(t *testing.T) {
			pop, err := population.OpenCSV(population.CSV{Path: write(t, name, content), Format: "features", Train: 1}, 1)
			if err != nil {
				t.Fatal(err)
			}
			if pop.Len() != 3 || pop.Dim() != 2 {
				t.Fatalf("%d users of dimension %d", pop.Len(), pop.Dim())
			}
			for i := range want {
				if got := all(pop, i); !reflect.DeepEqual(got, want[i]) {
					t.Errorf("user %d has %v, want %v", i, got, want[i])
				}
			}
		})
	}
}

func TestRatingsFile(t *testing.T) {
	for name, text := range map[string]string{
		"by name":     "timestamp,rating,item,user\n1,4,film 2,ann\n2,3,film 1,bob\n3,2,film 3,ann\n4,-1.5,film 2,ann\n",
		"by position": "userId,movieId,rating,timestamp\nann,film 2,4,1\nbob,film 1,3,2\nann,film 3,2,3\nann,film 2,-1.5,4\n",
		"three":       "who,what,stars\nann,film 2,4\nbob,film 1,3\nann,film 3,2\nann,film 2,-1.5\n",
	} {
		t.Run(name, func(t *testing.T) {
			seen := map[string]bool{}
			for seed := range uint64(60) {
				pop := read(t, "ratings", text, 2, seed)
				if pop.Len() != 2 || pop.Dim() != 4 {
					t.Fatalf("%d users of dimension %d", pop.Len(), pop.Dim())
				}
				var train, test population.Samples
				pop.Train(0, &train)
				pop.Test(0, &test)
				// Items are film 2, film 1 and film 3, in order of appearance.
				film3 := population.Samples{X: []float64{1, 1}, Y: []float64{2}, Columns: []int32{2, 3}}
				one := func(y float64) population.Samples {
					return population.Samples{X: []float64{1, 1}, Y: []float64{y}, Columns: []int32{0, 3}}
				}
				two := func(y float64) population.Samples {
					return population.Samples{X: []float64{1, 0, 1, 0, 1, 1}, Y: []float64{y, 2}, Columns: []int32{0, 2, 3}}
				}
				both := population.Samples{X: []float64{1, 1, 1, 1}, Y: []float64{4, -1.5}, Columns: []int32{0, 3}}
				got := [2]population.Samples{train, test}
				switch {
				case reflect.DeepEqual(got, [2]population.Samples{both, film3}):
					seen["film 3"] = true
				case reflect.DeepEqual(got, [2]population.Samples{two(4), one(-1.5)}):
					seen["second film 2"] = true
				case reflect.DeepEqual(got, [2]population.Samples{two(-1.5), one(4)}):
					seen["first film 2"] = true
				default:
					t.Fatalf("seed %d: ann has %+v", seed, got)
				}

				pop.Train(1, &train)
				if want := (population.Samples{X: []float64{1, 1}, Y: []float64{3}, Columns: []int32{1, 3}}); !reflect.DeepEqual(train, want) {
					t.Fatalf("bob trains on %+v", train)
				}
				pop.Test(1, &test)
				if len(test.Y) != 0 || len(test.X) != 0 {
					t.Fatalf("bob is tested on %+v", test)
				}
			}
			if len(seen) != 3 { // misses one with probability 3 (2/3)^60 = 8e-11
				t.Errorf("only these rows are ever held out: %v", seen)
			}
		})
	}
}

// users is a features file of users with the given numbers of rows, whose
// responses are 0, 1, 2...
func users(rows map[string]int, order ...string) string {
	var b strings.Builder
	b.WriteString("user,x,y\n")
	for _, name := range order {
		for j := range rows[name] {
			b.WriteString(name + ",1," + string(rune('0'+j)) + "\n")
		}
	}
	return b.String()
}

func TestSplitCounts(t *testing.T) {
	rows := map[string]int{"one": 1, "two": 2, "five": 5, "ten": 10}
	order := []string{"one", "two", "five", "ten"}
	for _, c := range []struct {
		train float64
		want  [4]int
	}{
		{1, [4]int{1, 1, 1, 1}},
		{4, [4]int{1, 1, 4, 4}},
		{5, [4]int{1, 1, 4, 5}},
		{1e300, [4]int{1, 1, 4, 9}},
		{0.5, [4]int{1, 1, 3, 5}},
		{0.74, [4]int{1, 1, 4, 7}},
		{0.01, [4]int{1, 1, 1, 1}},
		{0.99, [4]int{1, 1, 4, 9}},
	} {
		pop := read(t, "features", users(rows, order...), c.train, 1)
		for i, name := range order {
			var train, test population.Samples
			pop.Train(i, &train)
			pop.Test(i, &test)
			if len(train.Y) != c.want[i] || len(test.Y) != rows[name]-c.want[i] {
				t.Errorf("train %v: user %s has %d and %d rows, want %d for training", c.train, name, len(train.Y), len(test.Y), c.want[i])
			}
		}
	}
}

func TestSplitDependsOnSeedAndUserAlone(t *testing.T) {
	rows := map[string]int{"ann": 10, "bob": 10, "cleo": 3}
	trained := func(pop population.Population, i int) []float64 {
		var s population.Samples
		pop.Train(i, &s)
		return s.Y
	}
	long := read(t, "features", users(rows, "cleo", "bob", "ann"), 5, 1)
	short := read(t, "features", users(rows, "ann", "cleo"), 5, 1)
	if a, b := trained(long, 2), trained(short, 0); !reflect.DeepEqual(a, b) {
		t.Errorf("ann trains on %v, without bob on %v", a, b)
	}
	if a, b := trained(long, 2), trained(long, 1); reflect.DeepEqual(a, b) { // 1 in 252 for a fresh pair
		t.Errorf("ann and bob are split alike: %v", a)
	}
	other := read(t, "features", users(rows, "cleo", "bob", "ann"), 5, 2)
	if a, b := trained(long, 2), trained(other, 2); reflect.DeepEqual(a, b) {
		t.Errorf("two seeds split alike: %v", a)
	}
}

// Every row is trained on equally often over the seeds.
func TestSplitIsUniform(t *testing.T) {
	const n, m, k = 4000, 8, 3
	text := users(map[string]int{"ann": m}, "ann")
	var counts [m]float64
	for seed := range uint64(n) {
		var s population.Samples
		read(t, "features", text, k, seed).Train(0, &s)
		for _, y := range s.Y {
			counts[int(y)]++
		}
	}
	p := float64(k) / m
	for j := range counts {
		within(t, "share of a row", counts[j]/n, p, math.Sqrt(p*(1-p)/n))
	}
}

// Many goroutines read one population, each into its own storage, which is
// reused from user to user.
func TestFileServesManyGoroutines(t *testing.T) {
	rows := map[string]int{"ann": 9, "bob": 3, "cleo": 6}
	for format, text := range map[string]string{
		"features": users(rows, "ann", "bob", "cleo"),
		"ratings":  strings.Replace(users(rows, "ann", "bob", "cleo"), "x", "item", 1),
	} {
		pop := read(t, format, text, 0.5, 1)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				var dst population.Samples
				for step := range 300 {
					i := step % pop.Len()
					var train, test population.Samples
					pop.Train(i, &train)
					pop.Test(i, &test)
					if pop.Train(i, &dst); !reflect.DeepEqual(dst, train) {
						t.Errorf("%s: user %d trains on %v and on %v", format, i, dst, train)
					}
					if pop.Test(i, &dst); !reflect.DeepEqual(dst, test) {
						t.Errorf("%s: user %d is tested on %v and on %v", format, i, dst, test)
					}
				}
			})
		}
		wg.Wait()
		var dst population.Samples
		pop.Train(0, &dst)
		pop.Test(0, &dst)
		if n := testing.AllocsPerRun(10, func() { pop.Train(0, &dst); pop.Test(0, &dst) }); n != 0 {
			t.Errorf("%s: %v allocations a user", format, n)
		}
	}
}

func TestFileRefusals(t *testing.T) {
	const features, ratings = "features", "ratings"
	for _, c := range []struct{ name, format, text, want string }{
		{"empty", features, "", `file.csv: the file is empty`},
		{"only blank lines", features, "\n\n", `file.csv: the file is empty`},
		{"only a header", ratings, "user,item,rating\n", `file.csv: no rows below the header`},
		{"no header, features", features, "a,1,2\nb,3,4\n", `file.csv: row 1: no header: the first row holds numbers, and should name the columns`},
		{"no header, ratings", ratings, "a,film,2\nb,film,4\n", `file.csv: row 1: no header: the first row holds numbers, and should name the columns`},
		{"repeated column", features, "user,x, x,y\na,1,2,3\n", `file.csv: row 1, column "x": two columns of this name`},
		{"late header", features, "\n\nuser,x,x\na,1,2\n", `file.csv: row 3, column "x": two columns of this name`},
		{"unnamed column", features, "user,,y\na,1,2\n", `file.csv: row 1: column 2 has no name`},
		{"two users", features, "user,x,USER,y\na,1,2,3\n", `file.csv: row 1, column "USER": column "user" is the user already`},
		{"two responses", features, "user,y,x,target\na,1,2,3\n", `file.csv: row 1, column "target": column "y" is the response already`},
		{"no feature", features, "user,y\na,1\n", `file.csv: row 1: needs columns of the user, of one feature or more, and of the response`},
		{"no user", features, "y,x1,x2\n1,1,2\n", `file.csv: row 1: needs columns of the user, of one feature or more, and of the response`},
		{"no rating", ratings, "user,item\na,b\n", `file.csv: row 1, column "rating": no such column`},
		{"misplaced", ratings, "timestamp,user,item,stars\n1,a,b,3\n", `file.csv: row 1, column "rating": no such column`},
		{"short row", features, "user,x,y\na,1,2\na,1\n", `file.csv: row 3: the row does not have 3 fields, as the header has`},
		{"long row", features, "user,x,y\na,1,2\n\na,1,2,3\n", `file.csv: row 4: the row does not have 3 fields, as the header has`},
		{"stray quote", features, "user,x,y\na,1\"2,2\n", `file.csv: row 2: bare " in non-quoted-field`},
		{"text", features, "user,height,y\na,1,2\na,tall,2\n", `file.csv: row 3, column "height": "tall" is not a number`},
		{"missing number", features, "user,height,y\na,,2\n", `file.csv: row 2, column "height": "" is not a number`},
		{"NaN", features, "user,x,y\na,1,NaN\n", `file.csv: row 2, column "y": "NaN" is not a number`},
		{"infinity", ratings, "user,item,rating\na,b,-Inf\n", `file.csv: row 2, column "rating": "-Inf" is not a number`},
		{"overflow", ratings, "user,item,rating\na,b,1e999\n", `file.csv: row 2, column "rating": "1e999" is out of range`},
		{"nameless user", ratings, "user,item,rating\n,b,1\n", `file.csv: row 2, column "user": is empty`},
		{"nameless item", ratings, "user,item,rating\na,,1\n", `file.csv: row 2, column "item": is empty`},
		{"single rows", ratings, "user,item,rating\na,b,1\nb,b,2\n", `file.csv: every user has a single row: nothing is left to test on`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := population.ReadCSV(strings.NewReader(c.text), population.CSV{Path: "file.csv", Format: c.format, Train: 1}, 1)
			if row := (*population.RowError)(nil); !errors.As(err, &row) || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestCSVConfigRefusals(t *testing.T) {
	for _, c := range []struct {
		cfg  population.CSV
		want string
	}{
		{population.CSV{Format: "features", Train: 1}, `data: no file is named`},
		{population.CSV{Path: "f", Format: "tsv", Train: 1}, `format: "tsv" is neither features nor ratings`},
		{population.CSV{Path: "f", Format: "features"}, `train: is missing: the number of training samples of each user, or below 1 their fraction`},
		{population.CSV{Path: "f", Format: "features", Train: -3}, `train: -3 is neither a number of samples nor a fraction`},
		{population.CSV{Path: "f", Format: "features", Train: math.NaN()}, `train: NaN is neither a number of samples nor a fraction`},
		{population.CSV{Path: "f", Format: "ratings", Train: math.Inf(1)}, `train: +Inf is neither a number of samples nor a fraction`},
		{population.CSV{Path: "f", Format: "ratings", Train: 2.5}, `train: 2.5 is neither a whole number of samples nor a fraction below 1`},
	} {
		_, err := population.OpenCSV(c.cfg, 1)
		if field := (*population.FieldError)(nil); !errors.As(err, &field) || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	if _, err := population.OpenCSV(population.CSV{Path: filepath.Join(t.TempDir(), "none"), Format: "ratings", Train: 1}, 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file gives %v", err)
	}
}

// A compressed file that is cut off anywhere, or changed, is refused: it must
// never pass for a shorter one.
func TestDamagedCompression(t *testing.T) {
	whole := gzipped(school)
	open := func(content []byte) error {
		_, err := population.ReadCSV(bytes.NewReader(content), population.CSV{Path: "file.csv", Format: "features", Train: 1}, 1)
		return err
	}
	if err := open(whole); err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if row := (*population.RowError)(nil); !errors.As(open(whole[:n]), &row) {
			t.Errorf("cut off after %d bytes: %v", n, open(whole[:n]))
		}
	}
	for _, at := range []int{10, 20, len(whole) / 2, len(whole) - 6, len(whole) - 1} {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 0x55
		if row := (*population.RowError)(nil); !errors.As(open(damaged), &row) {
			t.Errorf("changed at byte %d: %v", at, open(damaged))
		}
	}
	if err := open(whole[:len(whole)-3]); err == nil || err.Error() != "file.csv: the compressed data ends early, after 6 rows" {
		t.Errorf("cut off in its trailer: %v", err)
	}
}

// checkConsistent demands what Population and OpenCSV promise of any file.
func checkConsistent(t *testing.T, pop population.Population) {
	t.Helper()
	d := pop.Dim()
	if pop.Len() < 1 || d < 1 {
		t.Fatalf("%d users of dimension %d", pop.Len(), d)
	}
	var s population.Samples
	tested := 0
	for i := range pop.Len() {
		pop.Train(i, &s)
		if len(s.Y) < 1 {
			t.Fatalf("user %d has nothing to train on", i)
		}
		checkSamples(t, &s, d)
		pop.Test(i, &s)
		checkSamples(t, &s, d)
		tested += len(s.Y)
	}
	if tested == 0 {
		t.Fatal("nothing is held out")
	}
}

func checkSamples(t *testing.T, s *population.Samples, d int) {
	t.Helper()
	if len(s.X) != len(s.Y)*s.Width(d) {
		t.Fatalf("X has %d numbers for %d responses of width %d", len(s.X), len(s.Y), s.Width(d))
	}
	for j, c := range s.Columns {
		if c < 0 || int(c) >= d || j > 0 && c <= s.Columns[j-1] {
			t.Fatalf("columns %v of %d", s.Columns, d)
		}
	}
	for _, values := range [][]float64{s.X, s.Y} {
		for _, v := range values {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				t.Fatalf("%v among the samples", v)
			}
		}
	}
}

func FuzzReadCSV(f *testing.F) {
	const ratings = "user,item,rating\na,x,1\na,y,2\nb,x,3\na,x,4\n"
	for _, text := range []string{school, ratings, "", "\ufeff", "\x1f\x8b", "user,x,y\n\"a\n\",1,2\na,1", string(gzipped(school)), string(gzipped(ratings))} {
		f.Add([]byte(text), true, 0.5)
		f.Add([]byte(text), false, 1.0)
	}
	f.Fuzz(func(t *testing.T, content []byte, features bool, train float64) {
		cfg := population.CSV{Path: "file.csv", Format: "ratings", Train: train}
		if features {
			cfg.Format = "features"
		}
		if cfg.Validate() != nil {
			t.Skip()
		}
		pop, err := population.ReadCSV(bytes.NewReader(content), cfg, 1)
		if err != nil {
			if row := (*population.RowError)(nil); !errors.As(err, &row) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("not one line about the file: %q", err)
			}
			return
		}
		checkConsistent(t, pop)
	})
}
