package server_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	rpc "github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server"
	"github.com/undertone-fl/undertone/server/authority"
	"github.com/undertone-fl/undertone/server/internal/solo"
)

// alone is the configuration of a node that is a cluster by itself.
func alone(t *testing.T, ca *authority.Authority) server.Config {
	t.Helper()
	return server.Config{
		Dir: t.TempDir(), Identity: issue(t, ca, identity.Node, "node-0"), LedgerKeys: []string{solo.KeyFile(t)}, Expect: 1,
		API: "127.0.0.1:0", Node: "127.0.0.1:0", HTTP: "127.0.0.1:0", Pages: "127.0.0.1:0",
		Logger: slog.New(slog.DiscardHandler),
	}
}

// dialAlone connects to a node that is alone, as ada of a role.
func dialAlone(t *testing.T, ca *authority.Authority, api string, role identity.Role) *grpc.ClientConn {
	t.Helper()
	bearer, err := ca.Bearer(role, "ada")
	must(t, err)
	conn, err := grpc.NewClient(api, grpc.WithTransportCredentials(grpctls.Client(bearer)))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func issue(t *testing.T, ca *authority.Authority, role identity.Role, name string) identity.Files {
	t.Helper()
	i, err := ca.Issue(authority.Request{Identity: identity.Identity{Role: role, Name: name}, Hosts: []string{"127.0.0.1"}})
	must(t, err)
	files, err := i.Write(filepath.Join(t.TempDir(), name))
	must(t, err)
	return files
}

func writeFile(t *testing.T, text string, mode os.FileMode) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, []byte("# a comment\n"+text), mode))
	return path
}

// A mistake is one line that names the field.
func TestMistakes(t *testing.T) {
	ca, err := authority.New()
	must(t, err)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	busy := taken.Addr().String()
	client := issue(t, ca, identity.Client, "ann")

	for _, c := range []struct {
		name   string
		change func(*server.Config)
		field  string
		says   string
	}{
		{"no directory", func(c *server.Config) { c.Dir = "" }, "data_dir", "missing"},
		{"no certificate", func(c *server.Config) { c.Identity.Certificate = "" }, "identity", "certificate"},
		{"no such file", func(c *server.Config) { c.Identity.Key += ".old" }, "identity", "tls.key.old"},
		{"a client's certificate", func(c *server.Config) { c.Identity = client }, "identity", "client/ann"},
		{"no ledger key", func(c *server.Config) { c.LedgerKeys = nil }, "ledger_keys", "missing"},
		{"no such ledger key", func(c *server.Config) { c.LedgerKeys[0] += ".old" }, "ledger_keys", "ledger.key.old: no such file"},
		{"a public ledger key", func(c *server.Config) { c.LedgerKeys[0] = writeFile(t, solo.PublicKey, 0o600) }, "ledger_keys", "line 2 is no secret key"},
		{"a ledger key for everybody", func(c *server.Config) { c.LedgerKeys[0] = writeFile(t, solo.SecretKey, 0o644) }, "ledger_keys", "chmod 600"},
		{"keys of two ledgers", func(c *server.Config) {
			other, _, err := ledger.NewKey("elsewhere")
			must(t, err)
			c.LedgerKeys = append(c.LedgerKeys, writeFile(t, other, 0o600))
		}, "ledger_keys", "a key of the ledger elsewhere"},
		{"another name", func(c *server.Config) { c.Name = "node-1" }, "name", "node-0"},
		{"API port in use", func(c *server.Config) { c.API = busy }, "api", busy + " is in use"},
		{"node port in use", func(c *server.Config) { c.Node = busy }, "node", busy + " is in use"},
		{"pages' port in use", func(c *server.Config) { c.Pages = busy }, "pages", busy + " is in use"},
		{"pages nowhere", func(c *server.Config) { c.Pages = "here" }, "pages", "not host:port"},
		{"pages for nobody", func(c *server.Config) { c.PagesHost = ":1" }, "pages_host", "not host:port"},
		{"HTTP port in use", func(c *server.Config) { c.HTTP = busy }, "http", busy + " is in use"},
		{"another machine's address", func(c *server.Config) { c.API = "192.0.2.1:7300" }, "api", "no address of this machine"},
		{"no port", func(c *server.Config) { c.API = "localhost" }, "api", "host:port"},
		{"nobody listens there", func(c *server.Config) { c.Advertise = ":7301" }, "advertise", "host:port"},
		{"a peer without a port", func(c *server.Config) { c.Peers = []string{"node-1"} }, "peers", "host:port"},
		{"three nodes and no peers", func(c *server.Config) { c.Expect = 3 }, "peers", "missing"},
		{"a negative cluster", func(c *server.Config) { c.Expect = -1 }, "bootstrap_expect", "negative"},
		{"a learner that founds", func(c *server.Config) { c.Learner = true }, "learner", "learner"},
		{"no rate", func(c *server.Config) { c.ClientRate = -1 }, "client_rate", "above 0"},
		{"no burst", func(c *server.Config) { c.ClientBurst = -1 }, "client_burst", "above 0"},
		{"no memory", func(c *server.Config) { c.Inflight = 10 }, "inflight_bytes", "below"},
		{"traces to nowhere", func(c *server.Config) { c.Traces = "ftp://x" }, "traces", "host:port"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := alone(t, ca)
			c.change(&config)
			_, err := server.New(config)
			mistake, ok := errors.AsType[*server.ConfigError](err)
			if !ok || mistake.Field != c.field || !strings.Contains(mistake.Problem, c.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want %s: ... %s ...", err, c.field, c.says)
			}
		})
	}
}

// A server that is stopped ends those who wait, and goes on where it was when it
// is started again.
func TestStopAndStart(t *testing.T) {
	ca, err := authority.New()
	must(t, err)
	config := alone(t, ca)
	config.Node = freeAddresses(t, 1)[0] // others know a node by its address
	spec, raw := solo.Spec(t, solo.Parameters(), solo.Terms("movies"))
	for start := range 2 {
		s, err := server.New(config)
		must(t, err)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		api, _, web := s.Addresses()
		eventually(t, "the server is ready", func() bool { return len(s.NotReady()) == 0 })
		dial := func(role identity.Role) *grpc.ClientConn { return dialAlone(t, ca, api, role) }
		operator := rpc.NewOperatorServiceClient(dial(identity.Operator))
		if start == 0 {
			_, err = operator.CreateJob(t.Context(), &undertonev1.CreateJobRequest{Spec: raw})
			must(t, err)
			_, err = operator.OpenJob(t.Context(), &undertonev1.OpenJobRequest{Job: spec.Job})
			must(t, err)
		}
		client := rpc.NewParticipantServiceClient(dial(identity.Client))
		resp, err := client.Poll(t.Context(), &undertonev1.PollRequest{WaitMs: 30_000})
		must(t, err)
		if len(resp.Work) != 1 || resp.Work[0].Round != 1 || resp.Work[0].Attempt != 1 {
			t.Fatalf("start %d: %v", start, resp)
		}
		for path, want := range map[string]string{
			"/livez": "ok", "/readyz": "ok",
			"/metrics": `undertone_spent_nano_rho{job="movies"}`,
		} {
			if status, body := get(t, web, path); status != http.StatusOK || !strings.Contains(body, want) {
				t.Errorf("%s: %d %s", path, status, body)
			}
		}
		operators, err := ca.Bearer(identity.Operator, "ada")
		must(t, err)
		link, err := rpc.NewLedgerServiceClient(dial(identity.Auditor)).CreateLink(t.Context(), &undertonev1.CreateLinkRequest{})
		must(t, err)
		for _, page := range []struct {
			address string
			tls     *tls.Config
			status  int
			saying  string
		}{
			{"https://" + s.PagesAddress() + "/operate", &tls.Config{InsecureSkipVerify: true}, http.StatusForbidden, "undertone audit link"},
			{"https://" + s.PagesAddress() + "/operate", operators.ClientTLS(), http.StatusOK, "movies"},
			{link.GetUrl(), &tls.Config{InsecureSkipVerify: true}, http.StatusOK, "let in"},
		} {
			c := http.Client{Transport: &http.Transport{TLSClientConfig: page.tls, DisableKeepAlives: true}}
			resp, err := c.Get(page.address)
			must(t, err)
			body, err := io.ReadAll(resp.Body)
			must(t, err)
			resp.Body.Close()
			if resp.StatusCode != page.status || !strings.Contains(string(body), page.saying) {
				t.Errorf("%s: %s %s", page.address, resp.Status, body)
			}
		}

		waiting := make(chan error, 1)
		go func() {
			_, err := client.Poll(context.Background(), &undertonev1.PollRequest{
				WaitMs: 60_000, Known: []*undertonev1.Participation{{Job: spec.Job, Round: 1, Attempt: 1}}})
			waiting <- err
		}()
		began := time.Now()
		stop()
		must(t, <-ended)
		if err := <-waiting; err == nil {
			t.Error("a poll was answered by a server that stopped")
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("it took %v to stop", took)
		}
	}
}

func get(t *testing.T, address, path string) (status int, body string) {
	t.Helper()
	resp, err := http.Get("http://" + address + path)
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(b)
}
