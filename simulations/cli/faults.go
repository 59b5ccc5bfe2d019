package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/undertone-fl/undertone/commandline"
	"github.com/undertone-fl/undertone/simulations"
	"github.com/undertone-fl/undertone/simulations/faults"
)

func faultsCommand() *cobra.Command {
	var (
		c      faults.Config
		asJSON bool
		quiet  bool
	)
	cmd := &cobra.Command{
		Use:   "faults",
		Short: "Break a cluster at random, from a seed, and hold that it keeps its promises",
		Long: `Faults starts three servers on loopback, a process each, runs jobs on them with
clients that behave and clients that do not, and meanwhile kills, pauses,
partitions and restarts servers. Every answer is recorded. In the end the history
decides: no acknowledged contribution lost or counted twice, no budget overspent,
one history of releases, the same state on every node. The exit status is 1 if a
promise was broken, and the servers' directories and logs are kept.`,
		Example: `  undertone faults
  undertone faults --seed 7 --rounds 1000
  undertone faults --only kill-leader,flutter --rounds 50`,
		Args:              commandline.NoArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("seed") {
				c.Seed = rand.Uint64N(1_000_000)
			}
			for _, name := range c.Only {
				if !slices.Contains(faults.Faults(), name) {
					return inputStatus(&simulations.FieldError{Flag: "only", Problem: fmt.Sprintf("%q is none of %s", name, strings.Join(faults.Faults(), ", "))})
				}
			}
			if c.Clients < 4 || c.Clients > 64 {
				return inputStatus(&simulations.FieldError{Flag: "clients", Problem: fmt.Sprintf("%d is not from 4 to 64", c.Clients)})
			}
			var err error
			if c.Dir, err = os.MkdirTemp("", "undertone-faults-"); err != nil {
				return err
			}
			stderr := cmd.ErrOrStderr()
			fmt.Fprintf(stderr, "seed %d, servers in %s\n", c.Seed, c.Dir)
			if !quiet {
				c.Progress = func(rounds int, what string) {
					fmt.Fprintf(stderr, "%d of %d rounds: %s\n", rounds, c.Rounds, what)
				}
			}
			report, err := faults.Run(cmd.Context(), c)
			if report != nil {
				if err := printFaults(cmd.OutOrStdout(), report, asJSON); err != nil {
					return err
				}
				if len(report.Violations) > 0 {
					return fmt.Errorf("%d violations; the servers' logs are in %s", len(report.Violations), c.Dir)
				}
			}
			if err != nil {
				return fmt.Errorf("%w; the servers' logs are in %s", err, c.Dir)
			}
			if cmd.Context().Err() != nil {
				return &statusError{errors.New("interrupted"), statusInterrupted}
			}
			return os.RemoveAll(c.Dir)
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.Uint64Var(&c.Seed, "seed", 0, "`seed` of the faults and of what clients do; without it, one drawn and printed")
	fs.IntVar(&c.Rounds, "rounds", 100, "`number` of rounds to be released in all, at the least: every fault comes once")
	fs.DurationVar(&c.Limit, "limit", 0, "give up after this `duration`; 0 is never")
	fs.IntVar(&c.Clients, "clients", 12, "`number` of clients, from 4 to 64")
	fs.StringSliceVar(&c.Only, "only", nil, "only these `faults`: "+strings.Join(faults.Faults(), ", "))
	fs.BoolVar(&asJSON, "json", false, "print JSON")
	fs.BoolVar(&quiet, "quiet", false, "no progress")
	register(cmd, "only", cobra.FixedCompletions(faults.Faults(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func printFaults(w io.Writer, r *faults.Report, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintf(t, "rounds released\t%d\t\n", r.Rounds)
	fmt.Fprintf(t, "attempts failed\t%d\ttoo few contributions at the deadline\n", r.Failed)
	fmt.Fprintf(t, "contributions acknowledged\t%d\t\n", r.Acknowledged)
	fmt.Fprintf(t, "contributions without an answer\t%d\t\n", r.Unknown)
	fmt.Fprintf(t, "records of the ledger\t%d\t%d checkpoints followed\n", r.Records, r.Checkpoints)
	total := 0
	var each []string
	for _, name := range slices.Sorted(maps.Keys(r.Faults)) {
		total += r.Faults[name]
		each = append(each, fmt.Sprintf("%d %s", r.Faults[name], name))
	}
	fmt.Fprintf(t, "faults\t%d\t%s\n", total, strings.Join(each, ", "))
	fmt.Fprintf(t, "time\t%.0f s\t\n", r.Seconds)
	fmt.Fprintf(t, "violations\t%d\t\n", len(r.Violations))
	if err := t.Flush(); err != nil {
		return err
	}
	for _, v := range r.Violations {
		if _, err := fmt.Fprintln(w, "violated:", v); err != nil {
			return err
		}
	}
	return nil
}
