// Undertone learns one model for each of many users, from what they have in
// common, without seeing anybody's data: federated personalization under
// differential privacy.
package main

import (
	"os"

	"github.com/spf13/cobra"

	server "github.com/undertone-fl/undertone/server/cli"
	simulations "github.com/undertone-fl/undertone/simulations/cli"
)

func main() {
	os.Exit(run(newRoot(), os.Args[1:], os.Stderr))
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "undertone",
		Short: "Federated personalization under differential privacy",
	}
	root.AddCommand(simulations.Commands()...)
	root.AddCommand(server.Commands()...)
	root.AddCommand(versionCommand())
	return root
}
