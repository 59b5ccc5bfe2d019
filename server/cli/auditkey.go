package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"

	"github.com/undertone-fl/undertone/commandline"
	"github.com/undertone-fl/undertone/dp/ledger"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
)

func auditKeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make, publish and rotate the key that signs the ledger",
		Long: `Every node has the secret key of the ledger, and signs with it the checkpoints that
auditors and devices verify. Undertone ca init makes one; generate makes one for
clusters that have another authority, and the next one for a rotation.`,
	}
	cmd.AddCommand(keyGenerateCommand(), keyPublishCommand(), keyRotateCommand())
	return cmd
}

func keyGenerateCommand() *cobra.Command {
	var cluster, out string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Make a key pair",
		Long: `Generate makes two files: OUT.key, the secret key, for nodes alone (--ledger-keys, or
ledger.key beside their certificate), and OUT.pub, the public one, for all who verify.
Nothing is overwritten.`,
		Example: `  undertone audit key generate
  undertone audit key generate --out ledger-next`,
		Args:              named(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := mustNotBeDash("out", out); err != nil {
				return err
			}
			public, pair, err := newLedgerKey(cluster)
			if err != nil {
				return flagf("cluster", "%w", err)
			}
			secretPath, publicPath := out+".key", out+".pub"
			for _, path := range []string{secretPath, publicPath} {
				if exists(path) {
					return flagf("out", "%s: there is something already, and nothing is overwritten", path)
				}
			}
			if _, err := os.Stat(filepath.Dir(out)); err != nil {
				return flagf("out", "%w", pathProblem(err))
			}
			for i, path := range []string{secretPath, publicPath} {
				if err := writeAtomically(path, pair[i].Text, pair[i].Mode); err != nil {
					return err
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]string{"secret": secretPath, "public": publicPath, "key": public})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is for nodes alone; %s is for all who verify:\n%s\n", secretPath, publicPath, public)
			return err
		},
	}
	cmd.Flags().StringVar(&cluster, "cluster", defaultCluster, "`name` of the cluster, which its ledger bears")
	cmd.Flags().StringVar(&out, "out", "ledger", "`path` of the files, without .key and .pub")
	complete(cmd, "cluster", cobra.NoFileCompletions)
	complete(cmd, "out", files())
	addJSONFlag(cmd, &asJSON)
	return cmd
}

func keyPublishCommand() *cobra.Command {
	var p publishing
	cmd := &cobra.Command{
		Use:   "publish [FILE]",
		Short: "Print the public key, of a key file or of a cluster",
		Long: `Publish prints the public key of a key file or, without one, the key that a cluster
signs with now, followed rotation by rotation from the key that you trust. --out puts
it into a file, all of it or nothing, once it is verified: also into the file of the
key that you trust, which a shell's > would have emptied before it could be read.

Who holds no key yet has it from whoever they trust. --unverified prints the cluster's
own word for it, to be compared with what they say.`,
		Example: `  undertone audit key publish ledger.key
  undertone audit key publish --key ledger.pub --out ledger.pub`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return p.file(cmd, args[0])
			}
			return p.cluster(cmd)
		},
	}
	cmd.Flags().StringVar(&p.key, "key", "", "public key that is trusted, as `text or a file` (default: $"+envLedgerKey+", or ledger.pub in the identity's directory)")
	cmd.Flags().StringVar(&p.out, "out", "", "write the key into a `file`, in the place of another key of the same ledger or of none")
	cmd.Flags().BoolVar(&p.unverified, "unverified", false, "without a key that is trusted: print what the cluster says")
	commandline.AddParts(cmd, p.part(false))
	p.completeServer(cmd)
	complete(cmd, "key", files("pub"))
	complete(cmd, "out", files("pub"))
	cmd.Args = optional("FILE")
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return []string{"key", "pub"}, cobra.ShellCompDirectiveFilterFileExt
	}
	return cmd
}

// publishing is what undertone audit key publish is told.
type publishing struct {
	source
	out        string
	unverified bool

	before note.Verifier // the key in the file out; nil: none
}

// put prints keys, or puts the one there is into the file that it is for.
func (p *publishing) put(cmd *cobra.Command, keys ...string) error {
	if p.out == "" {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), strings.Join(keys, "\n"))
		return err
	}
	if len(keys) != 1 {
		return flagf("out", "there are %d keys, and %s is to hold one", len(keys), p.out)
	}
	if key, err := ledger.ParseKey(keys[0]); p.before != nil && (err != nil || key.Name() != p.before.Name()) {
		return flagf("out", "%s: there is a key of another ledger, %q", p.out, p.before.Name())
	}
	if err := writeAtomically(p.out, []byte(keys[0]+"\n"), 0o644); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", p.out, keys[0])
	return nil
}

// checkOut refuses to replace what is no public key; and a key, by what is not verified.
func (p *publishing) checkOut() error {
	if p.out == "" {
		return nil
	}
	if err := mustNotBeDash("out", p.out); err != nil {
		return err
	}
	text, err := os.ReadFile(p.out)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("--out: %w", problemAt(p.out, err))
	case p.unverified:
		return flagf("out", "%s: there is something already, and what is not verified replaces nothing", p.out)
	}
	if p.before, err = ledger.ParseKey(strings.TrimSpace(string(text))); err != nil {
		return flagf("out", "%s: there is something else already, and nothing but a public key of a ledger is replaced", p.out)
	}
	return nil
}

// file publishes the keys of a file of secret ones, or of a public one.
func (p *publishing) file(cmd *cobra.Command, path string) error {
	if p.unverified {
		return flagf("unverified", "is of a cluster's word, and %s is a file", path)
	}
	if err := p.checkOut(); err != nil {
		return err
	}
	text, err := readInput(cmd, path)
	if err != nil {
		return err
	}
	var keys []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		_, public, err := ledger.ParseSecret(line)
		if err != nil {
			if _, notPublic := ledger.ParseKey(line); notPublic != nil {
				return usagef("%s: no key of a ledger", path)
			}
			public = line
		}
		keys = append(keys, public)
	}
	switch {
	case len(keys) == 0:
		return usagef("%s: no key of a ledger", path)
	case p.json && p.out == "":
		return printJSON(cmd.OutOrStdout(), map[string][]string{"keys": keys})
	}
	if err := p.put(cmd, keys...); err != nil || !p.json {
		return err
	}
	return printJSON(cmd.OutOrStdout(), map[string]any{"keys": keys, "file": p.out})
}

// published is a cluster's key, in JSON.
type published struct {
	Key       string   `json:"key"` // public, that signs now
	Verified  bool     `json:"verified"`
	Trusted   string   `json:"trusted,omitempty"` // key that it was followed from
	Rotations []string `json:"rotations"`         // all keys after the first, in order
	Records   int64    `json:"records"`
	File      string   `json:"file,omitempty"` // that has it now
}

// cluster publishes the key that a cluster signs with.
func (p *publishing) cluster(cmd *cobra.Command) error {
	trusted, from, err := p.trusted(&p.connection)
	switch {
	case errors.Is(err, errNoKey) && !p.unverified:
		return fmt.Errorf("%w (--unverified prints the cluster's own word, to compare)", err)
	case err != nil && !errors.Is(err, errNoKey):
		return err // also of a key that was lost: the cluster's word is not to take its place
	case err == nil && p.unverified:
		return flagf("unverified", "there is a key that is trusted, %s: nothing has to be taken on the cluster's word", from)
	}
	if err := p.checkOut(); err != nil {
		return err
	}
	var l *undertonev1.Ledger
	err = p.keep(cmd, repeated, func(ctx context.Context, b books) error {
		r, err := b.GetCheckpoint(ctx, &undertonev1.GetCheckpointRequest{})
		l = r.GetLedger()
		return err
	})
	if err != nil {
		return err
	}
	result := published{Key: l.GetKey(), Trusted: trusted, Verified: trusted != "", Rotations: []string{}, File: p.out}
	var rotations []*ledger.KeyRotated
	for _, record := range l.GetRotations() {
		e, err := ledger.Decode(record)
		rotated, ok := e.(*ledger.KeyRotated)
		if err != nil || !ok {
			return errors.New("the cluster's answer is no list of rotations")
		}
		rotations, result.Rotations = append(rotations, rotated), append(result.Rotations, rotated.Key)
	}
	if trusted == "" {
		trusted = l.GetKey()
	}
	key, err := ledger.FollowKeys(trusted, rotations)
	if err != nil {
		return err
	}
	checkpoint, err := ledger.OpenCheckpoint(l.GetCheckpoint(), key)
	if err != nil {
		return fmt.Errorf("the cluster signs with another key than the one that is trusted leads to: %w", err)
	}
	signs, err := ledger.ParseKey(l.GetKey())
	if err != nil || signs.KeyHash() != key.KeyHash() || signs.Name() != key.Name() {
		return errors.New("the cluster names another key than it signs with")
	}
	result.Records = checkpoint.Size
	if result.Verified {
		fmt.Fprintf(cmd.ErrOrStderr(), "followed from the key of %s; it signs %s\n", from, plural(checkpoint.Size, "record"))
	} else {
		fmt.Fprintf(cmd.ErrOrStderr(), "NOT VERIFIED: this is the cluster's word\n")
	}
	if p.out != "" || !p.json {
		if err := p.put(cmd, result.Key); err != nil || !p.json {
			return err
		}
	}
	return printJSON(cmd.OutOrStdout(), result)
}

func keyRotateCommand() *cobra.Command {
	var c connection
	var force bool
	cmd := &cobra.Command{
		Use:   "rotate KEY",
		Short: "Hand the ledger on to the next key",
		Long: `Rotate has the key that signs the ledger endorse the next one, on record: KEY, its
public half, as text or a file. From then on the next key signs. Who holds an earlier
public key goes on with it, and follows the rotations that every answer brings.

  1. undertone audit key generate --out ledger-next
  2. on every node: cat ledger-next.key >> ledger.key, in the file that --ledger-keys
     names, or beside the certificate; nodes read it without being restarted. In the
     authority's directory too, for nodes to come.
  3. undertone audit key rotate ledger-next.pub
     It first asks every node whether it has the key. One that has not stops serving
     with the rotation, and says so, until it has.
  4. replace the authority's ledger.pub by the next one, ledger-next.pub: until then
     undertone ca issue refuses to hand out the old one.
  5. later, take the old key out of the files; whoever holds the old public key has
     the new one with it: undertone audit key publish --key ledger.pub --out ledger.pub

Deleting the old key is what a rotation is for: who stole it could sign histories for
those who still hold its public half, and endorse a next key of their own.`,
		Example: `  undertone audit key rotate ledger-next.pub`,
		Args:    named("KEY"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []string{"pub"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			key, _, err := publicKey(args[0])
			if err != nil {
				return usagef("KEY: %w", err)
			}
			if !force {
				if err := c.allHave(cmd, key); err != nil {
					return err
				}
			}
			var l *undertonev1.Ledger
			err = c.keep(cmd, repeated, func(ctx context.Context, b books) error {
				r, err := b.RotateKey(ctx, &undertonev1.RotateKeyRequest{Key: key})
				l = r.GetLedger()
				return err
			})
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), map[string]any{"key": l.GetKey(), "rotations": len(l.GetRotations())})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "the ledger is signed with %s\n", l.GetKey())
			return err
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also if a node has not the key, or does not answer")
	c.addAuditTo(cmd, nil)
	return cmd
}

// allHave asks every node of the cluster whether it has the keys of a rotation.
func (c *connection) allHave(cmd *cobra.Command, key string) error {
	cluster, err := c.cluster(cmd)
	if err != nil {
		return err
	}
	for _, n := range cluster.Nodes {
		at := *c
		at.servers = []string{n.API}
		err := errors.New("it does not answer")
		if n.Reachable {
			err = at.with(cmd, once, func(ctx context.Context, conn *grpc.ClientConn) error {
				_, err := undertonev1grpc.NewLedgerServiceClient(conn).RotateKey(ctx, &undertonev1.RotateKeyRequest{Key: key, Check: true})
				return err
			})
		}
		if err != nil {
			return fmt.Errorf("%s: %w; nothing is rotated (--force does it all the same)", n.Name, err)
		}
	}
	return nil
}
