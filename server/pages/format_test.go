package pages_test

import (
	"encoding/csv"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestFormatIsDocumented: every table and its columns are in FORMAT.md, and no others.
func TestFormatIsDocumented(t *testing.T) {
	text, err := os.ReadFile("FORMAT.md")
	must(t, err)
	n := serve(t)
	c := n.browser(t, &carol)
	quoted := regexp.MustCompile("`([^`]+)`")
	documented := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.Contains(cells[1], "`/") {
			continue
		}
		table := strings.Trim(cells[2], " `")
		var columns []string
		for _, m := range quoted.FindAllStringSubmatch(cells[3], -1) {
			columns = append(columns, m[1])
		}
		for _, m := range quoted.FindAllStringSubmatch(cells[1], -1) {
			path := strings.Replace(m[1], "JOB", films, 1) + "/" + table + ".csv"
			documented[path] = true
			_, body := n.get(t, c, path)
			header, err := csv.NewReader(strings.NewReader(body)).Read()
			if err != nil || !slices.Equal(header, columns) {
				t.Errorf("%s has the columns %v, %v", path, header, err)
			}
		}
	}
	for _, page := range shownPages {
		_, body := n.get(t, c, page)
		for _, m := range regexp.MustCompile(`href="(/[^"]+\.csv)"`).FindAllStringSubmatch(body, -1) {
			if path := strings.Replace(m[1], "songs", films, 1); !documented[path] {
				t.Errorf("%s is not in FORMAT.md", m[1])
			}
		}
	}
}
