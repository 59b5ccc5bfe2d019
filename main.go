// Undertone learns one model for each of many users, from what they have in
// common, without seeing anybody's data: federated personalization under
// differential privacy.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/undertone-fl/undertone/commandline"
	server "github.com/undertone-fl/undertone/server/cli"
	simulations "github.com/undertone-fl/undertone/simulations/cli"
)

func main() {
	os.Exit(commandline.Run(newRoot(), os.Args[1:], os.Stderr))
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use: "undertone",
		Long: `Undertone learns one model for each of many users, from what they have in common,
without seeing anybody's data: federated personalization under differential
privacy. Undertone-agent is the clients' program.`,
		Example: `  undertone simulate
  undertone server --dev`,
	}
	add := func(title string, commands []*cobra.Command) {
		root.AddGroup(&cobra.Group{ID: title, Title: title})
		for _, cmd := range commands {
			cmd.GroupID = title
			root.AddCommand(cmd)
		}
	}
	add("Experiments", simulations.Commands())
	add("Service", server.Commands())
	add("Audit", []*cobra.Command{server.Audit(simulations.Canary(), simulations.Membership())})
	add("This program", commandline.Own(root))
	return root
}
