package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/server/replication"
)

func restoreCommand() *cobra.Command {
	var dir, name, advertise, newLedger string
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a data directory out of a backup",
		Long: `Restore makes the data directory of the first node of a new cluster, with the jobs,
budgets and models of a backup. Start that node with --bootstrap-expect 0 and no
--peers, and the others with it as their peer.

Every job is paused, and an attempt that was open has failed, its charge spent.
Further attempts have numbers that none had before, so devices that took part after
the backup take part again.

What was spent and released after the backup is not in it, and cannot be known: what
a job has spent may be understated, and devices refuse a job of which they have seen
a later or another release. So do not open a job that went on after the backup:
leave it paused and create a new one. What both spend adds up.

The ledger goes on, with a record that says so. To devices and auditors who saw more of
it than the backup has, that is a second history: they refuse it, as what was spent
since is not in it. If there may be any, begin another ledger: make a key under another
name (undertone audit key generate --cluster NAME), give its public half here as
--new-ledger and the secret one to every node (--ledger-keys), and tell everybody why,
with the public key. The new ledger has the history of all jobs. A device follows it
once its owner gives it that key (undertone-agent --ledger-key), and keeps the former
checkpoint, its charges and its cap; an auditor keeps a checkpoint of each. Nobody is
moved to it without that.

The old cluster may not go on beside the new one, and a backup is restored once, as
the budget would be spent twice, and two attempts have one number. To restore again,
take the backup of the new cluster.`,
		Example: `  undertone restore undertone.backup --data-dir /var/lib/undertone --name n1 --advertise n1.example.org:7301
  undertone restore undertone.backup --data-dir /var/lib/undertone --name n1 --advertise n1.example.org:7301 --new-ledger ledger-2.pub`,
		Args: named("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case dir == "":
				return flagf("data-dir", "is missing")
			case name == "":
				return flagf("name", "is missing")
			}
			if err := checkAddress("advertise", advertise); err != nil {
				return err
			}
			var another *rounds.BeginLedger
			if newLedger != "" {
				var err error
				if another, err = beginning(newLedger); err != nil {
					return flagf("new-ledger", "%w", err)
				}
			}
			backup := cmd.InOrStdin()
			if args[0] != dash {
				f, err := os.Open(args[0])
				if err != nil {
					return problemAt(args[0], err)
				}
				defer f.Close()
				backup = f
			}
			err := replication.RestoreBackup(dir, name, advertise, backup, another)
			switch {
			case errors.Is(err, rounds.ErrSameOrigin):
				return flagf("new-ledger", "the ledger of the backup is %q, too: make a key under another name (undertone audit key generate --cluster NAME)", another.Origin)
			case err != nil:
				return blame(fmt.Errorf("%s: %w", args[0], pathProblem(err)))
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: the first node, %s, of a new cluster\n", dir, name)
			if another != nil && err == nil {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "its ledger is %s, a new one; devices and auditors follow it who are given its key:\n%s\n", another.Origin, another.Key)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "data-dir", "", "`directory` to make; it may be there, but empty")
	cmd.Flags().StringVar(&name, "name", "", "`name` of the node, its certificate's")
	cmd.Flags().StringVar(&advertise, "advertise", "", "`address` HOST:PORT where other nodes will reach it")
	cmd.Flags().StringVar(&newLedger, "new-ledger", "", "public key of another ledger to begin, as `text or a file` (default: the backup's ledger goes on)")
	complete(cmd, "data-dir", directories)
	complete(cmd, "name", cobra.NoFileCompletions)
	complete(cmd, "advertise", cobra.NoFileCompletions)
	complete(cmd, "new-ledger", files("pub"))
	return cmd
}

// beginning is of the ledger that a public key belongs to, as text or in a file.
func beginning(text string) (*rounds.BeginLedger, error) {
	text, _, err := publicKey(text)
	if err != nil {
		return nil, err
	}
	key, err := ledger.ParseKey(text)
	if err != nil {
		return nil, err
	}
	return &rounds.BeginLedger{Origin: key.Name(), Key: text}, ledger.CheckKey(key.Name(), text)
}
