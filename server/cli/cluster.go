package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/server/authority"
	"github.com/undertone-fl/undertone/server/replication"
)

func statusCommand() *cobra.Command {
	var c connection
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the nodes of a cluster: who leads, who lags, who is not ready",
		Long: `Status shows every node as the one that answers sees it. Applied is the last entry
of the log that a node has applied, and behind how many fewer that is than the
furthest one's; two nodes that have applied the same entries have the same hash.`,
		Args:              named(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			show := func(w io.Writer) error {
				cluster, err := c.cluster(cmd)
				if err != nil {
					return err
				}
				if c.json {
					return printJSON(w, cluster)
				}
				return cluster.print(w)
			}
			if !watch {
				return show(cmd.OutOrStdout())
			}
			return follow(cmd, func(w io.Writer) (string, bool, error) {
				var text strings.Builder
				if err := show(&text); err != nil {
					return "", false, err
				}
				_, err := io.WriteString(w, text.String())
				return text.String(), false, err
			})
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "show it again whenever it changes")
	c.addTo(cmd)
	return cmd
}

// clusterView is a cluster to look at, and its form in JSON.
type clusterView struct {
	Node    string     `json:"node"` // who answered
	Clients uint64     `json:"clients"`
	Nodes   []nodeView `json:"nodes"`
}

type nodeView struct {
	Name      string   `json:"name"`
	Address   string   `json:"address"`
	API       string   `json:"api_address,omitempty"`
	Role      string   `json:"role"` // leader, voter, learner
	Reachable bool     `json:"reachable"`
	Ready     bool     `json:"ready"`
	NotReady  []string `json:"not_ready,omitempty"`
	Diverged  bool     `json:"diverged,omitempty"`
	Applied   uint64   `json:"applied"`
	Behind    uint64   `json:"behind"`
	Term      uint64   `json:"term"`
	Hash      string   `json:"hash"`
	Version   string   `json:"version"`
}

func (c *connection) cluster(cmd *cobra.Command) (*clusterView, error) {
	var r *undertonev1.GetClusterResponse
	err := c.call(cmd, repeated, func(ctx context.Context, o operator) (err error) {
		r, err = o.GetCluster(ctx, &undertonev1.GetClusterRequest{})
		return err
	})
	if err != nil {
		return nil, err
	}
	return viewCluster(r), nil
}

func viewCluster(r *undertonev1.GetClusterResponse) *clusterView {
	v := &clusterView{Node: r.GetNode(), Clients: r.GetClients(), Nodes: []nodeView{}}
	var furthest uint64
	for _, n := range r.GetNodes() {
		furthest = max(furthest, n.GetApplied())
	}
	for _, n := range r.GetNodes() {
		role := "learner"
		switch {
		case n.GetLeader():
			role = "leader"
		case n.GetVoter():
			role = "voter"
		}
		node := nodeView{
			Name: n.GetName(), Address: n.GetAddress(), API: n.GetApiAddress(), Role: role,
			Reachable: n.GetReachable(), NotReady: n.GetNotReady(), Diverged: n.GetDiverged(),
			Applied: n.GetApplied(), Term: n.GetTerm(), Hash: hex.EncodeToString(n.GetHash()), Version: n.GetVersion(),
		}
		if n.GetReachable() {
			node.Behind = furthest - n.GetApplied()
			node.Ready = len(n.GetNotReady()) == 0 && !n.GetDiverged()
		}
		v.Nodes = append(v.Nodes, node)
	}
	return v
}

// state is how a node is, in words.
func (n *nodeView) state() string {
	switch {
	case !n.Reachable:
		return "no answer"
	case n.Diverged:
		return "DIVERGED: its state differs from the others'; replace its data directory"
	case len(n.NotReady) > 0:
		return "not ready: " + strings.Join(n.NotReady, "; ")
	}
	return "ready"
}

func (v *clusterView) print(w io.Writer) error {
	t := table{header: []string{"NODE", "ROLE", "API", "APPLIED", "BEHIND", "HASH", "VERSION", "STATE"}}
	leader, voters, reached := "nobody leads", 0, 0
	for _, n := range v.Nodes {
		if n.Role == "leader" {
			leader = n.Name + " leads"
		}
		if n.Role != "learner" {
			voters++
			if n.Reachable {
				reached++
			}
		}
		if !n.Reachable {
			t.add(n.Name, n.Role, n.Address, "-", "-", "-", "-", n.state())
			continue
		}
		t.add(n.Name, n.Role, n.API, strconv.FormatUint(n.Applied, 10), strconv.FormatUint(n.Behind, 10),
			fmt.Sprintf("%.12s", n.Hash), n.Version, n.state())
	}
	if err := t.print(w); err != nil {
		return err
	}
	spare := fmt.Sprintf("%d more may fail", max(0, reached-voters/2-1))
	if reached <= voters/2 {
		spare = "too few to go on: no majority"
	}
	_, err := fmt.Fprintf(w, "\n%s; %d of %d voters answer, %s; %s ever took part (as %s says)\n",
		leader, reached, voters, spare, plural(v.Clients, "client"), v.Node)
	return err
}

func nodeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Change the membership of a cluster, and who leads",
		Long: `Node changes who belongs to a cluster. A new node joins by itself, when it is
started with the address of one that belongs (undertone server --peers); one that
will not come back is removed.`,
	}
	cmd.AddCommand(
		nodeChange("remove NODE", "Remove a node from the cluster",
			`Remove takes a node out of the cluster: its vote counts no more. What it holds
stays on its disk; to join again it needs an empty data directory.`,
			func(ctx context.Context, o operator, node string) error {
				_, err := o.RemoveNode(ctx, &undertonev1.RemoveNodeRequest{Node: node})
				return err
			}, "removed %s"),
		nodeChange("promote NODE", "Give a learner a vote",
			`Promote makes a learner, which joined with --learner, a voter.`,
			func(ctx context.Context, o operator, node string) error {
				_, err := o.PromoteNode(ctx, &undertonev1.PromoteNodeRequest{Node: node})
				return err
			}, "%s votes"),
		nodeChange("lead [NODE]", "Hand leadership on",
			`Lead hands leadership to a node, or to the one that is most up to date.`,
			func(ctx context.Context, o operator, node string) error {
				_, err := o.TransferLeadership(ctx, &undertonev1.TransferLeadershipRequest{Node: node})
				return err
			}, "leadership was handed to %s"),
	)
	return cmd
}

// nodeChange is a command about one node.
func nodeChange(use, short, long string, change func(context.Context, operator, string) error, done string) *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long,
		RunE: func(cmd *cobra.Command, args []string) error {
			node := strings.Join(args, "")
			err := c.call(cmd, once, func(ctx context.Context, o operator) error { return change(ctx, o, node) })
			if err != nil {
				return err
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), map[string]string{"node": node})
			}
			if node == "" {
				node = "another node"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), done+"\n", node)
			return err
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			c.quickly(cmd)
			if cluster, err := c.cluster(cmd); err == nil {
				for _, n := range cluster.Nodes {
					names = append(names, cobra.CompletionWithDesc(n.Name, n.Role+", "+n.state()))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
	takes := named("NODE")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 && strings.Contains(use, "[") {
			return nil
		}
		return takes(cmd, args)
	}
	c.addTo(cmd)
	return cmd
}

func backupCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write a backup of a cluster's state",
		Long: `Backup writes everything that was committed before the call - jobs, rounds, who
took part, budgets, models - into a file that may not be there yet; - is stdout.
It holds no keys, and nothing of what an open round has collected: that attempt is
in it as failed. See undertone restore.`,
		Example: `  undertone backup undertone-$(date +%F).backup`,
		Args:    named("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			shown := arrivals{w: cmd.ErrOrStderr()}
			write := func(w io.Writer) error {
				defer shown.end()
				return c.call(cmd, once, func(ctx context.Context, o operator) error {
					stream, err := o.Backup(ctx, &undertonev1.BackupRequest{})
					if err != nil {
						return err
					}
					return receive(io.MultiWriter(w, &shown), stream)
				})
			}
			if args[0] == "-" {
				return write(cmd.OutOrStdout())
			}
			if exists(args[0]) {
				return usagef("%s: there is something already, and nothing is overwritten", args[0])
			}
			if err := draftOf(args[0], 0o600, func(d draft) error { return write(d) }); err != nil {
				return err
			}
			if c.json {
				return printJSON(cmd.OutOrStdout(), map[string]any{"file": args[0], "bytes": shown.n})
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", args[0], size(shown.n))
			return err
		},
	}
	c.addTo(cmd)
	return cmd
}

func recoverCommand() *cobra.Command {
	var dir string
	var members []string
	var accept bool
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Go on after a majority of the nodes was lost for good",
		Long: `Recover rewrites the membership in the data directory of a node that is stopped.
Do it on every node that is left, with the same members, and start them.

What only the lost nodes had acknowledged is gone: contributions, and perhaps a charge
or a release, so that what a job has spent may be understated by it. Devices that saw
it wait until the log is as long again as it was, and refuse a job of which they have
seen a later or another release. And the lost nodes may never come back: two clusters
would spend one budget. So it takes --accept-loss.`,
		Example:           `  undertone recover --data-dir /var/lib/undertone --member n1=n1.example.org:7301 --accept-loss`,
		Args:              named(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case dir == "":
				return flagf("data-dir", "is missing")
			case len(members) == 0:
				return flagf("member", "is missing: name the nodes that are left, NAME=HOST:PORT each")
			}
			addresses := make(map[string]string, len(members))
			for _, m := range members {
				name, address, ok := strings.Cut(m, "=")
				if !ok || name == "" {
					return flagf("member", "%q is not NAME=HOST:PORT", m)
				}
				if err := checkAddress("member", address); err != nil {
					return err
				}
				if _, twice := addresses[name]; twice {
					return flagf("member", "%s stands twice", name)
				}
				addresses[name] = address
			}
			if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
				return flagf("data-dir", "%w", pathProblem(err))
			}
			if !accept {
				return flagf("accept-loss", "is missing: what only the lost nodes had acknowledged will be gone")
			}
			if err := replication.Recover(dir, addresses); err != nil {
				return flagf("data-dir", "%w", pathProblem(err))
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: the cluster is %s now\n", dir, strings.Join(members, ", "))
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "data-dir", "", "data `directory` of the node")
	cmd.Flags().StringSliceVar(&members, "member", nil, "`NAME=HOST:PORT` of a node that is left; once for each")
	cmd.Flags().BoolVar(&accept, "accept-loss", false, "what only the lost nodes had acknowledged may go")
	complete(cmd, "data-dir", directories)
	complete(cmd, "member", cobra.NoFileCompletions)
	return cmd
}

// checkAddress checks that others can use an address.
func checkAddress(flag, address string) error {
	if !isAddress(address) {
		return flagf(flag, "%q is no address HOST:PORT", address)
	}
	return nil
}

func isAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || authority.CheckHost(host) != nil {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}
