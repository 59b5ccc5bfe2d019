package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
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
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	rpc "github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server"
	"github.com/undertone-fl/undertone/server/authority"
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
	s, err := server.New(c)
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
	configs   []server.Config
	nodes     []*process
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
	ca, err := authority.New()
	must(t, err)
	c := &cluster{t: t, authority: ca, dir: t.TempDir(), nodes: make([]*process, n)}
	ports := freePorts(t, 3*n)
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	for i := range n {
		name := fmt.Sprint("node-", i)
		issued, err := ca.Issue(authority.Request{Identity: identity.Identity{Role: identity.Node, Name: name}, Hosts: []string{"127.0.0.1"}})
		must(t, err)
		files, err := issued.Write(filepath.Join(c.dir, name+"-tls"))
		must(t, err)
		config := server.Config{
			Dir: filepath.Join(c.dir, name), Identity: files, Expect: n,
			API: at(3 * i), Node: at(3*i + 1), HTTP: at(3*i + 2),
		}
		if change != nil {
			change(&config)
		}
		c.configs = append(c.configs, config)
	}
	for i := range n {
		for k := range n {
			if k != i {
				c.configs[i].Peers = append(c.configs[i].Peers, c.configs[k].Node)
			}
		}
		c.start(i)
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.nodes[i].kill()
		}
	})
	for i := range n {
		c.waitReady(i)
	}
	return c
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
	c.nodes[i] = start(c.t, append(os.Environ(), configVariable+"="+path), log)
}

// start runs the test binary as something else.
func start(t testing.TB, env []string, stderr *os.File) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0]), done: make(chan struct{})}
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

func (c *cluster) waitReady(i int) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("node-%d is ready", i), func() bool {
		select {
		case <-c.nodes[i].done:
			c.t.Fatalf("node-%d ended: %v\n%s", i, c.nodes[i].err, c.log(i))
		default:
		}
		resp, err := http.Get("http://" + c.configs[i].HTTP + "/readyz")
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
func (c *cluster) metric(i int, name string) (v float64) {
	c.t.Helper()
	resp, err := http.Get("http://" + c.configs[i].HTTP + "/metrics")
	must(c.t, err)
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			_, err := fmt.Sscan(rest, &v)
			must(c.t, err)
		}
	}
	return v
}

// leader is the index of the node that leads.
func (c *cluster) leader() (leader int) {
	c.t.Helper()
	eventually(c.t, "there is a leader", func() bool {
		for i, n := range c.nodes {
			select {
			case <-n.done:
				continue
			default:
			}
			if c.metric(i, "undertone_leader") == 1 {
				leader = i
				return true
			}
		}
		return false
	})
	return leader
}

// dial connects to a node as somebody.
func (c *cluster) dial(i int, role identity.Role, name string) *grpc.ClientConn {
	c.t.Helper()
	bearer, err := c.authority.Bearer(role, name)
	must(c.t, err)
	return c.connect(i, bearer)
}

func (c *cluster) connect(i int, bearer *identity.Bearer) *grpc.ClientConn {
	c.t.Helper()
	conn, err := grpc.NewClient(c.configs[i].API, grpc.WithTransportCredentials(grpctls.Client(bearer)))
	must(c.t, err)
	c.t.Cleanup(func() { conn.Close() })
	return conn
}

func (c *cluster) operator(i int) rpc.OperatorServiceClient {
	return rpc.NewOperatorServiceClient(c.dial(i, identity.Operator, "ada"))
}

// participant is a client with a connection to every node.
type participant struct {
	name    string
	servers []rpc.ParticipantServiceClient
	rng     *rand.Rand
	sent    int // submissions, retries included
}

func (c *cluster) participant(k int) *participant {
	c.t.Helper()
	p := &participant{name: fmt.Sprint("client-", k), rng: rand.New(rand.NewPCG(uint64(k), 7))}
	bearer, err := c.authority.Bearer(identity.Client, p.name)
	must(c.t, err)
	for i := range c.nodes {
		p.servers = append(p.servers, rpc.NewParticipantServiceClient(c.connect(i, bearer)))
	}
	return p
}

// work waits for a round that it has not taken part in, at any node.
func (p *participant) work(ctx context.Context, after *undertonev1.Work) (*undertonev1.Work, error) {
	req := &undertonev1.PollRequest{WaitMs: 1000}
	if after != nil {
		req.Known = []*undertonev1.Participation{{Job: after.Job, Round: after.Round, Attempt: after.Attempt}}
	}
	for {
		resp, err := p.servers[p.rng.IntN(len(p.servers))].Poll(ctx, req)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		for _, w := range resp.Work {
			if after == nil || w.Round != after.Round || w.Attempt != after.Attempt {
				return w, nil
			}
		}
	}
}

// contribute sends a contribution until it is acknowledged, each time to
// another node, and then once more.
func (p *participant) contribute(ctx context.Context, w *undertonev1.Work, payload []byte) error {
	req := &undertonev1.SubmitRequest{Payload: payload, Header: &undertonev1.SubmitHeader{
		Job: w.Job, Round: w.Round, Attempt: w.Attempt, StateDigest: w.StateDigest,
		Checksum: crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)),
	}}
	for acknowledged := 0; ; {
		p.sent++
		try, cancel := context.WithTimeout(ctx, time.Second)
		_, err := p.servers[p.rng.IntN(len(p.servers))].Submit(try, req)
		cancel()
		refused := refusalOf(err)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil, refused.GetCounted():
			if acknowledged++; acknowledged == 2 {
				return nil
			}
		case refused.GetReason() == undertonev1.Reason_REASON_NOT_OPEN && refused.Counted != nil && !refused.GetCounted():
			return err
		default:
			time.Sleep(20 * time.Millisecond)
		}
	}
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

func freePorts(t testing.TB, n int) (ports []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
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
