package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
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
	var s source
	cmd := &cobra.Command{
		Use:   "publish [FILE]",
		Short: "Print the public key, of a key file or of a cluster",
		Long: `Publish prints the public key of a key file or, without one, the key that a cluster
signs with now. That one is followed, rotation by rotation, from the key that you
trust, where there is one; else it is the cluster's word, and stderr says so.`,
		Example: `  undertone audit key publish ledger.key
  undertone audit key publish --key ledger.pub`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return publishFile(cmd, args[0], s.json)
			}
			return s.publish(cmd)
		},
	}
	commandline.AddParts(cmd, s.part(false))
	s.completeServer(cmd)
	cmd.Flags().StringVar(&s.key, "key", "", "public key that is trusted, as `text or a file` (default: $"+envLedgerKey+", or ledger.pub in the identity's directory)")
	complete(cmd, "key", files("pub"))
	cmd.Args = optional("FILE")
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return []string{"key", "pub"}, cobra.ShellCompDirectiveFilterFileExt
	}
	return cmd
}

// publishFile prints the public keys of a file of secret ones, or of a public one.
func publishFile(cmd *cobra.Command, path string, asJSON bool) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return &commandline.UsageError{Err: pathProblem(err)}
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
	case asJSON:
		return printJSON(cmd.OutOrStdout(), map[string][]string{"keys": keys})
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.Join(keys, "\n"))
	return err
}

// published is a cluster's key, in JSON.
type published struct {
	Key       string   `json:"key"` // public, that signs now
	Verified  bool     `json:"verified"`
	Trusted   string   `json:"trusted,omitempty"` // key that it was followed from
	Rotations []string `json:"rotations"`         // all keys after the first, in order
	Records   int64    `json:"records"`
}

func (s *source) publish(cmd *cobra.Command) error {
	trusted, from, err := s.trusted(&s.connection)
	if err != nil && (s.key != "" || os.Getenv(envLedgerKey) != "") {
		return err
	}
	var l *undertonev1.Ledger
	err = s.keep(cmd, repeated, func(ctx context.Context, b books) error {
		r, err := b.GetCheckpoint(ctx, &undertonev1.GetCheckpointRequest{})
		l = r.GetLedger()
		return err
	})
	if err != nil {
		return err
	}
	p := published{Key: l.GetKey(), Trusted: trusted, Verified: trusted != "", Rotations: []string{}}
	var rotations []*ledger.KeyRotated
	for _, record := range l.GetRotations() {
		e, err := ledger.Decode(record)
		rotated, ok := e.(*ledger.KeyRotated)
		if err != nil || !ok {
			return errors.New("the cluster's answer is no list of rotations")
		}
		rotations, p.Rotations = append(rotations, rotated), append(p.Rotations, rotated.Key)
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
	p.Records = checkpoint.Size
	if s.json {
		return printJSON(cmd.OutOrStdout(), p)
	}
	if p.Verified {
		fmt.Fprintf(cmd.ErrOrStderr(), "followed from the key of %s; it signs %s\n", from, plural(checkpoint.Size, "record"))
	} else {
		fmt.Fprintf(cmd.ErrOrStderr(), "NOT VERIFIED: without --key this is the cluster's word\n")
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), p.Key)
	return err
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
  5. later, take the old key out of the files; publish the new one:
     undertone audit key publish > ledger.pub

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
			err = at.with(cmd, func(ctx context.Context, conn *grpc.ClientConn) error {
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
