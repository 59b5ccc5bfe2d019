package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/undertone-fl/undertone/commandline"
	"github.com/undertone-fl/undertone/simulations"
)

// Membership is undertone audit membership.
func Membership() *cobra.Command {
	var (
		m             simulations.Membership
		epsilon       string
		asJSON, quiet bool
	)
	cmd := &cobra.Command{
		Use:   "membership",
		Short: "Attack the released U's of a simulated job: did a user take part?",
		Long: `Membership simulates a job again and again, with a user or without, and has an attacker
who knows all users' data tell from everything released, U_0 to U_L, which it was. How
often that is right bounds epsilon from below, end to end: beside the claim, and beside
undertone audit canary, which sees the sums that U is computed from. The exit status
is 1 if the claim is refuted.`,
		Example: `  undertone audit membership
  undertone audit membership --epsilon 8 --runs 20000
  undertone audit membership --epsilon inf`,
		Args:              commandline.NoArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if m.Epsilon, err = simulations.ParseEpsilon(epsilon); err != nil {
				return inputStatus(&simulations.FieldError{Flag: "epsilon", Problem: err.Error()})
			}
			bar := newProgress(cmd.ErrOrStderr(), quiet, "runs")
			m.Progress = bar.update
			result, err := simulations.MeasureMembership(cmd.Context(), m)
			bar.finish()
			switch {
			case errors.Is(err, context.Canceled):
				return &statusError{errors.New("interrupted"), statusInterrupted}
			case err != nil:
				return inputStatus(err)
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), result)
			} else {
				err = printMembership(cmd.OutOrStdout(), result)
			}
			if err == nil && !result.Passed {
				err = fmt.Errorf("the releases give away more than is claimed: epsilon is at least %.3g, if the noise is Gaussian, and not %v", result.LowerBound, result.ClaimedEpsilon)
			}
			return err
		},
	}
	choices := func(flag string) string { return strings.Join(simulations.Choices(flag), ", ") }
	of := commandline.Part("The job")
	of.StringVar(&epsilon, "epsilon", "2", "`budget` of all rounds together; inf is no noise")
	of.Float64Var(&m.Delta, "delta", 1e-6, "`probability` delta of the guarantee")
	of.StringVar(&m.Adjacency, "adjacency", "zero-out", "what neighbouring data sets differ in, a `relation`: "+choices("adjacency"))
	of.StringVar(&m.Trust, "trust", "distributed", "who adds the noise, a `mode`: "+choices("trust"))
	of.IntVar(&m.Clients, "clients", 20, "`number` of users")
	of.IntVar(&m.Rounds, "rounds", 3, "`updates` after the initialisation")

	how := commandline.Part("Measuring")
	how.IntVar(&m.Runs, "runs", 10_000, "`number` of jobs; half of them are learned from")
	how.Float64Var(&m.Confidence, "confidence", 0.95, "`probability` with which the bound holds")
	how.Float64Var(&m.FalseAlarm, "false-alarm", 1e-4, "`probability` with which an honest job fails")
	how.Uint64Var(&m.Seed, "seed", 1, "`seed` of users, noise and coins; the same seed gives the same result")
	how.BoolVar(&asJSON, "json", false, "print JSON")
	how.BoolVar(&quiet, "quiet", false, "no progress")
	commandline.AddParts(cmd, of, how)
	for _, flag := range []string{"epsilon", "delta", "clients", "rounds", "runs", "confidence", "false-alarm", "seed"} {
		register(cmd, flag, cobra.NoFileCompletions)
	}
	for _, flag := range []string{"adjacency", "trust"} {
		register(cmd, flag, cobra.FixedCompletions(simulations.Choices(flag), cobra.ShellCompDirectiveNoFileComp))
	}
	return cmd
}

func printMembership(w io.Writer, r *simulations.MembershipResult) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintf(t, "claimed\tepsilon %v at delta %g, %s, trust %s\t\n", r.ClaimedEpsilon, r.Delta, r.Adjacency, r.Trust)
	fmt.Fprintf(t, "by\t%d releases to %d users\t\n", r.Releases, r.Clients)
	fmt.Fprintf(t, "measured\tepsilon is at least %.4f, if the noise is Gaussian (confidence %g %%), about %s\t\n",
		r.LowerBound, 100*r.Confidence, boundless(r.Estimate, r.Correct == r.Trials))
	fmt.Fprintf(t, "with\t%d of %d guesses right, from seed %d\t\n", r.Correct, r.Trials, r.Seed)
	fmt.Fprintf(t, "on\t%s\t\n", r.Date.Format(time.RFC3339))
	verdict := "passed: nothing contradicts the claim"
	switch {
	case !r.Passed:
		verdict = "FAILED: the releases give away more than is claimed"
	case !r.ClaimedEpsilon.Private():
		verdict = "passed: nothing was claimed"
	}
	fmt.Fprintf(t, "verdict\t%s\t\n", verdict)
	return t.Flush()
}
