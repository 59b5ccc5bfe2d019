package population

import "fmt"

// FieldError is a mistake in a Synthetic or a CSV. Field is the name of the
// command's flag; in JSON its dashes are underscores.
type FieldError struct {
	Field   string
	Problem string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

// RowError is a mistake in a file. Row is the line of the file, from 1, where
// the row begins (or the field, if the mistake is in one), and 0 for the file
// as a whole. Column is the name of the field's column, if it is one field's.
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
