package cli

import (
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"

	"github.com/undertone-fl/undertone/simulations"
	"github.com/undertone-fl/undertone/simulations/report"
)

// printResult prints the tables of a result and its headline, or the whole
// as JSON.
func printResult(w io.Writer, res *simulations.Result, asJSON bool) error {
	if asJSON {
		return report.Encode(w, res)
	}
	if res.Interrupted {
		fmt.Fprint(w, "Stopped before its end: of the runs that were complete,\n\n")
	}
	for _, table := range report.Tables(res) {
		if err := printTable(w, table); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	if headline := report.Headline(res); headline != "" {
		fmt.Fprintf(w, "%s\n\n", headline)
	}
	return nil
}

func printTable(w io.Writer, table report.Table) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprint(tw, table.Metric)
	for _, e := range table.Columns {
		fmt.Fprintf(tw, "\tε = %v", e)
	}
	fmt.Fprintln(tw)
	for _, row := range table.Rows {
		fmt.Fprint(tw, row.Method)
		for _, cell := range row.Cells {
			fmt.Fprintf(tw, "\t%v", cell)
		}
		fmt.Fprintln(tw)
	}
	return tw.Flush()
}

// printNotes says where the files are, and what the run took.
func printNotes(w io.Writer, res *simulations.Result, out string) error {
	if out != "" {
		fmt.Fprintf(w, "report: %s\nresult: %s\n",
			filepath.Join(out, report.HTMLFile), filepath.Join(out, report.ResultFile))
	}
	_, err := fmt.Fprintf(w, "time:   %s\n", report.Timing(res))
	return err
}
