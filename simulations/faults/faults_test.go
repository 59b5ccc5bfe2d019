package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server"
)

// serveArgument makes this test binary a server, whose configuration file is the
// next argument: the undertone command, which else is, lies above this package.
const serveArgument = "serve"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == serveArgument {
		if err := serve(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
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

// Promises 1 to 4, 6 and 7, under every fault there is.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	r, err := Run(t.Context(), Config{Seed: 1, Rounds: 20, Limit: 5 * time.Minute, Clients: 8, Dir: dir,
		Command: []string{os.Args[0], serveArgument}})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range r.Violations {
		t.Error(v)
	}
	if len(r.Faults) != len(faults) || r.Acknowledged == 0 {
		t.Errorf("%+v: it shows little", r)
	}
	t.Logf("%+v", r)
}
