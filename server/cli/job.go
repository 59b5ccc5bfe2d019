package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
)

type operator = undertonev1grpc.OperatorServiceClient

func jobCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "job",
		Short: "Create jobs, and run them round by round",
		Long: `A job learns one model, in rounds, inside a privacy budget that is fixed when it is
created. It begins paused. Open it, and the servers open its rounds one after the
other; each one is charged to the budget before any client is asked for data.`,
	}
	cmd.AddCommand(jobCreateCommand(), jobOpenCommand(), jobPauseCommand(), jobCloseCommand(), jobStatusCommand(),
		jobListCommand(), openRoundCommand(), closeRoundCommand())
	return cmd
}

func jobOpenCommand() *cobra.Command {
	var c connection
	var rounds uint32
	cmd := &cobra.Command{
		Use:   "open JOB",
		Short: "Let a job's rounds be opened",
		Long:  `Open lets the servers open all rounds of a job that are left, or so many more.`,
		Args:  named("JOB"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("rounds") && rounds == 0 {
				return flagf("rounds", "0 is none; undertone job pause stops a job")
			}
			// So many more are worked out once, and asked for by the last one's number: what
			// is asked for again after a lost answer opens none beyond it.
			var until uint32
			return c.showJob(cmd, repeated, func(ctx context.Context, o operator) (*undertonev1.Job, error) {
				if rounds > 0 && until == 0 {
					r, err := o.GetJob(ctx, &undertonev1.GetJobRequest{Job: args[0]})
					if err != nil {
						return nil, err
					}
					until = begun(r.GetJob()) + min(rounds, math.MaxInt32)
				}
				r, err := o.OpenJob(ctx, &undertonev1.OpenJobRequest{Job: args[0], Until: until})
				return r.GetJob(), err
			})
		},
	}
	cmd.Flags().Uint32Var(&rounds, "rounds", 0, "so many `rounds` more, and then pause (default: all that are left)")
	complete(cmd, "rounds", cobra.NoFileCompletions)
	c.addTo(cmd)
	c.completeJobs(cmd)
	return cmd
}

func jobPauseCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use:   "pause JOB",
		Short: "Open no more rounds of a job",
		Long:  `Pause lets no more rounds be opened. One that collects goes on to its end.`,
		Args:  named("JOB"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.showJob(cmd, repeated, func(ctx context.Context, o operator) (*undertonev1.Job, error) {
				r, err := o.PauseJob(ctx, &undertonev1.PauseJobRequest{Job: args[0]})
				return r.GetJob(), err
			})
		},
	}
	c.addTo(cmd)
	c.completeJobs(cmd)
	return cmd
}

// begun is the last round of a job that is released or under way.
func begun(j *undertonev1.Job) uint32 {
	switch last := lastAttempt(j); last.GetPhase() {
	case undertonev1.Phase_PHASE_COLLECTING, undertonev1.Phase_PHASE_CLOSED:
		return last.GetRound()
	}
	return j.GetReleased()
}

func jobCloseCommand() *cobra.Command {
	var c connection
	var yes bool
	cmd := &cobra.Command{
		Use:   "close JOB",
		Short: "End a job for good",
		Long: `Close ends a job: a round that is open fails, its charge stays spent, and no other is
ever opened. The model that was released last stays; the ledger says that nothing more
is spent. On a terminal it asks first; elsewhere it takes --yes.`,
		Args: named("JOB"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes {
				if err := confirm(cmd, "Close "+args[0]+" for good? A closed job never opens again."); err != nil {
					return err
				}
			}
			return c.showJob(cmd, repeated, func(ctx context.Context, o operator) (*undertonev1.Job, error) {
				r, err := o.CloseJob(ctx, &undertonev1.CloseJobRequest{Job: args[0]})
				return r.GetJob(), err
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.addTo(cmd)
	c.completeJobs(cmd)
	return cmd
}

// confirm asks a person, if there is one.
func confirm(cmd *cobra.Command, question string) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return flagf("yes", "is missing, and nobody is there to be asked: %s", question)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s [y/N] ", question)
	answer, err := bufio.NewReader(in).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(answer)); err == nil && (a == "y" || a == "yes") {
		return nil
	}
	return errors.New("nothing was done")
}

// roundFlags say which attempt; the zero values are the one that is open or
// comes next, and the job's state says which that is.
type roundFlags struct{ round, attempt uint32 }

func (r *roundFlags) addTo(cmd *cobra.Command, which string) {
	cmd.Flags().Uint32Var(&r.round, "round", 0, "`number` of the round (default: "+which+")")
	cmd.Flags().Uint32Var(&r.attempt, "attempt", 0, "`number` of the attempt (default: "+which+")")
	complete(cmd, "round", cobra.NoFileCompletions)
	complete(cmd, "attempt", cobra.NoFileCompletions)
}

// or fills what was not given in from what the job's attempts say.
func (r roundFlags) or(round, attempt uint32) roundFlags {
	if r.round == 0 {
		r.round = round
	}
	if r.attempt == 0 {
		r.attempt = attempt
	}
	return r
}

func openRoundCommand() *cobra.Command {
	var c connection
	var which roundFlags
	cmd := &cobra.Command{
		Use:   "open-round JOB",
		Short: "Open one round by hand",
		Long: `Open-round opens one attempt of one round of a job, paused or not. Its charge is
reserved first, or it is refused.`,
		Args: named("JOB"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.showJob(cmd, repeated, func(ctx context.Context, o operator) (*undertonev1.Job, error) {
				r, err := o.GetJob(ctx, &undertonev1.GetJobRequest{Job: args[0]})
				if err != nil {
					return nil, err
				}
				which = which.or(r.GetJob().GetReleased()+1, r.GetJob().GetNextAttempt())
				opened, err := o.OpenRound(ctx, &undertonev1.OpenRoundRequest{Job: args[0], Round: which.round, Attempt: which.attempt})
				return opened.GetJob(), err
			})
		},
	}
	which.addTo(cmd, "the next")
	c.addTo(cmd)
	c.completeJobs(cmd)
	return cmd
}

func closeRoundCommand() *cobra.Command {
	var c connection
	var which roundFlags
	cmd := &cobra.Command{
		Use:   "close-round JOB",
		Short: "End collecting before the deadline",
		Long: `Close-round closes the round that collects with what it has. With fewer
contributions than its n-min it fails, and what it was charged stays spent.`,
		Args: named("JOB"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.showJob(cmd, repeated, func(ctx context.Context, o operator) (*undertonev1.Job, error) {
				r, err := o.GetJob(ctx, &undertonev1.GetJobRequest{Job: args[0]})
				if err != nil {
					return nil, err
				}
				open := lastAttempt(r.GetJob())
				if which == (roundFlags{}) && open.GetPhase() != undertonev1.Phase_PHASE_COLLECTING {
					return nil, usagef("no round of %s collects", args[0])
				}
				which = which.or(open.GetRound(), open.GetAttempt())
				closed, err := o.CloseRound(ctx, &undertonev1.CloseRoundRequest{Job: args[0], Round: which.round, Attempt: which.attempt})
				return closed.GetJob(), err
			})
		},
	}
	which.addTo(cmd, "the one that collects")
	c.addTo(cmd)
	c.completeJobs(cmd)
	return cmd
}

func jobStatusCommand() *cobra.Command {
	var c connection
	var watch bool
	cmd := &cobra.Command{
		Use:   "status JOB",
		Short: "Show a job, its budget and its rounds",
		Long:  `Status shows a job: its terms, what it has spent, and every attempt at a round.`,
		Args:  named("JOB"),
		RunE: func(cmd *cobra.Command, args []string) error {
			get := func(ctx context.Context, o operator) (*undertonev1.Job, error) {
				r, err := o.GetJob(ctx, &undertonev1.GetJobRequest{Job: args[0]})
				return r.GetJob(), err
			}
			if !watch {
				return c.showJob(cmd, repeated, get)
			}
			return follow(cmd, func(w io.Writer) (string, bool, error) {
				j, err := c.getJob(cmd, repeated, get)
				if err != nil {
					return "", false, err
				}
				return j.stage(), j.over(), c.printJob(w, j)
			})
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "show it again whenever it changes, until the job is over")
	c.addTo(cmd)
	c.completeJobs(cmd)
	return cmd
}

func jobListCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use:               "list",
		Short:             "List the jobs",
		Args:              named(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			jobs := []*jobView{}
			err := c.call(cmd, repeated, func(ctx context.Context, o operator) error {
				r, err := o.ListJobs(ctx, &undertonev1.ListJobsRequest{})
				if err != nil {
					return err
				}
				for _, j := range r.GetJobs() {
					v, err := viewJob(j)
					if err != nil {
						return err
					}
					jobs = append(jobs, v)
				}
				return nil
			})
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), jobs)
			}
			return printJobs(cmd.OutOrStdout(), jobs)
		},
	}
	c.addTo(cmd)
	return cmd
}

// getJob makes a call that answers with a job.
func (c *connection) getJob(cmd *cobra.Command, again repeat, f func(context.Context, operator) (*undertonev1.Job, error)) (*jobView, error) {
	var j *undertonev1.Job
	err := c.call(cmd, again, func(ctx context.Context, o operator) (err error) {
		j, err = f(ctx, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	return viewJob(j)
}

func (c *connection) showJob(cmd *cobra.Command, again repeat, f func(context.Context, operator) (*undertonev1.Job, error)) error {
	j, err := c.getJob(cmd, again, f)
	if err != nil {
		return err
	}
	return c.printJob(cmd.OutOrStdout(), j)
}

func (c *connection) printJob(w io.Writer, j *jobView) error {
	if c.json {
		return printJSON(w, j)
	}
	return j.print(w)
}

// completeJobs offers the names of the jobs, if a server answers at once.
func (c *connection) completeJobs(cmd *cobra.Command) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.jobNames(cmd), cobra.ShellCompDirectiveNoFileComp
	}
}

// jobNames are the names of the jobs, for a shell.
func (c *connection) jobNames(cmd *cobra.Command) (names []string) {
	c.quickly(cmd)
	_ = c.call(cmd, once, func(ctx context.Context, o operator) error {
		r, err := o.ListJobs(ctx, &undertonev1.ListJobsRequest{})
		for _, j := range r.GetJobs() {
			if v, err := viewJob(j); err == nil {
				names = append(names, cobra.CompletionWithDesc(v.Name, v.State))
			}
		}
		return err
	})
	return names
}

// quickly makes a call that a person waits for while typing: it is short, and
// says nothing of its troubles.
func (c *connection) quickly(cmd *cobra.Command) {
	c.timeout = time.Second
	cmd.SetErr(io.Discard)
	if cmd.Context() == nil {
		cmd.SetContext(context.Background())
	}
}

func lastAttempt(j *undertonev1.Job) *undertonev1.Attempt {
	if n := len(j.GetAttempts()); n > 0 {
		return j.GetAttempts()[n-1]
	}
	return nil
}
