package cli

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/undertone-fl/undertone/commandline"
	"github.com/undertone-fl/undertone/dp/ledger"
)

func auditVerifyCommand() *cobra.Command {
	var a auditor
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Verify a ledger that was fetched, without any server",
		Long: `Verify computes everything in a ledger anew: every hash, the checkpoint's signature,
every charge from the noise that it pays for, the order of events, the budget after each
of them. It names the first thing that is wrong, with exit status 1. FILE may be -, for
stdin.

The key is the one that you hold; after a rotation it still leads to the key that signs
now. The checkpoint of the last ledger that was verified with the key is kept, and the
next one must extend it: no record can have been changed or taken back since.`,
		Example: `  undertone audit verify ledger.zip --key ledger.pub
  undertone audit verify ledger.zip --key ledger.pub --seen movies.checkpoint --json`,
		Args:              named("FILE"),
		ValidArgsFunction: completeBundle,
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readBundle(cmd, args[0])
			if err != nil {
				return err
			}
			v, err := a.verifyFile(cmd, new(connection), args[0], b)
			w := cmd.OutOrStdout()
			switch fault := (*ledger.Fault)(nil); {
			case asJSON && errors.As(err, &fault):
				return errors.Join(printJSON(w, faultView(args[0], fault)), err)
			case err != nil:
				return err
			case asJSON:
				return printJSON(w, v.view(args[0]))
			}
			return v.print(w, args[0])
		},
	}
	commandline.AddParts(cmd, a.flags())
	a.complete(cmd)
	addJSONFlag(cmd, &asJSON)
	return cmd
}

// verdict is the result of verifying a ledger, in JSON.
type verdict struct {
	File    string `json:"file"`
	OK      bool   `json:"ok"`
	Problem string `json:"problem,omitempty"` // the first
	Record  *int64 `json:"record,omitempty"`  // that it is in
	Job     string `json:"job,omitempty"`

	Origin    string `json:"origin,omitempty"`
	Records   int64  `json:"records,omitempty"`
	Root      string `json:"root,omitempty"` // hex
	Key       string `json:"key,omitempty"`  // public, that signs now
	Rotations int    `json:"key_rotations,omitempty"`
	Extends   int64  `json:"extends,omitempty"` // records of the checkpoint that was kept
	Kept      string `json:"kept,omitempty"`    // file of the checkpoint
	// Strangers are files that were not compared: of ledgers of this name, under keys
	// that are none of this one's.
	Strangers []string     `json:"not_compared,omitempty"`
	Restored  []int64      `json:"restored,omitempty"`      // records at which the cluster went on from a backup
	Ahead     int          `json:"dated_ahead,omitempty"`   // records dated after this machine's clock
	Before    int64        `json:"before_ledger,omitempty"` // records, after the first, of before the ledger began
	Warnings  []string     `json:"warnings,omitempty"`
	Jobs      []jobVerdict `json:"jobs,omitempty"`
	Seconds   float64      `json:"seconds,omitempty"`
}

type jobVerdict struct {
	Job      string  `json:"job"`
	Status   string  `json:"status"`
	Released int     `json:"released"`
	Rounds   int     `json:"rounds"`
	Failed   int     `json:"failed_attempts"`
	Spent    float64 `json:"epsilon_spent"`
	Cap      float64 `json:"epsilon_promised"`
	Delta    float64 `json:"delta"`
}

func faultView(file string, f *ledger.Fault) verdict {
	v := verdict{File: file, Problem: f.Problem, Job: f.Job}
	if f.Record >= 0 {
		v.Record = &f.Record
	}
	return v
}

func (v *verified) view(file string) verdict {
	h := v.history
	out := verdict{
		File: file, OK: true, Origin: h.Checkpoint.Origin, Records: h.Checkpoint.Size, Root: h.Checkpoint.Root.String(),
		Key: h.Key, Rotations: h.Rotations, Extends: v.seen.Size, Kept: v.keptAt, Strangers: v.strangers,
		Restored: h.Restored, Before: h.Before, Ahead: v.report.Ledger.Ahead, Seconds: v.took.Seconds(),
	}
	for _, d := range h.Doubts {
		out.Warnings = append(out.Warnings, d.String())
	}
	for _, j := range v.report.Jobs {
		out.Jobs = append(out.Jobs, jobVerdict{j.Name, j.Status, j.Released, j.Rounds, j.FailedAttempts, j.Spent.Epsilon, j.Cap.Epsilon, j.Delta})
	}
	return out
}

func (v *verified) print(w io.Writer, file string) error {
	h := v.history
	var f facts
	f.add("verified", "%s, in %v", file, v.took.Round(10*time.Microsecond))
	f.add("ledger", "%s: %s, %s to %s", h.Checkpoint.Origin, plural(h.Checkpoint.Size, "record"), v.report.Ledger.Began, v.report.Ledger.Last)
	key := h.Key
	if h.Rotations > 0 {
		key += fmt.Sprintf(" (after %s)", plural(h.Rotations, "rotation"))
	}
	f.add("signed with", "%s", key)
	f.add("trusted", "the key of %s", v.keyFrom)
	f.add("root", "%v", h.Checkpoint.Root)
	switch {
	case v.keptAt == "":
		f.add("checkpoint", "compared with none, and not kept")
	case v.seen.Size == 0:
		f.add("checkpoint", "the first, kept in %s", v.keptAt)
		for _, path := range v.strangers {
			f.add("", "not compared with %s, of a ledger of this name under a key that is none of this one's", path)
		}
	default:
		f.add("checkpoint", "extends the %s seen before; kept in %s", plural(v.seen.Size, "record"), v.keptAt)
	}
	if h.Before == 1 {
		f.add("carried over", "the first record after the beginning is of before the ledger: its time is the operator's word")
	} else if h.Before > 1 {
		f.add("carried over", "the first %d records are of before the ledger: their times are the operator's word", h.Before)
	}
	for _, record := range h.Restored {
		f.add("restored", "from a backup at record %d: what came between the two is not in this ledger", record)
	}
	if v.report.Ledger.Ahead > 0 {
		f.add("WARNING", "%s", v.report.Ledger.AheadMeans())
	}
	for _, d := range h.Doubts {
		f.add("WARNING", "%v", d)
	}
	if err := f.print(w); err != nil || len(v.report.Jobs) == 0 {
		return err
	}
	fmt.Fprintln(w)
	t := table{header: []string{"JOB", "STATUS", "RELEASED", "FAILED", "EPSILON SPENT", "OF", "DELTA"}}
	for _, j := range v.report.Jobs {
		t.add(j.Name, j.Status, fmt.Sprintf("%d/%d", j.Released, j.Rounds), strconv.Itoa(j.FailedAttempts),
			figure(j.Spent.Epsilon), figure(j.Cap.Epsilon), fmt.Sprintf("%g", j.Delta))
	}
	return t.print(w)
}
