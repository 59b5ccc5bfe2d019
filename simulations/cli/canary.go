package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/commandline"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/simulations"
	"github.com/undertone-fl/undertone/simulations/canary"
)

// canaryFlags are the values of undertone audit canary.
type canaryFlags struct {
	canary.Config
	spec             string
	rounds           int
	terms            jobs.Terms
	adjacency, trust string
	seed             uint64
	asJSON, quiet    bool

	there             canary.Cluster
	clients, operator string // directories
}

// claim are the flags that make a claim, and so contradict --spec and --job.
var claim = []string{"epsilon", "delta", "adjacency", "trust", "n-min", "rounds"}

// Canary is undertone audit canary.
func Canary() *cobra.Command { return canaryCommand() }

func canaryCommand() *cobra.Command {
	var f canaryFlags
	cmd := &cobra.Command{
		Use:   "canary",
		Short: "Measure that the noise which a job claims is really there",
		Long: `Canary sends contributions that it knows, of norm exactly C, through everything that
contributions go through - clipping, rounding, noise, the servers' checks and sums, the
release - in test jobs with the noise of a job, and guesses them from what is released.
How often it is right bounds the job's epsilon from below, at a stated confidence.
Beside that it tests what the noise looks like. The exit status is 1 if the claim is
refuted.

Without --server the test jobs are of this program alone, servers' code included. With
it they are jobs of a cluster, and the command plays all their clients, each with a
certificate of its own: created with an operator's certificate, or by the cluster's
operator beforehand. With --trust central the noise is then that of the servers.`,
		Example: `  undertone audit canary
  undertone audit canary --epsilon 1 --n-min 1000 --trust local
  undertone job create movies --dim 30 --epsilon 4 --n-min 500 --dry-run > movies.json
  undertone audit canary --spec movies.json --json

  undertone ca issue client --count 100 --prefix canary- --out canaries
  undertone audit canary --server n1:7300,n2:7300 --clients canaries/client --operator undertone-ca/operator/admin --trust central
  undertone job create test --method canary --dim 108 --rounds 2 --epsilon 2 --n-min 100 --trust central
  undertone job open test
  undertone audit canary --server n1:7300,n2:7300 --clients canaries/client --job test`,
		Args:              commandline.NoArguments,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return inputStatus(f.run(cmd)) },
	}
	adjacencies := []string{dp.ZeroOut.String(), dp.ReplaceOne.String()}
	trusts := []string{string(rounds.TrustDistributed), string(rounds.TrustCentral), string(rounds.TrustLocal)}

	of := commandline.Part("The claim")
	of.StringVar(&f.spec, "spec", "", "a job's specification, a JSON `file` as in its ledger: its noise is measured, and the flags below are left out")
	of.Float64Var(&f.terms.Epsilon, "epsilon", 2, "`budget` of all rounds together")
	of.Float64Var(&f.terms.Delta, "delta", 1e-6, "`probability` delta of the guarantee")
	of.StringVar(&f.adjacency, "adjacency", adjacencies[0], "what neighbouring data sets differ in, a `relation`: "+strings.Join(adjacencies, ", "))
	of.StringVar(&f.trust, "trust", trusts[0], "who adds the noise, a `mode`: "+strings.Join(trusts, ", "))
	of.IntVar(&f.terms.NMin, "n-min", 100, "`number` of contributions whose noise is claimed")
	of.IntVar(&f.rounds, "rounds", 2, "`number` of rounds that the budget is divided among")

	how := commandline.Part("Measuring")
	how.IntVar(&f.Trials, "trials", 100_000, "least `number` of canaries")
	how.Float64Var(&f.Confidence, "confidence", 0.95, "`probability` with which the bound holds")
	how.Float64Var(&f.FalseAlarm, "false-alarm", 1e-4, "`probability` with which an honest service fails")
	how.Uint64Var(&f.seed, "seed", 0, "`seed` of coins and noise, to repeat an audit; without it they are secret, as in a deployment")
	how.BoolVar(&f.asJSON, "json", false, "print JSON")
	how.BoolVar(&f.quiet, "quiet", false, "no progress")
	where := commandline.Part("A cluster, instead of this program")
	where.StringSliceVar(&f.there.Servers, "server", nil, "`addresses` HOST:PORT of servers, as many as are known")
	where.StringVar(&f.clients, "clients", "", "`directory` of clients' certificates, in a directory each: as many as --n-min")
	where.StringVar(&f.operator, "operator", "", "`directory` of an operator's certificate, to create and open the test jobs with")
	where.StringSliceVar(&f.there.Jobs, "job", nil, "`names` of test jobs that an operator has created and opened, and nobody has taken part in; their claim is measured")
	where.StringVar(&f.there.LedgerKey, "ledger-key", "", "public key of the servers' ledger, as `text or a file` (default: ledger.pub beside a certificate; or else the first key that they show)")
	where.DurationVar(&f.there.Patience, "patience", time.Minute, "`time` to go on while no server answers, or a round does not go on")
	commandline.AddParts(cmd, of, how, where)
	for _, flag := range []string{"server", "job", "patience", "epsilon", "delta", "n-min", "rounds", "trials", "confidence", "false-alarm", "seed"} {
		register(cmd, flag, cobra.NoFileCompletions)
	}
	register(cmd, "adjacency", cobra.FixedCompletions(adjacencies, cobra.ShellCompDirectiveNoFileComp))
	register(cmd, "trust", cobra.FixedCompletions(trusts, cobra.ShellCompDirectiveNoFileComp))
	for _, flag := range []string{"clients", "operator"} {
		register(cmd, flag, cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs))
	}
	register(cmd, "ledger-key", cobra.FixedCompletions([]string{"pub"}, cobra.ShellCompDirectiveFilterFileExt))
	register(cmd, "spec", cobra.FixedCompletions([]string{"json"}, cobra.ShellCompDirectiveFilterFileExt))
	return cmd
}

func (f *canaryFlags) run(cmd *cobra.Command) error {
	var err error
	if f.Cluster, err = f.cluster(cmd); err != nil {
		return err
	}
	if f.Cluster == nil || len(f.Cluster.Jobs) == 0 {
		if f.Spec, err = f.specification(cmd); err != nil {
			return err
		}
	}
	f.Program = programOf(cmd)
	if cmd.Flags().Changed("seed") {
		f.Seed = &f.seed
	}
	bar := newProgress(cmd.ErrOrStderr(), f.quiet, "canaries")
	f.Progress = func(done, total int) {
		bar.update(simulations.Progress{Done: int64(done), Total: int64(total), Stage: "canaries"})
	}
	result, err := canary.Run(cmd.Context(), f.Config)
	bar.finish()
	switch {
	case errors.Is(err, context.Canceled):
		return &statusError{errors.New("interrupted"), statusInterrupted}
	case err != nil:
		return f.named(cmd, err)
	}
	if f.asJSON {
		err = printJSON(cmd.OutOrStdout(), result)
	} else {
		err = printCanary(cmd.OutOrStdout(), result)
	}
	if err == nil && !result.Passed {
		err = fmt.Errorf("the audit of %s failed: %s", result.Job, result.Verdict)
	}
	return err
}

// programOf is the program with its version.
func programOf(cmd *cobra.Command) string {
	name, _, _ := strings.Cut(cmd.Root().Version, ",")
	return name
}

// named names the flag that holds a specification: there may be no file of it.
func (f *canaryFlags) named(cmd *cobra.Command, err error) error {
	var field *canary.FieldError
	var job *canary.JobError
	switch {
	case errors.As(err, &field) && field.Flag == "spec" && f.Cluster != nil && len(f.Cluster.Jobs) > 0:
		return &simulations.FieldError{Flag: "job", Problem: field.Problem}
	case errors.As(err, &field) && field.Flag == "spec" && !cmd.Flags().Changed("spec"):
		return &simulations.FieldError{Flag: "epsilon", Problem: field.Problem}
	case errors.As(err, &job) && slices.Contains(f.there.Jobs, job.Job):
		return &simulations.FieldError{Flag: "job", Problem: job.Error()}
	}
	return err
}

// specification reads the claim from a file, or makes it of the flags.
func (f *canaryFlags) specification(cmd *cobra.Command) (*rounds.Spec, error) {
	if !cmd.Flags().Changed("spec") {
		return f.own()
	}
	for _, flag := range claim {
		if cmd.Flags().Changed(flag) {
			return nil, &simulations.FieldError{Flag: flag, Problem: "is fixed by the specification that --spec names"}
		}
	}
	raw, err := os.ReadFile(f.spec)
	if err != nil {
		return nil, &simulations.FieldError{Flag: "spec", Problem: pathProblem(err)}
	}
	spec, err := rounds.ParseSpec(raw)
	if err == nil {
		err = jobs.CheckAny(spec)
	}
	if err != nil {
		return nil, &simulations.FieldError{Flag: "spec", Problem: fmt.Sprintf("%s: %v", f.spec, err)}
	}
	return spec, nil
}

// own is the claim of the flags.
func (f *canaryFlags) own() (*rounds.Spec, error) {
	mistake := func(flag, format string, args ...any) (*rounds.Spec, error) {
		return nil, &simulations.FieldError{Flag: flag, Problem: fmt.Sprintf(format, args...)}
	}
	var err error
	if f.terms.Adjacency, err = dp.ParseAdjacency(f.adjacency); err != nil {
		return mistake("adjacency", "%q is neither zero-out nor replace-one", f.adjacency)
	}
	modes := []rounds.Trust{rounds.TrustDistributed, rounds.TrustCentral, rounds.TrustLocal}
	if f.terms.Trust = rounds.Trust(f.trust); !slices.Contains(modes, f.terms.Trust) {
		return mistake("trust", "%q is none of %s, %s, %s", f.trust, modes[0], modes[1], modes[2])
	}
	if f.rounds < 1 || f.rounds > canary.MostRounds {
		return mistake("rounds", "%d is not from 1 to %d", f.rounds, canary.MostRounds)
	}
	f.terms.Job, f.terms.RoundSize, f.terms.Deadline = "canary", f.terms.NMin, time.Hour
	spec, err := jobs.NewCanary(jobs.Canary{Dim: 1, Norms: slices.Repeat([]float64{1}, f.rounds)}, f.terms)
	var term *jobs.TermError
	if errors.As(err, &term) {
		return mistake(term.Flag, "%s", term.Problem)
	}
	return spec, err
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func printCanary(w io.Writer, r *canary.Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	rounds := "a round"
	if r.Rounds != 1 {
		rounds = fmt.Sprintf("%d rounds", r.Rounds)
	}
	fmt.Fprintf(t, "claimed\tepsilon %.4f at delta %g, %s\t\n", r.ClaimedEpsilon, r.Delta, r.Adjacency)
	fmt.Fprintf(t, "by\t%s: %s of %d contributions, trust %s\t\n", r.Job, rounds, r.NMin, r.Trust)
	fmt.Fprintf(t, "of\t%s\t\n", r.How)
	fmt.Fprintf(t, "measured\tepsilon is at least %.4f, if the noise is Gaussian, and this attack reaches at most %s (confidence %g %%)\t\n",
		r.LowerBound, boundless(r.UpperBound, r.UpperBound == 0), 100*r.Confidence)
	fmt.Fprintf(t, "\tepsilon is at least %.4f, whatever the noise is (confidence %g %%)\t\n", r.LowerBoundAny, 100*r.Confidence)
	fmt.Fprintf(t, "with\t%d canaries in %d test jobs, %s\t\n", r.Trials, r.TestJobs, randomness(r.Seed))
	fmt.Fprintf(t, "on\t%s\t\n", r.Date.Format(time.RFC3339))
	fmt.Fprintf(t, "verdict\t%s: %s\t\n", passed(r.Passed), r.Verdict)
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "ATTACK\tGUESSED RIGHT\tEPSILON\tINTERVAL\tCHANCE\tRESULT")
	for _, a := range r.Attacks {
		fmt.Fprintf(t, "%s\t%d of %d\t%s\t%.4f to %s\t%.2g\t%s\n", a.Name, a.Correct, a.Trials,
			boundless(a.Estimate, a.Correct == a.Trials), a.Lower, boundless(a.Upper, a.Upper == 0 && a.Correct == a.Trials), a.PValue, passed(a.Passed))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "TEST\tMEASURED\tINTERVAL\tEXPECTED\tCHANCE\tRESULT")
	for _, c := range r.Tests {
		interval := ""
		if c.High > 0 {
			interval = fmt.Sprintf("%.4f to %.4f", c.Low, c.High)
		}
		fmt.Fprintf(t, "%s\t%.4g\t%s\t%.4g\t%.2g\t%s\n", c.Name, c.Measured, interval, c.Expected, c.PValue, passed(c.Passed))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nCHANCE is the probability of as much or more if the claim is true. An honest service fails\n"+
		"with probability %g at most; its bound exceeds the claim with probability %.3g at most.\n", r.FalseAlarm, 1-r.Confidence)
	return err
}

func randomness(seed *uint64) string {
	if seed == nil {
		return "from secret randomness"
	}
	return fmt.Sprintf("from seed %d", *seed)
}

func boundless(epsilon float64, no bool) string {
	if no {
		return "any"
	}
	return fmt.Sprintf("%.4f", epsilon)
}

func passed(ok bool) string {
	if ok {
		return "passed"
	}
	return "FAILED"
}
