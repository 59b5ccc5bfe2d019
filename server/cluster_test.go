package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	rpc "github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server"
	"github.com/undertone-fl/undertone/server/authority"
	"github.com/undertone-fl/undertone/server/internal/solo"
)

// configVariable makes the test binary a server: it names its configuration.
const configVariable = "UNDERTONE_TEST_SERVER"

func TestMain(m *testing.M) {
	var err error
	switch path, dir := os.Getenv(configVariable), os.Getenv(bareVariable); {
	case path != "":
		err = serve(path)
	case dir != "":
		err = serveBare(identity.In(dir), os.Getenv(addressVariable))
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// newServer is what a server's process begins with.
var newServer = server.New

// serve runs a server until SIGTERM.
func serve(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var c server.Config
	if err := json.Unmarshal(text, &c); err != nil {
		return err
	}
	c.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	s, err := newServer(c)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return s.Run(ctx)
}

// cluster is servers as processes of their own, on loopback, and what it takes
// to talk to them.
type cluster struct {
	t         testing.TB
	authority *authority.Authority
	dir       string
	ledgerKey string   // file
	free      []string // addresses
	configs   []server.Config
	nodes     []*process // nil: not yet there, or gone for good

	binary  string // of the servers
	environ func(i int) []string
}

type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended; err is set
	err  error
}

// startCluster starts n servers, with what change changes, and waits until they
// are ready.
func startCluster(t testing.TB, n int, change func(*server.Config)) *cluster {
	t.Helper()
	c := newCluster(t, n)
	c.form(change)
	return c
}

func newCluster(t testing.TB, n int) *cluster {
	t.Helper()
	ca, err := authority.New()
	must(t, err)
	c := &cluster{t: t, authority: ca, dir: t.TempDir(), ledgerKey: solo.KeyFile(t), free: freeAddresses(t, 3*(n+3)),
		binary: os.Args[0], environ: func(int) []string { return nil }}
	for range n {
		c.place()
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			if n != nil {
				n.kill()
			}
		}
	})
	return c
}

func (c *cluster) form(change func(*server.Config)) {
	c.t.Helper()
	c.launch(change)
	for i := range c.nodes {
		c.waitReady(i)
	}
}

// launch starts all nodes, to form a cluster.
func (c *cluster) launch(change func(*server.Config)) {
	c.t.Helper()
	n := len(c.configs)
	for i := range n {
		config := &c.configs[i]
		config.Expect = n
		for k := range n {
			if k != i {
				config.Peers = append(config.Peers, c.configs[k].Node)
			}
		}
		if change != nil {
			change(config)
		}
		c.start(i)
	}
}

// place makes room for a node that joins the others, without starting it.
func (c *cluster) place() (i int) {
	c.t.Helper()
	i = len(c.configs)
	name := fmt.Sprint("node-", i)
	issued, err := c.authority.Issue(authority.Request{Identity: identity.Identity{Role: identity.Node, Name: name}, Hosts: []string{"127.0.0.1"}})
	must(c.t, err)
	files, err := issued.Write(filepath.Join(c.dir, name+"-tls"))
	must(c.t, err)
	at := c.free[3*i:] // panics beyond three nodes more than there were
	config := server.Config{Dir: filepath.Join(c.dir, name), Identity: files, LedgerKeys: []string{c.ledgerKey},
		API: at[0], Node: at[1], HTTP: at[2], Pages: server.Off}
	c.configs = append(c.configs, config)
	c.nodes = append(c.nodes, nil)
	return i
}

func (c *cluster) start(i int) {
	c.t.Helper()
	path := filepath.Join(c.dir, fmt.Sprint("node-", i, ".json"))
	text, err := json.Marshal(c.configs[i])
	must(c.t, err)
	must(c.t, os.WriteFile(path, text, 0o600))
	log, err := os.OpenFile(path+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(c.t, err)
	defer log.Close()
	c.nodes[i] = start(c.t, c.binary, append(append(os.Environ(), configVariable+"="+path), c.environ(i)...), log)
}

// start runs a test binary as something else.
func start(t testing.TB, binary string, env []string, stderr *os.File) *process {
	t.Helper()
	p := &process{cmd: exec.Command(binary), done: make(chan struct{})}
	p.cmd.Env, p.cmd.Stderr = env, stderr
	must(t, p.cmd.Start())
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (c *cluster) waitReady(i int) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("node-%d is ready", i), func() bool {
		if c.nodes[i].ended() {
			c.t.Fatalf("node-%d ended: %v\n%s", i, c.nodes[i].err, c.log(i))
		}
		resp, err := web.Get("http://" + c.configs[i].HTTP + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

func (c *cluster) log(i int) string {
	b, _ := os.ReadFile(filepath.Join(c.dir, fmt.Sprint("node-", i, ".json.log")))
	return string(b[max(0, len(b)-4000):])
}

// metric reads a metric of a node; 0 if it is not there.
func (c *cluster) metric(i int, name string) float64 {
	c.t.Helper()
	v, err := c.readMetric(i, name)
	must(c.t, err)
	return v
}

// web does not wait for a process that is stopped.
var web = http.Client{Timeout: 2 * time.Second}

func (c *cluster) readMetric(i int, name string) (v float64, err error) {
	resp, err := web.Get("http://" + c.configs[i].HTTP + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			_, err := fmt.Sscan(rest, &v)
			return v, err
		}
	}
	return 0, lines.Err()
}

// leader is the index of the node that leads.
func (c *cluster) leader() (leader int) {
	c.t.Helper()
	eventually(c.t, "there is a leader", func() bool {
		leader = c.leading()
		return leader >= 0
	})
	return leader
}

// leading is the index of a node that leads, -1 if none says so.
func (c *cluster) leading() int {
	for i := range c.configs {
		if leads, err := c.readMetric(i, "undertone_leader"); err == nil && leads == 1 {
			return i
		}
	}
	return -1
}

// insist calls whoever leads, until that does as it is told.
func (c *cluster) insist(call func(ctx context.Context, leader int) error) {
	err := errors.New("no leader")
	for start := time.Now(); time.Since(start) < time.Minute && c.t.Context().Err() == nil; time.Sleep(20 * time.Millisecond) {
		if leader := c.leading(); leader >= 0 {
			ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second)
			err = call(ctx, leader)
			cancel()
			if err == nil {
				return
			}
		}
	}
	if c.t.Context().Err() == nil {
		c.t.Errorf("still refused after a minute: %v", err)
	}
}

// shows waits until the leader shows a job so.
func (c *cluster) shows(job string, so func(*undertonev1.Job) bool) (shown *undertonev1.Job) {
	c.t.Helper()
	eventually(c.t, "job "+job+" is as it should be", func() bool {
		leader := c.leading()
		if leader < 0 {
			return false
		}
		resp, err := c.operator(leader).GetJob(c.t.Context(), &undertonev1.GetJobRequest{Job: job})
		shown = resp.GetJob()
		return err == nil && so(shown)
	})
	return shown
}

// lead hands leadership to a node, until that has it.
func (c *cluster) lead(i int) {
	c.t.Helper()
	o := c.operator(i)
	c.insist(func(ctx context.Context, leader int) error {
		if leader == i {
			return nil
		}
		_, err := o.TransferLeadership(ctx, &undertonev1.TransferLeadershipRequest{Node: c.name(i)})
		return errors.Join(err, errors.New("asked to"))
	})
}

func (c *cluster) name(i int) string { return fmt.Sprint("node-", i) }

// dial connects to a node as somebody.
func (c *cluster) dial(i int, role identity.Role, name string) *grpc.ClientConn {
	c.t.Helper()
	bearer, err := c.authority.Bearer(role, name)
	must(c.t, err)
	return c.connect(i, bearer)
}

func (c *cluster) connect(i int, bearer *identity.Bearer) *grpc.ClientConn {
	c.t.Helper()
	conn, err := grpc.NewClient(c.configs[i].API, grpc.WithTransportCredentials(grpctls.Client(bearer)),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second, // nodes come back
			Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond}}))
	must(c.t, err)
	c.t.Cleanup(func() { conn.Close() })
	return conn
}

func (c *cluster) operator(i int) rpc.OperatorServiceClient {
	return rpc.NewOperatorServiceClient(c.dial(i, identity.Operator, "ada"))
}

// refusalOf is the reason that came with a status, nil if none did.
func refusalOf(err error) *undertonev1.Refusal {
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*undertonev1.Refusal); ok {
			return r
		}
	}
	return nil
}

// contribution is what a client sends in a round: numbers of its own.
func contribution(spec *rounds.Spec, client, round int) []int64 {
	r := spec.Releases[round-1]
	rng := rand.New(rand.NewPCG(uint64(client), uint64(round)))
	limit := int64(r.Bound) / int64(r.Length)
	x := make([]int64, r.Length)
	for i := range x {
		x[i] = rng.Int64N(2*limit+1) - limit
	}
	return x
}

func pack(spec *rounds.Spec, x []int64) []byte { return aggregation.Pack(nil, x, spec.Width()) }

// freeAddresses are nobody's now.
func freeAddresses(t testing.TB, n int) (out []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer l.Close()
		out = append(out, l.Addr().String())
	}
	return out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits, with patience for a machine that has other things to do.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatalf("still not so after a minute: %s", what)
		}
	}
}
