package client

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/undertone-fl/undertone/client/local"
)

// Format of a CSV file of samples, whose header names the columns, in any case. A
// file may be gzipped.
type Format string

const (
	// Features is a sample a row: the response is the column called response, y
	// or target, else the last; a column called user says whose row it is; the
	// others are the features, in their order.
	Features Format = "features"
	// Ratings is a rating a row, in columns called item, rating and, where there
	// is one, user; others are ignored. A sample's features are 1 for its item and
	// 1 for a constant, which is the last of d = items + 1.
	Ratings Format = "ratings"
)

// Table is a CSV file of samples, of one user or of many.
type Table struct {
	path  string
	users []string         // in order of appearance; one, "", without such a column
	rows  map[string][]Row // by user
	items int              // of Ratings: the catalogue's
}

// RowError is a mistake in a file. Row is the line where it begins, 0 for the file
// as a whole.
type RowError struct {
	Path    string
	Row     int
	Column  string
	Problem string
}

func (e *RowError) Error() string {
	where := e.Path
	if e.Row > 0 {
		where += fmt.Sprintf(": row %d", e.Row)
	}
	if e.Column != "" {
		where += fmt.Sprintf(", column %q", e.Column)
	}
	return where + ": " + e.Problem
}

// CSV are the samples of the only user of a file, which is read anew whenever they
// are needed. See OpenTable.
func CSV(path string, format Format, items []string) Samples {
	return func(job string, d int) (local.Samples, error) {
		t, err := OpenTable(path, format, items)
		if err != nil {
			return local.Samples{}, err
		}
		if len(t.users) != 1 {
			return local.Samples{}, &RowError{Path: path, Problem: fmt.Sprintf("it has the samples of %d users", len(t.users))}
		}
		return t.Samples(t.users[0])(job, d)
	}
}

// OpenTable reads a file. Items is the public catalogue of Ratings, in the order of
// the job's features; without one, items count in the order of their first
// appearance, which serves a file that holds all users. Fails with a *RowError, or
// the error of package os.
func OpenTable(path string, format Format, items []string) (*Table, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	t := &Table{path: path, rows: map[string][]Row{}}
	if err := t.read(file, format, items); err != nil {
		return nil, err
	}
	if len(t.users) == 0 {
		return nil, &RowError{Path: path, Problem: "no rows below the header"}
	}
	return t, nil
}

// ReadItems reads a catalogue: an item a line.
func ReadItems(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var items []string
	seen := map[string]bool{}
	for i, line := range strings.Split(strings.TrimRight(string(data), "\r\n"), "\n") {
		name := strings.TrimSpace(line)
		if name == "" || seen[name] {
			return nil, &RowError{Path: path, Row: i + 1, Problem: fmt.Sprintf("%q is empty, or there already", name)}
		}
		seen[name] = true
		items = append(items, name)
	}
	return items, nil
}

// Users are the names of a file's users, in order of appearance.
func (t *Table) Users() []string { return slices.Clone(t.users) }

// Rows are the samples of a user.
func (t *Table) Rows(user string) []Row { return t.rows[user] }

// Samples are those of a user; there may be none.
func (t *Table) Samples(user string) Samples {
	return func(_ string, d int) (local.Samples, error) {
		if t.items > 0 && t.items+1 != d {
			return local.Samples{}, fmt.Errorf("%w: %s: %d items and a constant, for %d features", local.ErrSamples, t.path, t.items, d)
		}
		return gather(slices.Values(t.rows[user]), d)
	}
}

// HoldOut takes rows of every user out of the table, and returns them as another
// one: what is left is the first train of the user's rows (a number from 1 up, or
// a fraction), in an order that the seed and the user's name decide. A user with
// two rows or more keeps one and has one held out.
func (t *Table) HoldOut(train float64, seed uint64) *Table {
	held := &Table{path: t.path, users: t.users, rows: map[string][]Row{}, items: t.items}
	for user, rows := range t.rows {
		h := fnv.New64a()
		io.WriteString(h, user)
		rows = slices.Clone(rows)
		rand.New(rand.NewPCG(seed, h.Sum64())).Shuffle(len(rows), func(a, b int) { rows[a], rows[b] = rows[b], rows[a] })
		n := train
		if n < 1 {
			n = math.Round(n * float64(len(rows)))
		}
		kept := max(1, int(min(n, float64(len(rows)-1))))
		t.rows[user], held.rows[user] = rows[:kept], rows[kept:]
	}
	return held
}

// largestValue bounds the numbers of a file, so that sums of their squares stay far
// from overflow.
const largestValue = 1e30

func (t *Table) read(file io.Reader, format Format, items []string) error {
	text, err := t.decompress(file)
	if err != nil {
		return err
	}
	reader := csv.NewReader(text)
	reader.ReuseRecord, reader.TrimLeadingSpace = true, true
	first, err := reader.Read()
	if err == io.EOF {
		return &RowError{Path: t.path, Problem: "the file is empty"}
	}
	if err != nil {
		return t.readError(err)
	}
	header := slices.Clone(first)
	for i := range header {
		header[i] = strings.TrimSpace(header[i])
	}
	c, err := t.columns(header, format)
	if err != nil {
		return err
	}
	number := map[string]int32{}
	for i, name := range items {
		number[name] = int32(i)
	}
	for {
		record, err := reader.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return t.readError(err)
		}
		problem := func(column int, text string) error {
			line, _ := reader.FieldPos(column)
			return &RowError{t.path, line, header[column], text}
		}
		value := func(column int) (float64, error) {
			field := strings.TrimSpace(record[column])
			v, err := strconv.ParseFloat(field, 64)
			if err != nil || !(math.Abs(v) <= largestValue) {
				return 0, problem(column, fmt.Sprintf("%q is not a number up to %g", field, largestValue))
			}
			return v, nil
		}
		var row Row
		if row.Y, err = value(c.response); err != nil {
			return err
		}
		for _, f := range c.features {
			v, err := value(f)
			if err != nil {
				return err
			}
			row.X = append(row.X, v)
		}
		if format == Ratings {
			name := strings.TrimSpace(record[c.item])
			n, known := number[name]
			switch {
			case known:
			case items != nil:
				return problem(c.item, fmt.Sprintf("%q is not in the catalogue", name))
			case name == "":
				return problem(c.item, "is empty")
			default:
				n = int32(len(number))
				number[strings.Clone(name)] = n
			}
			row.X, row.Columns = []float64{1}, []int32{n}
		}
		user := ""
		if c.user >= 0 {
			if user = strings.TrimSpace(record[c.user]); user == "" {
				return problem(c.user, "is empty")
			}
		}
		if _, known := t.rows[user]; !known {
			user = strings.Clone(user)
			t.users = append(t.users, user)
		}
		t.rows[user] = append(t.rows[user], row)
	}
	if format == Ratings {
		t.finish(len(number))
	}
	return nil
}

// finish gives ratings their constant, now that the number of items is known.
func (t *Table) finish(items int) {
	t.items = items
	for _, rows := range t.rows {
		for i := range rows {
			rows[i].X = []float64{1, 1}
			rows[i].Columns = []int32{rows[i].Columns[0], int32(items)}
		}
	}
}

// columns are where a file has what; -1 is nowhere.
type columns struct {
	user, item, response int
	features             []int
}

func (t *Table) columns(header []string, format Format) (columns, error) {
	at := func(names ...string) int {
		return slices.IndexFunc(header, func(h string) bool {
			return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(h, n) })
		})
	}
	mistake := func(text string) error { return &RowError{t.path, 1, "", text} }
	c := columns{user: at("user"), item: -1}
	switch format {
	case Ratings:
		c.item, c.response = at("item"), at("rating")
		if c.item < 0 || c.response < 0 {
			return c, mistake("no columns called item and rating")
		}
		return c, nil
	case Features:
	default:
		return c, &ConfigError{"format", fmt.Sprintf("%q is neither features nor ratings", format)}
	}
	if c.response = at("response", "y", "target"); c.response < 0 {
		c.response = len(header) - 1
	}
	for i := range header {
		if i != c.user && i != c.response {
			c.features = append(c.features, i)
		}
	}
	if len(c.features) == 0 || c.user == c.response {
		return c, mistake("needs columns of one feature or more, and of the response")
	}
	if _, err := strconv.ParseFloat(header[c.response], 64); err == nil {
		return c, mistake("no header: the first row holds numbers, and should name the columns")
	}
	return c, nil
}

// decompress tells a gzipped file by its first bytes, and drops a byte order mark.
func (t *Table) decompress(file io.Reader) (io.Reader, error) {
	text := bufio.NewReader(file)
	if magic, _ := text.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(text)
		if err != nil {
			return nil, t.readError(err)
		}
		text = bufio.NewReader(z)
	}
	if mark, _ := text.Peek(3); string(mark) == "\ufeff" {
		text.Discard(3)
	}
	return text, nil
}

// readError says what is wrong with a row, or with the compression.
func (t *Table) readError(err error) error {
	var parse *csv.ParseError
	if errors.As(err, &parse) {
		return &RowError{t.path, cmp.Or(parse.StartLine, parse.Line), "", parse.Err.Error()}
	}
	var path *os.PathError
	if errors.As(err, &path) {
		return err
	}
	return &RowError{Path: t.path, Problem: err.Error()}
}
