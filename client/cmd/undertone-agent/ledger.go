package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/undertone-fl/undertone/client"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/commandline"
)

// printLedger is what status says of the servers' ledger, and of those before.
func printLedger(w io.Writer, l *client.LedgerStatus, former []*client.LedgerStatus) {
	if l == nil {
		fmt.Fprintln(w, "ledger: none seen yet")
		return
	}
	how := "trusted when it was first shown"
	if l.Pinned {
		how = "pinned"
	}
	fmt.Fprintf(w, "ledger: %d records, root %.8v, key %s (%s)\n", l.Size, l.Root, l.Key, how)
	printFork(w, "ledger", l)
	for _, f := range former {
		fmt.Fprintf(w, "followed before: %d records, root %.8v, key %s\n", f.Size, f.Root, f.Key)
		printFork(w, "followed before", f)
	}
}

func printFork(w io.Writer, what string, l *client.LedgerStatus) {
	if l.Fork == nil {
		return
	}
	verdict := "may have been shown, and every sync asks for one that extends both: until then nothing is sent"
	if l.Fork.Proven {
		verdict = "were shown, which is proven: nothing is sent under it any more"
	}
	fmt.Fprintf(w, "%s: TWO HISTORIES %s (the other is from %s: undertone-agent checkpoint --other)\n", what, verdict, cmp.Or(l.Fork.Server, "elsewhere"))
}

func checkpointCommand() *cobra.Command {
	var f flags
	var other bool
	cmd := &cobra.Command{
		Use:   "checkpoint",
		Short: "Print the last checkpoint seen of the servers' ledger, offline",
		Long: `Print the last checkpoint that was seen of the servers' ledger: a signed note. Others
can compare it with what they are shown: a client with undertone-agent compare
--checkpoint, an auditor with undertone audit verify --seen. Where two histories were
shown, or may have been, the two notes (--other prints the second) are the evidence;
--json has both, the keys that signed them, the proof that failed, and whether the two are
proof (proven) or one ledger may yet extend them.`,
		Example: `  undertone-agent checkpoint --dir alice > alice.note`,
		Args:    commandline.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := f.offline()
			if err != nil {
				return err
			}
			s, err := d.Status()
			if err != nil {
				return err
			}
			l := s.Ledger
			switch {
			case l == nil:
				return errors.New("no ledger was seen yet")
			case other && l.Fork == nil:
				return errors.New("no other history was seen")
			case f.json:
				return json.NewEncoder(cmd.OutOrStdout()).Encode(l)
			case other:
				_, err = io.WriteString(cmd.OutOrStdout(), l.Fork.Note)
			default:
				_, err = io.WriteString(cmd.OutOrStdout(), l.Note)
			}
			return err
		},
	}
	what := func() *pflag.FlagSet {
		fl := commandline.Part("What to print")
		fl.BoolVar(&other, "other", false, "the one that is not of the same history, where one was shown")
		return fl
	}
	f.addTo(cmd, f.own, what)
	return cmd
}

func compareCommand() *cobra.Command {
	var f flags
	var checkpoint string
	cmd := &cobra.Command{
		Use:   "compare --checkpoint FILE",
		Short: "Hold another's checkpoint against the servers' ledger",
		Long: `Hold a checkpoint that somebody else kept, another client (undertone-agent checkpoint)
or an auditor, against the ledger that this client is shown. Servers that show two
histories are found out by the first two who compare: they can show no ledger that extends
both. Then this client sends nothing more, and keeps the evidence.`,
		Example: `  undertone-agent compare --checkpoint bob.note --dir alice --server n1:7300 --identity certs/client/alice`,
		Args:    commandline.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if checkpoint == "" {
				return commandline.Flagf("checkpoint", "is missing: a file with another's checkpoint")
			}
			note, err := os.ReadFile(checkpoint)
			if err != nil {
				return fileMistake("checkpoint", err)
			}
			c, err := f.connected(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if c.Identity, err = f.files(); err != nil {
				return err
			}
			if c.LedgerKey, err = f.publicKey(f.identity); err != nil {
				return err
			}
			c.Samples = client.Fixed(local.Samples{})
			d, err := client.Open(c)
			if err != nil {
				return asMistake(err)
			}
			defer d.Close()
			if err := d.Compare(cmd.Context(), note); err != nil {
				return err
			}
			s, err := d.Status()
			if err != nil {
				return err
			}
			if f.json {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(s.Ledger)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "one history, of %d records\n", s.Ledger.Size)
			return err
		},
	}
	what := func() *pflag.FlagSet {
		fl := commandline.Part("What to compare")
		fl.StringVar(&checkpoint, "checkpoint", "", "`file` with another's checkpoint, a signed note")
		return fl
	}
	f.addTo(cmd, what, f.own, f.network)
	return cmd
}
