package pages

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// table is rows that people see on a page and programs fetch: the same ones as HTML, CSV
// and JSON.
type table struct {
	name    string // of its files
	Caption string
	Note    string // what to know before reading it
	columns []column
	rows    [][]cell
	Empty   string // what is said where there are no rows
	// Explains says that a row is a name and what is to be said of it: it has no need of
	// columns where there is no room for them.
	Explains bool
}

type column struct {
	key  string // in files; with its unit
	Head string
	// Numeric columns are flush right.
	Numeric bool
	// inFiles columns are in files alone: a page has no room for them.
	inFiles bool
}

// cell is a value, as programs read it, and its text for people where that differs.
type cell struct {
	value any // string, bool, an integer, float64, or nil: there is none
	text  string
	Link  string // where it leads
	Class string // of its looks: "released", "failed", ...
}

// Text is what people see.
func (c cell) Text() string {
	switch {
	case c.text != "":
		return c.text
	case c.value == nil:
		return "–"
	}
	return c.plain()
}

// Title is what is seen of a text that was shortened.
func (c cell) Title() string {
	if c.text == "" || c.Class != "digest" {
		return ""
	}
	return c.plain()
}

// inCSV is the value in a CSV file. Text that a spreadsheet would take for a formula, and
// compute, is led by an apostrophe: some of it is what others have chosen.
func (c cell) inCSV() string {
	s, isText := c.value.(string)
	if isText && s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return c.plain()
}

// plain is the value in full.
func (c cell) plain() string {
	switch v := c.value.(type) {
	case nil:
		return ""
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	default:
		return fmt.Sprint(v)
	}
}

// dropEmpty leaves columns that have no value in any row out of pages.
func (t *table) dropEmpty() {
	for i := range t.columns {
		c := &t.columns[i]
		c.inFiles = c.inFiles || !slices.ContainsFunc(t.rows, func(row []cell) bool { return row[i].value != nil })
	}
}

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

// text is a cell of one word or many.
func text(s string) cell { return cell{value: s} }

// number is a cell of a float, shown to three digits. What is not finite is no value, in
// files.
func number(x float64) cell {
	if math.IsInf(x, 0) || math.IsNaN(x) {
		return cell{text: significant(x)}
	}
	return cell{value: x, text: significant(x)}
}

// integer is a cell of a whole number.
func integer[T ~int | ~int64 | ~uint64](n T) cell { return cell{value: n, text: whole(n)} }

// when is a cell of an RFC 3339 time, which may be empty.
func when(rfc3339 string) cell {
	if rfc3339 == "" {
		return cell{}
	}
	return cell{value: rfc3339, text: moment(rfc3339)}
}

// digest is a cell of hexadecimal digits, which may be none.
func digest(hex string) cell {
	if hex == "" {
		return cell{}
	}
	return cell{value: hex, text: brief(hex), Class: "digest"}
}

// writeCSV writes all rows under the columns' keys (RFC 4180).
func (t *table) writeCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	out.UseCRLF = true
	record := make([]string, len(t.columns))
	for i, c := range t.columns {
		record[i] = c.key
	}
	_ = out.Write(record) // Flush has its error
	for _, row := range t.rows {
		for i, c := range row {
			record[i] = c.inCSV()
		}
		_ = out.Write(record)
	}
	out.Flush()
	return out.Error()
}

// writeJSON writes all rows, an array of objects whose names are the columns' keys.
func (t *table) writeJSON(w io.Writer) error {
	var b bytes.Buffer
	b.WriteByte('[')
	for i, row := range t.rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n {")
		for k, c := range row {
			if k > 0 {
				b.WriteString(", ")
			}
			value, err := json.Marshal(c.value)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%q: %s", t.columns[k].key, value)
		}
		b.WriteByte('}')
	}
	b.WriteString("\n]\n")
	_, err := b.WriteTo(w)
	return err
}

// pageRows is how many rows of a table a page shows at a time.
const pageRows = 200

// shown is a table as a page shows it.
type shown struct {
	*table
	ID       string // unique on the page
	of       string // the ID of the heading that says whose table it is; empty: there is one whose
	Level    int    // of its heading
	path     string // of the table's page, without a slash at its end; empty: of a file that stands alone
	from, to int    // rows
	query    url.Values
}

// show picks the rows that a request asks for: a parameter of the table's name counts
// pages of rows, from 1.
func (t *table) show(id string, level int, path string, query url.Values) *shown {
	s := &shown{table: t, ID: id, Level: level, path: path, query: query, to: len(t.rows)}
	if path == "" { // all there is to see
		return s
	}
	if n, err := strconv.Atoi(query.Get(id)); err == nil && n > 1 && n <= s.pages() {
		s.from = (n - 1) * pageRows
	}
	s.to = min(s.from+pageRows, len(t.rows))
	return s
}

func (s *shown) pages() int { return (len(s.rows) + pageRows - 1) / pageRows }

// Label is the IDs of what names the table among all on the page.
func (s *shown) Label() string {
	if s.of == "" {
		return s.ID + "-caption"
	}
	return s.of + " " + s.ID + "-caption"
}

// Columns, Rows, CSV and the following are for templates.
func (s *shown) Columns() []column { return shownOf(s, s.columns) }
func (s *shown) CSV() string       { return s.file(".csv") }
func (s *shown) JSON() string      { return s.file(".json") }

func (s *shown) Rows() [][]cell {
	rows := make([][]cell, 0, s.to-s.from)
	for _, row := range s.rows[s.from:s.to] {
		rows = append(rows, shownOf(s, row))
	}
	return rows
}

// shownOf leaves out what is in files alone.
func shownOf[T any](s *shown, row []T) (some []T) {
	for i, c := range row {
		if !s.columns[i].inFiles {
			some = append(some, c)
		}
	}
	return some
}

func (s *shown) file(extension string) string {
	if s.path == "" {
		return ""
	}
	return s.path + "/" + s.name + extension
}

// Some says which rows these are, if they are not all.
func (s *shown) Some() string {
	if s.to-s.from == len(s.rows) {
		return ""
	}
	return fmt.Sprintf("Rows %s to %s of %s.", whole(s.from+1), whole(s.to), whole(len(s.rows)))
}

// Earlier and Later are the addresses of the rows before and after these, if there are any.
func (s *shown) Earlier() string { return s.at(s.from/pageRows, s.from > 0) }
func (s *shown) Later() string   { return s.at(s.from/pageRows+2, s.to < len(s.rows)) }

func (s *shown) at(page int, exists bool) string {
	if !exists {
		return ""
	}
	query := url.Values{}
	for k, v := range s.query {
		query[k] = v
	}
	query.Set(s.ID, strconv.Itoa(page))
	return "?" + query.Encode() + "#" + s.ID
}
