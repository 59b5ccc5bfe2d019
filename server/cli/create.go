package cli

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/commandline"
	"github.com/undertone-fl/undertone/dp"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// terms is the flags of undertone job create.
type terms struct {
	parameters jobs.Parameters
	terms      jobs.Terms

	method, features, update, adjacency, trust string

	spec   string
	dryRun bool
}

// Enumerations.
var (
	methods      = []string{jobs.AMHTLRS, jobs.CanaryMethod}
	featureKinds = []string{string(lowrank.Standard), string(lowrank.Unscaled), string(lowrank.OneHot)}
	updates      = []string{string(lowrank.Gradient), string(lowrank.LeastSquares)}
	adjacencies  = []string{dp.ZeroOut.String(), dp.ReplaceOne.String()}
	trustModes   = []string{string(rounds.TrustDistributed), string(rounds.TrustCentral), string(rounds.TrustLocal)}
)

func jobCreateCommand() *cobra.Command {
	var c connection
	var t terms
	cmd := &cobra.Command{
		Use:   "create JOB",
		Short: "Create a job from its terms",
		Long: `Create fixes everything public about a job: what is learned, with which privacy,
and the size of its rounds. Noise, clipping and the charge of every round follow.
Nothing can be changed later. The job begins paused.`,
		Example: `  undertone job create movies --dim 30 --rank 2 --sparsity 5 --epsilon 4 --n-min 500 --round-size 2000
  undertone job create movies --dim 30 --epsilon 4 --n-min 500 --dry-run > movies.json
  undertone job create movies --spec movies.json`,
		Args: named("JOB"),
		RunE: func(cmd *cobra.Command, args []string) error { return t.create(cmd, &c, args[0]) },
	}
	what := commandline.Part("What is learned")
	what.StringVar(&t.method, "method", jobs.AMHTLRS, "`method`: "+list(methods)+", which learns nothing and releases the noised sums, to be measured")
	what.IntVar(&t.parameters.Dim, "dim", 0, "features `d` of a sample; of a canary, coordinates of a contribution, of norm 1")
	what.IntVar(&t.parameters.Rank, "rank", 2, "columns `r` of the shared U")
	what.IntVar(&t.parameters.Sparsity, "sparsity", 0, "most non-zeros `k` of a client's own b")
	what.StringVar(&t.features, "features", string(lowrank.Standard), "what is known of the features, a `word`: "+list(featureKinds))
	what.BoolVar(&t.parameters.Centred, "centred", false, "learn a mean that all clients share, too")
	what.IntVar(&t.parameters.Rounds, "rounds", 0, "`updates` of U after the initialisation; 0 leaves the number to the schedule, and is one round of a canary")
	what.StringVar(&t.update, "update", string(lowrank.Gradient), "how U follows from the sum, a `rule`: "+list(updates))
	what.BoolVar(&t.parameters.Trace, "trace", true, "keep what releases tell of the model's quality, for the job's page; costs no privacy")
	what.IntVar(&t.parameters.Sketch, "sketch", 0, "`columns` of the sketched initialisation; 0 leaves them to the schedule")
	what.BoolVar(&t.parameters.HardThreshold, "hard-threshold", false, "clients find b by hard thresholding instead of pursuit")

	privacy := commandline.Part("Privacy")
	privacy.Float64Var(&t.terms.Epsilon, "epsilon", 0, "`budget` of all rounds together")
	privacy.Float64Var(&t.terms.Delta, "delta", 0, "`probability` delta of the guarantee (default: the largest power of ten that is at most 1e-6 and 0.1 / round-size)")
	privacy.StringVar(&t.adjacency, "adjacency", dp.ZeroOut.String(), "what neighbouring data sets differ in, a `relation`: "+list(adjacencies))
	privacy.StringVar(&t.trust, "trust", string(rounds.TrustDistributed), "who adds the noise, a `mode`: "+list(trustModes))
	privacy.IntVar(&t.terms.Spare, "spare", 1, "failed `attempts` that the budget leaves room for")

	sizes := commandline.Part("Rounds")
	sizes.IntVar(&t.terms.NMin, "n-min", 0, "least `number` of contributions that a round releases")
	sizes.IntVar(&t.terms.RoundSize, "round-size", 0, "`contributions` that close a round (default: n-min)")
	sizes.DurationVar(&t.terms.Deadline, "deadline", 10*time.Minute, "`time` after which a round closes with what it has")

	file := commandline.Part("A specification from a file, instead of all these")
	file.StringVar(&t.spec, "spec", "", "JSON `file` as --dry-run prints it")
	file.BoolVar(&t.dryRun, "dry-run", false, "print the specification, and create nothing")
	commandline.AddParts(cmd, what, privacy, sizes, file, c.flags())
	c.complete(cmd)
	complete(cmd, "spec", files("json"))
	for flag, choices := range map[string][]string{"method": methods, "features": featureKinds, "update": updates, "adjacency": adjacencies, "trust": trustModes} {
		complete(cmd, flag, cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp))
	}
	for _, flag := range []string{"dim", "rank", "sparsity", "rounds", "sketch", "epsilon", "delta", "spare", "n-min", "round-size", "deadline"} {
		complete(cmd, flag, cobra.NoFileCompletions)
	}
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

func (t *terms) create(cmd *cobra.Command, c *connection, job string) error {
	encoded, spec, err := t.specification(cmd, job)
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	if t.dryRun {
		if _, err := fmt.Fprintf(w, "%s\n", encoded); err != nil || c.json {
			return err
		}
		return printSpec(cmd.ErrOrStderr(), spec)
	}
	j, err := c.getJob(cmd, repeated, func(ctx context.Context, o operator) (*undertonev1.Job, error) {
		r, err := o.CreateJob(ctx, &undertonev1.CreateJobRequest{Spec: encoded})
		return r.GetJob(), err
	})
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(w, j)
	}
	if err := printSpec(w, spec); err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "\n%s is %s; to begin: undertone job open %s\n", job, j.State, job)
	return err
}

// specification is that of the file, or made of the flags, as bytes and read.
func (t *terms) specification(cmd *cobra.Command, job string) ([]byte, *rounds.Spec, error) {
	if t.spec != "" {
		return t.fromFile(cmd, job)
	}
	if err := t.complete(cmd, job); err != nil {
		return nil, nil, err
	}
	var s *rounds.Spec
	var err error
	if t.method == jobs.CanaryMethod {
		norms := slices.Repeat([]float64{1}, max(t.parameters.Rounds, 1))
		s, err = jobs.NewCanary(jobs.Canary{Dim: t.parameters.Dim, Norms: norms}, t.terms)
	} else {
		s, err = jobs.New(t.parameters, t.terms)
	}
	if err != nil {
		return nil, nil, err
	}
	return jobs.Encode(s), s, nil
}

// learning are the terms of what is learned, which a canary has not.
var learning = []string{"rank", "sparsity", "features", "centred", "update", "sketch", "trace", "hard-threshold"}

func (t *terms) fromFile(cmd *cobra.Command, job string) ([]byte, *rounds.Spec, error) {
	for _, flag := range append([]string{"method", "dim", "rounds",
		"epsilon", "delta", "adjacency", "trust", "spare", "n-min", "round-size", "deadline"}, learning...) {
		if cmd.Flags().Changed(flag) {
			return nil, nil, flagf(flag, "is a term of a job, but --spec names a file of them")
		}
	}
	encoded, err := readInput(cmd, t.spec)
	if err != nil {
		return nil, nil, fmt.Errorf("--spec: %w", err)
	}
	encoded = bytes.TrimSpace(encoded)
	s, err := rounds.ParseSpec(encoded)
	if err == nil {
		err = jobs.CheckAny(s)
	}
	if err != nil {
		return nil, nil, usagef("%s: %w", t.spec, err)
	}
	if s.Job != job {
		return nil, nil, usagef("%s: job: it is the specification of %q, and not of %q", t.spec, s.Job, job)
	}
	return encoded, s, nil
}

// complete turns words into values, and fills in what follows from the others.
func (t *terms) complete(cmd *cobra.Command, job string) error {
	for _, flag := range []string{"dim", "epsilon", "n-min"} {
		if !cmd.Flags().Changed(flag) {
			return flagf(flag, "is missing")
		}
	}
	for _, e := range []struct {
		flag, value string
		choices     []string
	}{
		{"method", t.method, methods}, {"features", t.features, featureKinds}, {"update", t.update, updates},
		{"adjacency", t.adjacency, adjacencies}, {"trust", t.trust, trustModes},
	} {
		if err := mustBeOneOf(e.flag, e.value, e.choices); err != nil {
			return err
		}
	}
	for _, flag := range learning {
		if t.method == jobs.CanaryMethod && cmd.Flags().Changed(flag) {
			return flagf(flag, "is a term of what is learned, and a canary learns nothing")
		}
	}
	if t.parameters.Rounds < 0 {
		return flagf("rounds", "%d is negative", t.parameters.Rounds)
	}
	adjacency, err := dp.ParseAdjacency(t.adjacency)
	if err != nil {
		return flagf("adjacency", "%w", err)
	}
	t.terms.Job, t.terms.Adjacency, t.terms.Trust = job, adjacency, rounds.Trust(t.trust)
	t.parameters.Features, t.parameters.Update = lowrank.Features(t.features), lowrank.Update(t.update)
	if !cmd.Flags().Changed("round-size") {
		t.terms.RoundSize = t.terms.NMin
	}
	if !cmd.Flags().Changed("delta") {
		t.terms.Delta = defaultDelta(t.terms.RoundSize)
	}
	return nil
}

// defaultDelta is the largest power of ten that is at most 1e-6 and 0.1/n.
func defaultDelta(n int) float64 {
	return math.Min(1e-6, math.Pow10(int(math.Floor(math.Log10(0.1/float64(max(n, 1)))))))
}
