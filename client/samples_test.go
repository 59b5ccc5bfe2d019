package client_test

import (
	"compress/gzip"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/undertone-fl/undertone/client"
	"github.com/undertone-fl/undertone/client/local"
)

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "samples.csv")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRows(t *testing.T) {
	for name, c := range map[string]struct {
		rows []client.Row
		want local.Samples
	}{
		"dense":  {[]client.Row{{X: []float64{1, 2, 3}, Y: 4}, {X: []float64{5, 6, 7}, Y: 8}}, local.Samples{X: []float64{1, 2, 3, 5, 6, 7}, Y: []float64{4, 8}}},
		"sparse": {[]client.Row{{X: []float64{7, 5}, Columns: []int32{2, 0}, Y: 1}, {X: []float64{6}, Columns: []int32{2}, Y: 2}}, local.Samples{X: []float64{5, 7, 0, 6}, Y: []float64{1, 2}, Columns: []int32{0, 2}}},
		"mixed":  {[]client.Row{{X: []float64{1, 2, 3}}, {X: []float64{6}, Columns: []int32{1}}}, local.Samples{X: []float64{1, 2, 3, 0, 6, 0}, Y: []float64{0, 0}, Columns: []int32{0, 1, 2}}},
		"none":   {nil, local.Samples{X: []float64{}, Y: []float64{}}},
	} {
		got, err := client.Rows(slices.Values(c.rows))("job", 3)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := client.Rows(slices.Values([]client.Row{{X: []float64{1}}}))("job", 3); !errors.Is(err, local.ErrSamples) {
		t.Errorf("a short row: %v", err)
	}
}

func TestFeaturesCSV(t *testing.T) {
	path := file(t, "a,y,b\n1,2,3\n4,5,6\n")
	got, err := client.CSV(path, client.Features, nil)("job", 2)
	want := local.Samples{X: []float64{1, 3, 4, 6}, Y: []float64{2, 5}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	// It is read anew: what has come since counts.
	if err := os.WriteFile(path, []byte("a,b,y\n1,2,3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err = client.CSV(path, client.Features, nil)("job", 2); err != nil || len(got.Y) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRatingsCSV(t *testing.T) {
	const text = "user,item,rating,when\nann,tea,4,1\nbob,beer,5,2\nann,beer,1,3\n"
	path := filepath.Join(t.TempDir(), "ratings.csv.gz")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(f)
	fmt.Fprint(z, text)
	z.Close()
	f.Close()
	table, err := client.OpenTable(path, client.Ratings, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := table.Users(); !slices.Equal(got, []string{"ann", "bob"}) {
		t.Errorf("users %v", got)
	}
	got, err := table.Samples("ann")("job", 3)
	want := local.Samples{X: []float64{1, 0, 1, 0, 1, 1}, Y: []float64{4, 1}, Columns: []int32{0, 1, 2}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := table.Samples("ann")("job", 4); !errors.Is(err, local.ErrSamples) {
		t.Errorf("another catalogue: %v", err)
	}
	items, err := client.ReadItems(file(t, "beer\r\nwine\ntea\n"))
	if err != nil {
		t.Fatal(err)
	}
	if table, err = client.OpenTable(path, client.Ratings, items); err != nil {
		t.Fatal(err)
	}
	if got, err := table.Samples("bob")("job", 4); err != nil || !slices.Equal(got.Columns, []int32{0, 3}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestHoldOut(t *testing.T) {
	var text strings.Builder
	text.WriteString("user,item,rating\n")
	for i := range 10 {
		fmt.Fprintf(&text, "ann,%d,%d\n", i, i)
	}
	text.WriteString("bob,3,1\n")
	table, err := client.OpenTable(file(t, text.String()), client.Ratings, nil)
	if err != nil {
		t.Fatal(err)
	}
	held := table.HoldOut(0.8, 1)
	if len(table.Rows("ann")) != 8 || len(held.Rows("ann")) != 2 || len(table.Rows("bob")) != 1 || len(held.Rows("bob")) != 0 {
		t.Errorf("ann %d and %d, bob %d and %d", len(table.Rows("ann")), len(held.Rows("ann")), len(table.Rows("bob")), len(held.Rows("bob")))
	}
}

// TestCSVMistakes name the file, the row and the column.
func TestCSVMistakes(t *testing.T) {
	for _, c := range []struct {
		format     client.Format
		text, want string
	}{
		{client.Features, "", "the file is empty"},
		{client.Features, "a,y\n", "no rows"},
		{client.Features, "1,2\n3,4\n", "row 1: no header"},
		{client.Features, "y\n1\n", "row 1: needs columns"},
		{client.Features, "a,y\n1,x\n", `row 2, column "y": "x" is not a number`},
		{client.Features, "a,y\n1,NaN\n", `row 2, column "y": "NaN" is not a number`},
		{client.Features, "a,y\n1,2\n1\n", "row 3: wrong number of fields"},
		{client.Features, "a,y\n\"1,2\n", "row 2: "},
		{client.Features, "user,a,y\n,1,2\n", `row 2, column "user": is empty`},
		{client.Ratings, "user,a,b\n1,2,3\n", "row 1: no columns called item and rating"},
		{client.Ratings, "item,rating\n,3\n", `row 2, column "item": is empty`},
		{client.Ratings, "\x1f\x8bnothing", "unexpected EOF"},
	} {
		path := file(t, c.text)
		_, err := client.OpenTable(path, c.format, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%q: got %v, want %s", c.text, err, c.want)
		}
	}
	if _, err := client.OpenTable(file(t, "item,rating\ntea,3\n"), client.Ratings, []string{"beer"}); err == nil || !strings.Contains(err.Error(), "catalogue") {
		t.Errorf("%v", err)
	}
	if _, err := client.CSV(file(t, "user,a,y\nann,1,2\nbob,1,2\n"), client.Features, nil)("job", 1); err == nil || !strings.Contains(err.Error(), "2 users") {
		t.Errorf("%v", err)
	}
}

// FuzzTable: whatever a file holds, it is refused with an error, or is rows of
// finite numbers.
func FuzzTable(f *testing.F) {
	f.Add([]byte("user,a,b,y\nann,1,2,3\nbob,4,5,6\n"), true)
	f.Add([]byte("user,item,rating,when\nann,tea,4,1\nbob,beer,5,2\n"), false)
	f.Add([]byte{0x1f, 0x8b, 8, 0}, true)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content []byte, features bool) {
		file, err := os.CreateTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(file.Name())
		if _, err = file.Write(content); err != nil {
			t.Fatal(err)
		}
		file.Close()
		format := client.Ratings
		if features {
			format = client.Features
		}
		table, err := client.OpenTable(file.Name(), format, nil)
		if err != nil {
			return
		}
		for _, user := range table.Users() {
			for _, r := range table.Rows(user) {
				for _, v := range append([]float64{r.Y}, r.X...) {
					if math.IsNaN(v) || math.IsInf(v, 0) {
						t.Errorf("%q: %v", user, r)
					}
				}
			}
		}
	})
}
