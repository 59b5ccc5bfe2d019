package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client/internal/contract"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server/authority"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"undertone-agent": main})
}

// key of a script's service among its values.
type key struct{}

// TestScripts runs the agent as a user would. Each script says in its first lines
// what it shows. Scripts have a service at $SERVER, certificates of ann, bob and an
// operator in certificates/, and these commands:
//
//	job NAME [TRUST] makes a job of 3 items and a constant, of 3 rounds
//	begin NAME       opens its next attempt
//	release NAME     ends the round with the next model
//	members NAME N   holds that N devices are in the open attempt's sum
//	fork USER...     shows those users another ledger than the others, from now on
//	join             shows all users the same one again
//	anew ORIGIN      shows all users another ledger, of that origin, as a cluster does
//	                 that was restored from a backup
//	key FILE         writes the ledger's public key
//	rounds NAME N    plays the server's part in the background: every attempt that
//	                 N devices are in is released, and the next one opened
func TestScripts(t *testing.T) {
	on := func(ts *testscript.TestScript) *contract.Service { return ts.Value(key{}).(*contract.Service) }
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"job": func(ts *testscript.TestScript, _ bool, args []string) {
				p := jobs.Parameters{
					Config:   lowrank.Config{Dim: 4, Rank: 1, Features: lowrank.OneHot, Centred: true, Update: lowrank.Gradient, Rounds: 1},
					Sparsity: 1,
				}
				trust := rounds.TrustDistributed
				if len(args) > 1 {
					trust = rounds.Trust(args[1])
				}
				on(ts).Create(p, jobs.Terms{
					Job: args[0], Epsilon: 4, Delta: 1e-6, Adjacency: dp.ZeroOut, Trust: trust,
					NMin: 1, RoundSize: 100, Deadline: time.Hour,
				})
			},
			"begin":   func(ts *testscript.TestScript, _ bool, args []string) { on(ts).Begin(args[0]) },
			"release": func(ts *testscript.TestScript, _ bool, args []string) { on(ts).Release(args[0]) },
			"fork":    func(ts *testscript.TestScript, _ bool, args []string) { on(ts).Fork(args...) },
			"join":    func(ts *testscript.TestScript, _ bool, _ []string) { clear(on(ts).Shown) },
			"anew":    func(ts *testscript.TestScript, _ bool, args []string) { on(ts).Anew(args[0], 0) },
			"key": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(on(ts).Ledger.Key+"\n"), 0o644))
			},
			"members": func(ts *testscript.TestScript, _ bool, args []string) {
				if got := fmt.Sprint(on(ts).Members(args[0])); got != args[1] {
					ts.Fatalf("%s members, want %s", got, args[1])
				}
			},
			"rounds": func(ts *testscript.TestScript, _ bool, args []string) {
				s := on(ts)
				s.Begin(args[0])
				stop := make(chan struct{})
				ts.Defer(func() { close(stop) })
				go func() {
					for s.Left(args[0]) > 0 {
						select {
						case <-stop:
							return
						case <-time.After(5 * time.Millisecond):
						}
						if fmt.Sprint(s.Members(args[0])) != args[1] {
							continue
						}
						s.Release(args[0])
						if s.Left(args[0]) > 0 {
							s.Begin(args[0])
						}
					}
				}()
			},
		},
	})
}

func setup(env *testscript.Env) error {
	a, err := authority.New()
	if err != nil {
		return err
	}
	for _, id := range []identity.Identity{{Role: identity.Client, Name: "ann"}, {Role: identity.Client, Name: "bob"}, {Role: identity.Operator, Name: "olga"}} {
		issued, err := a.Issue(authority.Request{Identity: id})
		if err != nil {
			return err
		}
		if _, err := issued.Write(filepath.Join(env.WorkDir, "certificates", id.Name)); err != nil {
			return err
		}
	}
	node, err := a.Bearer(identity.Node, "node", "127.0.0.1")
	if err != nil {
		return err
	}
	s := contract.New(env.T().(testing.TB), node)
	env.Values[key{}] = s
	env.Setenv("SERVER", strings.Join(s.Addresses, ","))
	return nil
}

// TestFolderName is that of the certificates' folders.
func TestFolderName(t *testing.T) {
	for _, name := range []string{"ann", "a b/c", "..", "ü", "a.b"} {
		want := filepath.Base(authority.Place("x", identity.Identity{Role: identity.Client, Name: name}))
		if got := folderName(name); got != want || strings.ContainsRune(got, os.PathSeparator) {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
