// Package cli is undertone simulate, benchmark and faults, and what undertone audit
// measures, canary and membership: their flags, their progress, and what they print
// and leave in files. What is computed is the business of package simulations and those
// below it, what a report looks like that of package report.
//
// Every mistake in the flags, or in a file that they name, is an error with
// exit status 2, found before anything is computed or written.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/undertone-fl/undertone/commandline"
	"github.com/undertone-fl/undertone/simulations"
	"github.com/undertone-fl/undertone/simulations/canary"
	"github.com/undertone-fl/undertone/simulations/cluster"
	"github.com/undertone-fl/undertone/simulations/population"
	"github.com/undertone-fl/undertone/simulations/report"
)

// Exit statuses other than that of a run that failed.
const (
	statusUsage       = 2
	statusInterrupted = 130 // as shells report SIGINT
)

// statusError is an error with an exit status.
type statusError struct {
	error
	status int
}

func (e *statusError) Unwrap() error   { return e.error }
func (e *statusError) ExitStatus() int { return e.status }

// Commands are undertone simulate, and what tries the service: benchmark and
// faults.
func Commands() []*cobra.Command {
	return []*cobra.Command{simulateCommand(), benchmarkCommand(), faultsCommand()}
}

func simulateCommand() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Simulate a population, and see what personalization gains and privacy costs",
		Long: `Simulate runs federated personalization on a simulated population, or on the
users of a CSV file, side by side with its baselines and under one privacy
budget after another. It prints a table, and leaves a report to look at, its
figures, and result.json.

Without flags it runs the preset quick. A preset gives the population and the
defaults; any other flag changes one of them.`,
		Example: `  undertone simulate
  undertone simulate --preset lrs-2000 --clients 500 --epsilon 0.5,2,inf
  undertone simulate --data ratings.csv --format ratings --train 20 --epsilon 4,inf
  undertone simulate --preset private-fedrep --methods low-rank,local --out fedrep
  undertone simulate --preset lrs-4000 --out big --resume`,
		Args:              commandline.NoArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		Annotations:       map[string]string{commandline.Epilogue: epilogue()},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return inputStatus(simulate(cmd, &f))
		},
	}
	f.add(cmd)
	return cmd
}

// inputStatus gives what is the user's mistake, in a flag or in a file, its
// exit status.
func inputStatus(err error) error {
	var (
		field  *simulations.FieldError
		source *population.FieldError
		row    *population.RowError
		audit  *canary.FieldError
	)
	switch {
	case errors.As(err, &audit):
	case errors.As(err, &source):
		err = &simulations.FieldError{Flag: source.Field, Problem: source.Problem}
	case errors.As(err, &field), errors.As(err, &row):
	default:
		return err
	}
	return &statusError{err, statusUsage}
}

func simulate(cmd *cobra.Command, f *flags) error {
	cfg, err := f.config(cmd)
	if err != nil {
		return err
	}
	if err := f.prepareOut(); err != nil {
		return err
	}
	servers, stop, err := f.startCluster(cmd.Context())
	if err != nil {
		return err
	}
	defer stop()
	bar := newProgress(cmd.ErrOrStderr(), f.quiet, "client-rounds")
	res, err := simulations.Simulate(cmd.Context(), cfg, simulations.Options{
		Workers: f.workers, Cluster: servers, Dir: f.out, Resume: f.resume, Progress: bar.update,
	})
	bar.finish()
	switch {
	case errors.Is(err, simulations.ErrUnfinished):
		return &simulations.FieldError{Flag: "out", Problem: fmt.Sprintf(
			"%s holds an experiment that was stopped: go on with it (--resume), or choose another directory", f.out)}
	case errors.Is(err, simulations.ErrInUse):
		return &simulations.FieldError{Flag: "out", Problem: fmt.Sprintf("another process is at work in %s", f.out)}
	case errors.Is(err, simulations.ErrNothingToResume):
		return &simulations.FieldError{Flag: "resume", Problem: fmt.Sprintf("%s holds no experiment that was stopped", f.out)}
	case errors.Is(err, simulations.ErrOtherExperiment):
		return &simulations.FieldError{Flag: "resume", Problem: fmt.Sprintf(
			"%s holds another experiment: repeat its flags, or choose another directory (--out)", f.out)}
	case err != nil:
		return err
	}
	return present(cmd, f, res)
}

// startCluster starts the servers that --cluster asks for, in a directory that
// goes with them.
func (f *flags) startCluster(ctx context.Context) (servers *cluster.Cluster, stop func(), err error) {
	switch f.cluster {
	case 0:
		return nil, func() {}, nil
	case 1, 3, 5:
	default:
		return nil, nil, &simulations.FieldError{Flag: "cluster", Problem: fmt.Sprintf("%d is none of 1, 3, 5", f.cluster)}
	}
	dir, err := os.MkdirTemp("", "undertone-cluster-")
	if err != nil {
		return nil, nil, err
	}
	servers, err = cluster.Start(ctx, cluster.Config{Nodes: f.cluster, Dir: dir})
	if err != nil {
		os.RemoveAll(dir)
		return nil, nil, err
	}
	return servers, func() {
		servers.Stop()
		os.RemoveAll(dir)
	}, nil
}

// present leaves the report in the directory and prints the result. Neither
// is kept from the user because the other failed: the files are there before
// a reader of the output can go away, and a full disk does not cost the table.
func present(cmd *cobra.Command, f *flags, res *simulations.Result) error {
	if len(res.Runs) > 0 {
		var unwritten error
		if f.out != "" {
			unwritten = report.Write(f.out, res, commandLine(cmd))
		}
		if err := printResult(cmd.OutOrStdout(), res, f.json); err != nil {
			return err
		}
		if unwritten != nil { // the journal stays: --resume writes it without computing again
			return fmt.Errorf("writing the report: %w", unwritten)
		}
		if f.out != "" && !res.Interrupted {
			if err := simulations.RemoveJournal(f.out); err != nil {
				return err
			}
		}
	}
	if res.Interrupted {
		return &statusError{errors.New(f.interrupted(cmd)), statusInterrupted}
	}
	notes := cmd.OutOrStdout()
	if f.json {
		notes = cmd.ErrOrStderr()
	}
	if f.json && f.quiet {
		return nil
	}
	return printNotes(notes, res, f.out)
}

func (f *flags) interrupted(cmd *cobra.Command) string {
	if f.out == "" {
		return "interrupted"
	}
	return "interrupted; to go on: " + commandLine(cmd) + " --resume"
}

// prepareOut makes the directory, and finds out now, and not after the run,
// whether it takes files.
func (f *flags) prepareOut() error {
	if f.out == "" {
		return nil
	}
	if _, err := os.Stat(f.out); f.resume && errors.Is(err, fs.ErrNotExist) {
		return &simulations.FieldError{Flag: "resume", Problem: f.out + " holds no experiment that was stopped"}
	}
	if err := os.MkdirAll(f.out, 0o755); err != nil {
		return &simulations.FieldError{Flag: "out", Problem: pathProblem(err)}
	}
	probe, err := os.CreateTemp(f.out, ".probe.*")
	if err != nil {
		return &simulations.FieldError{Flag: "out", Problem: pathProblem(err)}
	}
	probe.Close()
	return os.Remove(probe.Name())
}

// pathProblem leaves the system call out of an error about a path.
func pathProblem(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Path + ": " + path.Err.Error()
	}
	return err.Error()
}
