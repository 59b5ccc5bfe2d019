package cli

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/undertone-fl/undertone/simulations"
)

// reportEvery is the time between lines of progress where there is no
// terminal; a shorter run prints none.
const reportEvery = 10 * time.Second

// progress shows a run's progress: a bar on a terminal, a line now and then
// elsewhere, or nothing.
type progress struct {
	update func(simulations.Progress)
	finish func()
}

// newProgress counts in a unit: "client-rounds".
func newProgress(w io.Writer, quiet bool, unit string) progress {
	if quiet {
		return progress{func(simulations.Progress) {}, func() {}}
	}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return newBar(w, unit)
	}
	return newLines(w, time.Now, unit)
}

func newBar(w io.Writer, unit string) progress {
	var bar *progressbar.ProgressBar
	return progress{
		update: func(p simulations.Progress) {
			if bar == nil {
				bar = progressbar.NewOptions64(p.Total,
					progressbar.OptionSetWriter(w),
					progressbar.OptionSetWidth(20),
					progressbar.OptionShowIts(),
					progressbar.OptionSetItsString(unit),
					progressbar.OptionSetPredictTime(true),
					progressbar.OptionThrottle(100*time.Millisecond),
					progressbar.OptionClearOnFinish(),
				)
			}
			if bar.GetMax64() != p.Total {
				bar.ChangeMax64(p.Total)
			}
			bar.Describe(p.Stage)
			_ = bar.Set64(p.Done) // a bar that cannot be drawn is no reason to stop
		},
		finish: func() {
			if bar != nil {
				_ = bar.Clear()
			}
		},
	}
}

func newLines(w io.Writer, now func() time.Time, unit string) progress {
	begin := now()
	last := begin
	first := int64(-1) // done before this run, where one goes on
	return progress{
		update: func(p simulations.Progress) {
			if first < 0 {
				first = p.Done
			}
			t := now()
			if t.Sub(last) < reportEvery || p.Total <= 0 {
				return
			}
			last = t
			rate := float64(p.Done-first) / t.Sub(begin).Seconds()
			line := fmt.Sprintf("%3.0f %%  %s  (%.0f %s/s", 100*float64(p.Done)/float64(p.Total), p.Stage, rate, unit)
			if rate > 0 {
				left := time.Duration(float64(p.Total-p.Done) / rate * float64(time.Second))
				line += fmt.Sprintf(", %v left", left.Round(time.Second))
			}
			fmt.Fprintln(w, line+")")
		},
		finish: func() {},
	}
}
