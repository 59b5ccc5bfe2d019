package population

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/flate"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// OpenCSV reads a file, plain or gzipped, whose format and split the package
// comment describes. What it keeps is as large as the file.
//
// A mistake in cfg is a *FieldError, one in the file a *RowError; a file that
// cannot be opened or read gives the error of package os.
func OpenCSV(cfg CSV, seed uint64) (Population, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	f, err := os.Open(cfg.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readCSV(f, cfg, seed)
}

// largestValue bounds the numbers of a population, so that sums of their
// squares and products stay far from overflow.
const largestValue = 1e30

// Validate returns the first mistake in c, as a *FieldError.
func (c CSV) Validate() error {
	switch {
	case c.Path == "":
		return &FieldError{"data", "no file is named"}
	case c.Format == "":
		return &FieldError{"format", "is missing: features or ratings"}
	case c.Format != "features" && c.Format != "ratings":
		return &FieldError{"format", fmt.Sprintf("%q is neither features nor ratings", c.Format)}
	case c.Train == 0:
		return &FieldError{"train", "is missing: the number of training samples of each user, or below 1 their fraction"}
	case !(c.Train > 0) || math.IsInf(c.Train, 0):
		return &FieldError{"train", fmt.Sprintf("%v is neither a number of samples nor a fraction", c.Train)}
	case c.Train >= 1 && c.Train != math.Trunc(c.Train):
		return &FieldError{"train", fmt.Sprintf("%v is neither a whole number of samples nor a fraction below 1", c.Train)}
	}
	return nil
}

func readCSV(file io.Reader, cfg CSV, seed uint64) (Population, error) {
	t, err := newTable(file, cfg.Path)
	if err != nil {
		return nil, err
	}
	var pop interface {
		Population
		read(*table) error
		divide(t *table, train float64, seed uint64)
	}
	switch cfg.Format {
	case "features":
		pop = &features{}
	case "ratings":
		pop = &ratings{}
	}
	if err := pop.read(t); err != nil {
		return nil, err
	}
	if len(t.users) == 0 {
		return nil, t.fileError("no rows below the header")
	}
	if len(t.users) == len(t.keys) {
		return nil, t.fileError("every user has a single row: nothing is left to test on")
	}
	pop.divide(t, cfg.Train, seed)
	return pop, nil
}

// table reads a CSV file row by row, and numbers its users.
type table struct {
	path   string
	csv    *csv.Reader
	header []string
	line   int      // of the header
	record []string // the current row

	numbers map[string]int32 // of users
	keys    []uint64         // hash of each user's name
	users   []int32          // whose each row is
}

func newTable(file io.Reader, path string) (*table, error) {
	t := &table{path: path, numbers: map[string]int32{}}
	text, err := decompress(file)
	if err != nil {
		return nil, t.readError(err)
	}
	t.csv = csv.NewReader(text)
	t.csv.ReuseRecord = true
	t.csv.TrimLeadingSpace = true
	row, err := t.csv.Read()
	if err == io.EOF {
		return nil, t.fileError("the file is empty")
	}
	if err != nil {
		return nil, t.readError(err)
	}
	t.line, _ = t.csv.FieldPos(0)
	for i, name := range row {
		name = strings.TrimSpace(name)
		if name == "" {
			return nil, t.headerError("", fmt.Sprintf("column %d has no name", i+1))
		}
		if !isText(name) {
			return nil, t.headerError("", fmt.Sprintf("the name of column %d is not UTF-8 text", i+1))
		}
		if slices.Contains(t.header, name) {
			return nil, t.headerError(name, "two columns of this name")
		}
		t.header = append(t.header, name)
	}
	return t, nil
}

// isText tells text from other encodings of it, and from binary data.
func isText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// decompress tells a gzipped file by its first bytes, and drops the byte
// order mark that spreadsheets put before text.
func decompress(file io.Reader) (io.Reader, error) {
	text := bufio.NewReader(file)
	if magic, _ := text.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(text)
		if err != nil {
			return nil, err
		}
		text = bufio.NewReader(z)
	}
	if mark, _ := text.Peek(3); string(mark) == "\ufeff" {
		text.Discard(3)
	}
	return text, nil
}

// next reads the next row; false without an error is the end.
func (t *table) next() (bool, error) {
	record, err := t.csv.Read()
	if err == io.EOF {
		return false, nil
	}
	if err != nil {
		return false, t.readError(err)
	}
	t.record = record
	if len(t.users) == math.MaxInt32 {
		return false, t.fileError("too many rows")
	}
	return true, nil
}

// user files the current row under the user named in a column.
func (t *table) user(column int) error {
	number, isNew, err := t.number(t.numbers, column)
	if isNew {
		h := fnv.New64a()
		io.WriteString(h, strings.TrimSpace(t.record[column]))
		t.keys = append(t.keys, h.Sum64())
	}
	t.users = append(t.users, number)
	return err
}

// number returns the number of the name in a column, in order of first
// appearance.
func (t *table) number(numbers map[string]int32, column int) (n int32, isNew bool, err error) {
	name := strings.TrimSpace(t.record[column])
	if n, known := numbers[name]; known {
		return n, false, nil
	}
	if name == "" {
		return 0, false, t.rowError(column, "is empty")
	}
	if !isText(name) {
		return 0, false, t.rowError(column, fmt.Sprintf("%q is not UTF-8 text", name))
	}
	n = int32(len(numbers))
	numbers[strings.Clone(name)] = n // name holds on to its whole row
	return n, true, nil
}

// float parses a field of the current row.
func (t *table) float(column int) (float64, error) {
	field := strings.TrimSpace(t.record[column])
	v, err := strconv.ParseFloat(field, 64)
	if errors.Is(err, strconv.ErrRange) {
		return 0, t.rowError(column, fmt.Sprintf("%q is out of range", field))
	}
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, t.rowError(column, fmt.Sprintf("%q is not a number", field))
	}
	if math.Abs(v) > largestValue {
		return 0, t.rowError(column, fmt.Sprintf("%q is more than %g", field, largestValue))
	}
	return v, nil
}

// column returns the column with one of the names in any case, or -1.
func (t *table) column(names ...string) (int, error) {
	at := -1
	for c, header := range t.header {
		if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(header, n) }) {
			continue
		}
		if at >= 0 {
			return -1, t.headerError(header, fmt.Sprintf("column %q is the %s already", t.header[at], names[0]))
		}
		at = c
	}
	return at, nil
}

// checkHeader refuses a first row whose response is a number: it is data.
func (t *table) checkHeader(response int) error {
	if _, err := strconv.ParseFloat(t.header[response], 64); err == nil {
		return t.headerError("", "no header: the first row holds numbers, and should name the columns")
	}
	return nil
}

func (t *table) rowError(column int, problem string) error {
	line, _ := t.csv.FieldPos(column)
	return &RowError{t.path, line, t.header[column], problem}
}

func (t *table) headerError(column, problem string) error {
	return &RowError{t.path, t.line, column, problem}
}

func (t *table) fileError(problem string) error { return &RowError{Path: t.path, Problem: problem} }

// readError states what is wrong with a row, or with the compression.
func (t *table) readError(err error) error {
	var parse *csv.ParseError
	switch {
	case errors.Is(err, csv.ErrFieldCount) && errors.As(err, &parse):
		return &RowError{t.path, parse.Line, "", fmt.Sprintf("the row does not have %d fields, as the header has", len(t.header))}
	case errors.As(err, &parse):
		return &RowError{t.path, parse.Line, "", parse.Err.Error()}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return t.fileError(fmt.Sprintf("the compressed data ends early, after %d rows", len(t.users)))
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, new(flate.CorruptInputError)):
		return t.fileError(fmt.Sprintf("the compressed data is damaged, after %d rows: %v", len(t.users), err))
	}
	return err
}

// features is a population of dense rows.
type features struct {
	split
	d    int
	x, y []float64 // by row of the file
}

func (p *features) read(t *table) error {
	user, response, err := t.featureColumns()
	if err != nil {
		return err
	}
	p.d = len(t.header) - 2
	for {
		if ok, err := t.next(); !ok {
			return err
		}
		if err := t.user(user); err != nil {
			return err
		}
		for c := range t.record {
			if c == user {
				continue
			}
			v, err := t.float(c)
			if err != nil {
				return err
			}
			if c == response {
				p.y = append(p.y, v)
			} else {
				p.x = append(p.x, v)
			}
		}
	}
}

// featureColumns finds the user and the response: by name, else first and
// last.
func (t *table) featureColumns() (user, response int, err error) {
	if user, err = t.column("user"); err != nil {
		return 0, 0, err
	}
	if response, err = t.column("response", "y", "target"); err != nil {
		return 0, 0, err
	}
	last := len(t.header) - 1
	if response < 0 && user == last {
		last--
	}
	if response < 0 {
		response = last
	}
	user = max(user, 0)
	if len(t.header) < 3 || user == response {
		return 0, 0, t.headerError("", "needs columns of the user, of one feature or more, and of the response")
	}
	return user, response, t.checkHeader(response)
}

func (p *features) divide(t *table, train float64, seed uint64) {
	p.split = newSplit(t.users, t.keys, train, seed, cmp.Compare[int32])
}

func (p *features) Dim() int                  { return p.d }
func (p *features) Train(i int, dst *Samples) { p.gather(p.train(i), dst) }
func (p *features) Test(i int, dst *Samples)  { p.gather(p.test(i), dst) }

func (p *features) gather(rows []int32, dst *Samples) {
	dst.X, dst.Y, dst.Columns = dst.X[:0], dst.Y[:0], nil
	for _, row := range rows {
		dst.X = append(dst.X, p.x[int(row)*p.d:(int(row)+1)*p.d]...)
		dst.Y = append(dst.Y, p.y[row])
	}
}

// ratings is a population of one-hot items and a constant.
type ratings struct {
	split
	items int
	item  []int32   // by row of the file
	y     []float64 // by row of the file
}

func (p *ratings) read(t *table) error {
	user, item, rating, err := t.ratingColumns()
	if err != nil {
		return err
	}
	items := map[string]int32{}
	for {
		if ok, err := t.next(); !ok {
			p.items = len(items)
			return err
		}
		if err := t.user(user); err != nil {
			return err
		}
		n, _, err := t.number(items, item)
		if err != nil {
			return err
		}
		v, err := t.float(rating)
		if err != nil {
			return err
		}
		p.item = append(p.item, n)
		p.y = append(p.y, v)
	}
}

// ratingColumns finds the three columns by their names, or takes the first
// three if no name contradicts that.
func (t *table) ratingColumns() (user, item, rating int, err error) {
	names := [3]string{"user", "item", "rating"}
	var at [3]int
	missing, moved := "", len(t.header) < 3
	for i, name := range names {
		if at[i], err = t.column(name); err != nil {
			return 0, 0, 0, err
		}
		if at[i] < 0 {
			missing = cmp.Or(missing, name)
		} else if at[i] != i {
			moved = true
		}
	}
	if missing != "" {
		if moved {
			return 0, 0, 0, t.headerError(missing, "no such column")
		}
		at = [3]int{0, 1, 2}
	}
	return at[0], at[1], at[2], t.checkHeader(at[2])
}

// divide puts the rows of each part in the order of their items, as gather
// wants them.
func (p *ratings) divide(t *table, train float64, seed uint64) {
	p.split = newSplit(t.users, t.keys, train, seed, func(a, b int32) int {
		return cmp.Or(cmp.Compare(p.item[a], p.item[b]), cmp.Compare(a, b))
	})
}

// Dim counts the items and the constant, which comes last.
func (p *ratings) Dim() int                  { return p.items + 1 }
func (p *ratings) Train(i int, dst *Samples) { p.gather(p.train(i), dst) }
func (p *ratings) Test(i int, dst *Samples)  { p.gather(p.test(i), dst) }

func (p *ratings) gather(rows []int32, dst *Samples) {
	dst.Y, dst.Columns = dst.Y[:0], dst.Columns[:0]
	for _, row := range rows {
		if item, n := p.item[row], len(dst.Columns); n == 0 || dst.Columns[n-1] != item {
			dst.Columns = append(dst.Columns, item)
		}
		dst.Y = append(dst.Y, p.y[row])
	}
	dst.Columns = append(dst.Columns, int32(p.items))

	width := len(dst.Columns)
	dst.X = resize(dst.X, len(rows)*width)
	clear(dst.X)
	column := 0
	for j, row := range rows {
		if dst.Columns[column] != p.item[row] {
			column++
		}
		dst.X[j*width+column] = 1
		dst.X[(j+1)*width-1] = 1
	}
}
