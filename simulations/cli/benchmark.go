package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/undertone-fl/undertone/commandline"
	"github.com/undertone-fl/undertone/simulations"
	"github.com/undertone-fl/undertone/simulations/benchmark"
)

// referenceCommand is the process of the benchmark's own server.
const referenceCommand = "serve-reference"

func benchmarkCommand() *cobra.Command {
	var (
		o      benchmark.Options
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "benchmark",
		Short: "Measure the service on this machine, beside what gRPC itself does here",
		Long: `Benchmark starts servers on loopback, a process each, loads them with clients that
have certificates of their own, kills them, and prints how fast they were. Rates
are set in relation to bare gRPC with the same certificates, measured in turns
with them.`,
		Example: `  undertone benchmark
  undertone benchmark --only updates,failover
  undertone benchmark --json > figures.json`,
		Args:              commandline.NoArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			o.Reference = []string{self, "benchmark", referenceCommand}
			for _, name := range o.Only {
				if !slices.Contains(benchmark.Parts(), name) {
					return inputStatus(&simulations.FieldError{Flag: "only", Problem: fmt.Sprintf("%q is none of %s", name, strings.Join(benchmark.Parts(), ", "))})
				}
			}
			o.Progress = func(what string) { fmt.Fprintln(cmd.ErrOrStderr(), "measuring:", what) }
			result, err := benchmark.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(result)
			}
			return printBenchmark(cmd.OutOrStdout(), result)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringSliceVar(&o.Only, "only", nil, "measure only these `parts`: "+strings.Join(benchmark.Parts(), ", "))
	cmd.Flags().BoolVar(&o.Short, "short", false, "measure less of everything; the figures are rough")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(&cobra.Command{Use: referenceCommand, Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return benchmark.ServeReference(args[0], cmd.OutOrStdout())
		}})
	register(cmd, "only", cobra.FixedCompletions(benchmark.Parts(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func printBenchmark(w io.Writer, result *benchmark.Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "WHAT\tMEASURED\tREFERENCE\tRATIO\tGOAL\tRESULT")
	for _, r := range result.Rows {
		reference, ratio := "-", "-"
		if r.Reference != 0 {
			reference, ratio = fmt.Sprintf("%.5g", r.Reference), fmt.Sprintf("%.2f", r.Ratio)
		}
		met := "missed"
		if r.Met {
			met = "met"
		}
		fmt.Fprintf(t, "%s\t%.4g %s\t%s\t%s\t%s\t%s\n", r.What, r.Value, r.Unit, reference, ratio, r.Goal, met)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range result.Rows {
		if r.Detail != "" {
			if _, err := fmt.Fprintf(w, "%s: %s\n", r.What, r.Detail); err != nil {
				return err
			}
		}
	}
	return nil
}
