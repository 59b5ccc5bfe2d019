package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/undertone-fl/undertone/client"
	"github.com/undertone-fl/undertone/commandline"
)

func runCommand() *cobra.Command {
	var f flags
	var untilFinished bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Take part in rounds as they open, until it is stopped",
		Example: `  undertone-agent run --dir alice --data samples.csv --server n1:7300,n2:7300 --identity certs/client/alice
  undertone-agent run --until-finished --job movies --users ratings.csv --format ratings --train 20 \
      --dir devices --server n1:7300,n2:7300 --identity certs/client`,
		Args: commandline.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.users != "" {
				return f.runUsers(cmd, untilFinished)
			}
			c, err := f.device(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			ctx, stop := context.WithCancel(cmd.Context())
			defer stop()
			c.Report = func(s *client.Summary) {
				report(cmd.OutOrStdout(), s, f.json, true)
				if s.Finished && untilFinished {
					stop()
				}
			}
			d, err := client.Open(c)
			if err != nil {
				return asMistake(err)
			}
			defer d.Close()
			return d.Run(ctx)
		},
	}
	taking := func() *pflag.FlagSet {
		fl := f.consent()
		fl.BoolVar(&untilFinished, "until-finished", false, "end once every job is released to its last round; with status 1 once a client is refused for good")
		return fl
	}
	f.addTo(cmd, f.own, f.samplesOf, f.network, taking, f.many)
	return cmd
}

func syncCommand() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Take part in what is open, bring the models up to date, and end",
		Args:  commandline.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.users != "" {
				return f.syncUsers(cmd)
			}
			c, err := f.device(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			d, err := client.Open(c)
			if err != nil {
				return asMistake(err)
			}
			defer d.Close()
			s, err := d.Sync(cmd.Context())
			report(cmd.OutOrStdout(), s, f.json, false)
			for _, j := range s.Jobs {
				if errors.Is(j.Err, client.ErrUnknownJob) && slices.Contains(f.jobs, j.Job) {
					return commandline.Flagf("job", "no job %q", j.Job)
				}
			}
			return err
		},
	}
	f.addTo(cmd, f.own, f.samplesOf, f.network, f.consent, f.many)
	return cmd
}

// report prints what a Sync did: a line a job, or a JSON object. Where only news
// are wanted, a Sync that did nothing has none.
func report(w io.Writer, s *client.Summary, asJSON, news bool) {
	if asJSON {
		_ = json.NewEncoder(w).Encode(s)
		return
	}
	for _, j := range s.Jobs {
		if news && (j.Earlier || j.Outcome == "") && j.Err == nil && !j.Updated {
			continue
		}
		text := "nothing is open"
		switch {
		case j.Round > 0:
			what := string(j.Outcome)
			if what == "" {
				what = "took no part"
			}
			text = fmt.Sprintf("round %d attempt %d: %s", j.Round, j.Attempt, what)
		case j.Err != nil:
			text = "took no part"
		case j.Model >= 0:
			text = fmt.Sprintf("model %d", j.Model)
		}
		if j.Earlier {
			text += " earlier"
		}
		if j.Charge > 0 {
			text += fmt.Sprintf(", %v", j.Charge)
		}
		if j.Err != nil {
			text += ": " + commandline.OneLine(j.Err.Error())
		}
		if j.Samples != nil {
			text += " (the samples are unusable, which stays here: " + commandline.OneLine(j.Samples.Error()) + ")"
		}
		fmt.Fprintf(w, "%s %s\n", j.Job, text)
	}
}

func predictCommand() *cobra.Command {
	var f flags
	var job string
	var x []float64
	var columns []int32
	cmd := &cobra.Command{
		Use:   "predict --job JOB (--x VALUES [--columns FEATURES] | --data FILE)",
		Short: "Predict responses, offline",
		Args:  commandline.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := f.offline()
			if err != nil {
				return err
			}
			if job == "" {
				return commandline.Flagf("job", "is missing: the name of a job")
			}
			rows := []client.Row{{X: x, Columns: columns}}
			switch {
			case x == nil && f.data == "":
				return commandline.Flagf("x", "is missing: the features' values")
			case x == nil:
				items, err := f.catalogue()
				if err != nil {
					return err
				}
				t, err := client.OpenTable(f.data, client.Format(f.format), items)
				if err != nil {
					return fileMistake("data", err)
				}
				rows = nil
				for _, user := range t.Users() {
					rows = append(rows, t.Rows(user)...)
				}
			}
			for i, row := range rows {
				y, err := d.Predict(job, row.X, row.Columns)
				if err != nil {
					if len(rows) > 1 {
						return fmt.Errorf("sample %d: %w", i+1, err)
					}
					return err
				}
				if f.json {
					err = json.NewEncoder(cmd.OutOrStdout()).Encode(struct {
						Prediction float64 `json:"prediction"`
					}{y})
				} else {
					_, err = fmt.Fprintln(cmd.OutOrStdout(), strconv.FormatFloat(y, 'g', 8, 64))
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	what := func() *pflag.FlagSet {
		fl := commandline.Part("What to predict")
		fl.StringVar(&job, "job", "", "with whose model, the name of a `job`")
		fl.Float64SliceVar(&x, "x", nil, "`values` of the features, separated by commas")
		fl.Int32SliceVar(&columns, "columns", nil, "which `features` they are of, from 0 and in increasing order; the others are zero (default: all)")
		return fl
	}
	f.addTo(cmd, what, f.samplesOf, f.own)
	return cmd
}

// offline opens the folder of a single device to look at it.
func (f *flags) offline() (*client.Device, error) {
	c, err := f.config(io.Discard)
	if err != nil {
		return nil, err
	}
	if f.dir == "" {
		return nil, commandline.Flagf("dir", "is missing: the client's directory")
	}
	c.Offline = true
	// One of many users has no models of its own: it shares them, a folder or two up.
	for _, up := range []string{"", "..", "../.."} {
		folder := filepath.Join(f.dir, up, library)
		if info, err := os.Stat(folder); err == nil && info.IsDir() {
			if c.Library, err = client.OpenLibrary(folder); err != nil {
				return nil, err
			}
			break
		}
	}
	d, err := client.Open(c)
	return d, asMistake(err)
}

func statusCommand() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Print what was disclosed, and what may be",
		Args:  commandline.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := f.offline()
			if err != nil {
				return err
			}
			s, err := d.Status()
			if err != nil {
				return err
			}
			if f.json {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(s)
			}
			return printStatus(cmd.OutOrStdout(), s)
		},
	}
	f.addTo(cmd, f.own)
	return cmd
}

func printStatus(w io.Writer, s *client.Status) error {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "JOB\tTRUST\tN_MIN\tROUNDS\tATTEMPTS\tCOUNTED\tRHO\tEPSILON\tDELTA\tMODEL\tRELEASED")
	for _, j := range s.Jobs {
		model := "none"
		if j.Model >= 0 {
			model = strconv.Itoa(j.Model)
		}
		trust, nMin := "unknown", "unknown"
		if j.Trust != "" {
			trust, nMin = string(j.Trust), strconv.Itoa(j.NMin)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%d\t%.6g\t%.4g\t%.3g\t%s\t%d of %d\n",
			j.Job, trust, nMin, j.Rounds, j.Attempts, j.Counted, j.NanoRho.Rho(), j.Epsilon, j.Delta, model, j.Released, j.Of)
	}
	err := table.Flush()
	fmt.Fprintf(w, "disclosed in all: %v, epsilon %.4g at delta %.3g; cap: epsilon %g at delta %.3g, of which %v is left\n",
		s.NanoRho, s.Epsilon, s.Cap.Delta, s.Cap.Epsilon, s.Cap.Delta, s.Left)
	for _, p := range s.Pending {
		fmt.Fprintf(w, "waits to be sent: %s\n", p)
	}
	printLedger(w, s.Ledger, s.Former)
	return err
}

// quietly leaves out that a command was told to stop.
func quietly(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
