package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/undertone-fl/undertone/client"
)

func runCommand() *cobra.Command {
	var f flags
	var untilFinished bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Take part in rounds as they open, until it is stopped",
		Args:  noArguments,
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
	f.addFolder(cmd)
	f.addSamples(cmd)
	f.addNetwork(cmd)
	f.addUsers(cmd)
	cmd.Flags().BoolVar(&untilFinished, "until-finished", false, "end once every job is released to its last round")
	return cmd
}

func syncCommand() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Take part in what is open, bring the models up to date, and end",
		Args:  noArguments,
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
			return err
		},
	}
	f.addFolder(cmd)
	f.addSamples(cmd)
	f.addNetwork(cmd)
	f.addUsers(cmd)
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
			text += ": " + oneLine(j.Err.Error())
		}
		if j.Samples != nil {
			text += " (the samples are unusable, which stays here: " + oneLine(j.Samples.Error()) + ")"
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
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := f.offline()
			if err != nil {
				return err
			}
			if job == "" {
				return flagMistake("job", "is missing: the name of a job")
			}
			rows := []client.Row{{X: x, Columns: columns}}
			switch {
			case x == nil && f.data == "":
				return flagMistake("x", "is missing: the features' values")
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
	f.addFolder(cmd)
	f.addSamples(cmd)
	cmd.Flags().StringVar(&job, "job", "", "whose model to use")
	cmd.Flags().Float64SliceVar(&x, "x", nil, "values of the features")
	cmd.Flags().Int32SliceVar(&columns, "columns", nil, "which features they are of, from 0 and in increasing order; the others are zero (default: all)")
	return cmd
}

// offline opens the folder of a single device to look at it.
func (f *flags) offline() (*client.Device, error) {
	c, err := f.config(io.Discard)
	if err != nil {
		return nil, err
	}
	if f.dir == "" {
		return nil, flagMistake("dir", "is missing: the device's folder")
	}
	c.Offline = true
	d, err := client.Open(c)
	return d, asMistake(err)
}

func statusCommand() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Print what was disclosed, and what may be",
		Args:  noArguments,
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
	f.addFolder(cmd)
	return cmd
}

func printStatus(w io.Writer, s *client.Status) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "JOB\tROUNDS\tATTEMPTS\tCOUNTED\tRHO\tEPSILON\tDELTA\tMODEL\tRELEASED")
	for _, j := range s.Jobs {
		model := "none"
		if j.Model >= 0 {
			model = strconv.Itoa(j.Model)
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%.6g\t%.4g\t%.3g\t%s\t%d of %d\n",
			j.Job, j.Rounds, j.Attempts, j.Counted, j.NanoRho.Rho(), j.Epsilon, j.Delta, model, j.Released, j.Of)
	}
	err := table.Flush()
	fmt.Fprintf(w, "disclosed in all: %v, epsilon %.4g at delta %.3g; cap: epsilon %g at delta %.3g, of which %v is left\n",
		s.NanoRho, s.Epsilon, s.Cap.Delta, s.Cap.Epsilon, s.Cap.Delta, s.Left)
	for _, p := range s.Pending {
		fmt.Fprintf(w, "waits to be sent: %s\n", p)
	}
	return err
}

func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError(fmt.Sprintf("unexpected %q", args[0]))
	}
	return nil
}

// quietly leaves out that a command was told to stop.
func quietly(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
