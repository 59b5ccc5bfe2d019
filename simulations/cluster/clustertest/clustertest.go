// Package clustertest lets a test binary be the servers of the clusters that its tests
// start: the undertone command, which else is, lies above the packages that start them.
package clustertest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server"
)

const serveArgument = "serve"

// Command is a cluster's Command, in the tests of a package whose TestMain calls Main.
func Command() []string { return []string{os.Args[0], serveArgument} }

// Main runs the tests or, where Command was run with a server's configuration file, that
// server. It does not return.
func Main(m *testing.M) {
	if len(os.Args) != 3 || os.Args[1] != serveArgument {
		os.Exit(m.Run())
	}
	if err := serve(os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serve(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var c struct {
		server.Config
		Identity string `json:"identity"` // a directory, as in the command's files
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return err
	}
	c.Config.Identity = identity.In(c.Identity)
	s, err := server.New(c.Config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return s.Run(ctx)
}
