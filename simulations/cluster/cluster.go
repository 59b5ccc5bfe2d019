// Package cluster runs real servers for experiments: a process each, on
// loopback, with certificates of an authority made for them, so that they can
// be killed, paused and started again like those of an operator.
package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server/authority"
	"github.com/undertone-fl/undertone/server/notary"
)

// Config of a cluster.
type Config struct {
	Nodes int
	// Dir holds everything: certificates, data directories, logs. A cluster that
	// is started in a directory again goes on where it was.
	Dir string
	// Command starts a server, given the path of its configuration file as one
	// more argument; by default this program's own subcommand.
	Command []string
	// Via, if set, gives the address by which others reach a node that listens
	// on peer: that of a proxy.
	Via func(node int, peer string) (string, error)
}

// Cluster is a number of server processes.
type Cluster struct {
	dir       string
	authority *authority.Authority
	ledgerKey string // file of the secret key
	operator  *identity.Bearer
	nodes     []*Node
}

// Node is one server's process.
type Node struct {
	Name            string
	API, Peer, HTTP string // addresses

	command []string // and the configuration file
	log     string

	mu      sync.Mutex
	process *exec.Cmd
	exited  chan struct{} // closed when process has ended
}

// Name of every cluster here.
const Name = "experiment"

// start is how long a cluster may take until every node is ready.
const start = 30 * time.Second

// Start starts the servers and returns once all are ready. Stop them in any
// case.
func Start(ctx context.Context, c Config) (*Cluster, error) {
	if len(c.Command) == 0 {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		c.Command = []string{self, "server", "--config"}
	}
	out := &Cluster{dir: c.Dir}
	var err error
	if out.authority, err = openAuthority(filepath.Join(c.Dir, "authority")); err != nil {
		return nil, err
	}
	if out.ledgerKey, err = ledgerKey(c.Dir); err != nil {
		return nil, err
	}
	if out.operator, err = out.Bearer(identity.Operator, "operator"); err != nil {
		return nil, err
	}
	if err := out.configure(c); err != nil {
		return nil, err
	}
	for _, n := range out.nodes {
		if err := n.Start(); err != nil {
			out.Stop()
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, start)
	defer cancel()
	for _, n := range out.nodes {
		if err := n.WaitReady(ctx); err != nil {
			out.Stop()
			return nil, err
		}
	}
	return out, nil
}

func openAuthority(dir string) (*authority.Authority, error) {
	a, err := authority.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return authority.Create(dir)
	}
	return a, err
}

// ledgerKey makes the key pair of the cluster's ledger, or finds that of before, and
// returns the file of the secret one.
func ledgerKey(dir string) (path string, err error) {
	path = filepath.Join(dir, notary.SecretFile)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	secret, public, err := ledger.NewKey(Name)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, notary.PublicFile), []byte(public+"\n"), 0o666); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(secret+"\n"), 0o600)
}

// LedgerKey is the file of the public key that checkpoints of the cluster's ledger are
// signed with.
func (c *Cluster) LedgerKey() string { return filepath.Join(c.dir, notary.PublicFile) }

// configure writes a configuration file for every node, or finds those of
// before.
func (c *Cluster) configure(config Config) error {
	listed := filepath.Join(c.dir, "nodes.json")
	if b, err := os.ReadFile(listed); err == nil {
		if err := json.Unmarshal(b, &c.nodes); err != nil {
			return fmt.Errorf("%s: %w", listed, err)
		}
		if len(c.nodes) != config.Nodes {
			return fmt.Errorf("%s: a cluster of %d nodes, not of %d", c.dir, len(c.nodes), config.Nodes)
		}
	} else {
		addresses, err := freeAddresses(3 * config.Nodes)
		if err != nil {
			return err
		}
		for i := range config.Nodes {
			c.nodes = append(c.nodes, &Node{Name: fmt.Sprintf("node-%d", i+1),
				API: addresses[3*i], Peer: addresses[3*i+1], HTTP: addresses[3*i+2]})
		}
		b, err := json.MarshalIndent(c.nodes, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(listed, b, 0o666); err != nil {
			return err
		}
	}
	var peers []string
	for i, n := range c.nodes {
		address := n.Peer
		if config.Via != nil {
			var err error
			if address, err = config.Via(i, n.Peer); err != nil {
				return err
			}
		}
		peers = append(peers, address)
	}
	for i, n := range c.nodes {
		place, err := c.Place(identity.Node, n.Name, "localhost", "127.0.0.1")
		if err != nil {
			return err
		}
		b, err := json.MarshalIndent(map[string]any{
			"name": n.Name, "cluster": Name, "data_dir": filepath.Join(c.dir, n.Name),
			"api": n.API, "node": n.Peer, "http": n.HTTP, "pages": "off", "advertise": peers[i], "identity": place, "ledger_keys": []string{c.ledgerKey},
			"bootstrap_expect": len(c.nodes), "peers": peers,
			// The clients of an experiment wait for nobody.
			"client_rate": 1e6, "client_burst": 1_000_000,
		}, "", "  ")
		if err != nil {
			return err
		}
		path := filepath.Join(c.dir, n.Name+".json")
		if err := os.WriteFile(path, b, 0o666); err != nil {
			return err
		}
		n.command, n.log = append(config.Command[:len(config.Command):len(config.Command)], path), filepath.Join(c.dir, n.Name+".log")
	}
	return nil
}

// freeAddresses returns loopback addresses that nobody listens on now.
func freeAddresses(n int) ([]string, error) {
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		out = append(out, l.Addr().String())
	}
	return out, nil
}

// Place issues a certificate, or finds it where it was issued before, and
// returns its directory.
func (c *Cluster) Place(role identity.Role, name string, hosts ...string) (string, error) {
	id := identity.Identity{Role: role, Name: name}
	dir := authority.Place(filepath.Join(c.dir, "identities"), id)
	issued, err := c.authority.Issue(authority.Request{Identity: id, Hosts: hosts})
	if err != nil {
		return "", err
	}
	if _, err := issued.Write(dir); err != nil && !errors.Is(err, authority.ErrExists) {
		return "", err
	}
	return dir, nil
}

// Bearer issues a certificate that is kept in memory.
func (c *Cluster) Bearer(role identity.Role, name string, hosts ...string) (*identity.Bearer, error) {
	return c.authority.Bearer(role, name, hosts...)
}

// Nodes are the servers.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Servers are the addresses that clients and operators connect to.
func (c *Cluster) Servers() []string {
	var out []string
	for _, n := range c.nodes {
		out = append(out, n.API)
	}
	return out
}

// Operate calls f with a connection to one node after the other until one
// answers; f's last error is returned.
func (c *Cluster) Operate(ctx context.Context, f func(undertonev1grpc.OperatorServiceClient) error) error {
	var last error
	for _, n := range c.nodes {
		conn, err := grpc.NewClient(n.API, grpc.WithTransportCredentials(grpctls.Client(c.operator)))
		if err != nil {
			return err
		}
		last = f(undertonev1grpc.NewOperatorServiceClient(conn))
		conn.Close()
		if last == nil || ctx.Err() != nil {
			return last
		}
	}
	return last
}

// Leader returns the node that leads, and waits until one does.
func (c *Cluster) Leader(ctx context.Context) (*Node, error) {
	for {
		var leader string
		err := c.Operate(ctx, func(o undertonev1grpc.OperatorServiceClient) error {
			r, err := o.GetCluster(ctx, &undertonev1.GetClusterRequest{})
			for _, n := range r.GetNodes() {
				if n.Leader {
					leader = n.Name
				}
			}
			return err
		})
		for _, n := range c.nodes {
			if err == nil && n.Name == leader {
				return n, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(errors.New("cluster: no leader"), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Replace kills a node for good: it is removed from the cluster, its directory is
// lost, and an empty one joins under its name. It does not wait until it is ready.
// The node is as it was, and dead, if it could not be removed.
func (c *Cluster) Replace(ctx context.Context, n *Node) error {
	n.Kill()
	for {
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := c.Operate(call, func(o undertonev1grpc.OperatorServiceClient) error {
			_, err := o.RemoveNode(call, &undertonev1.RemoveNodeRequest{Node: n.Name})
			return err
		})
		cancel()
		if err == nil || status.Code(err) == codes.NotFound { // or it was, and the answer was lost
			break
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	if err := os.RemoveAll(filepath.Join(c.dir, n.Name)); err != nil {
		return err
	}
	return n.Start()
}

// CreateJob makes a job and lets the given number of rounds be opened, 0 for
// all.
func (c *Cluster) CreateJob(ctx context.Context, spec *rounds.Spec, open int) error {
	b, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return c.Operate(ctx, func(o undertonev1grpc.OperatorServiceClient) error {
		if _, err := o.CreateJob(ctx, &undertonev1.CreateJobRequest{Spec: b}); err != nil {
			return err
		}
		_, err := o.OpenJob(ctx, &undertonev1.OpenJobRequest{Job: spec.Job, Rounds: uint32(open)})
		return err
	})
}

// AwaitRound waits until a round of a job collects or, where it never will,
// all before it are released. It returns the job, and the index that it is seen
// at. Fails if an attempt failed.
func (c *Cluster) AwaitRound(ctx context.Context, job string, round int) (*undertonev1.Job, uint64, error) {
	var index uint64
	for {
		var at *undertonev1.Job
		err := c.Operate(ctx, func(o undertonev1grpc.OperatorServiceClient) error {
			r, err := o.GetJob(ctx, &undertonev1.GetJobRequest{Job: job, MinIndex: index})
			at, index = r.GetJob(), max(index, r.GetIndex())
			return err
		})
		switch {
		case err == nil && reached(at, round):
			return at, index, nil
		case err == nil && len(at.Attempts) > 0 && last(at).Phase == undertonev1.Phase_PHASE_FAILED:
			return nil, 0, fmt.Errorf("cluster: round %d of %s failed: %s", last(at).Round, job, last(at).Why)
		case err != nil && status.Code(err) != codes.Unavailable:
			return nil, 0, err
		}
		select {
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func last(j *undertonev1.Job) *undertonev1.Attempt { return j.Attempts[len(j.Attempts)-1] }

func reached(j *undertonev1.Job, round int) bool {
	if len(j.Attempts) > 0 && int(last(j).Round) == round && last(j).Phase == undertonev1.Phase_PHASE_COLLECTING {
		return true
	}
	never := j.State == undertonev1.JobState_JOB_STATE_FINISHED || j.Until != 0 && int(j.Until) < round
	return never && int(j.Released) == round-1
}

// State fetches the latest released state of a job, and its version.
func (c *Cluster) State(ctx context.Context, job string) (version int, state []byte, err error) {
	reader, err := c.Bearer(identity.Client, "reader")
	if err != nil {
		return 0, nil, err
	}
	for _, n := range c.nodes {
		if version, state, err = fetch(ctx, n.API, reader, job); err == nil || ctx.Err() != nil {
			break
		}
	}
	return version, state, err
}

func fetch(ctx context.Context, address string, reader *identity.Bearer, job string) (version int, state []byte, err error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(grpctls.Client(reader)))
	if err != nil {
		return 0, nil, err
	}
	defer conn.Close()
	stream, err := undertonev1grpc.NewParticipantServiceClient(conn).FetchState(ctx, &undertonev1.FetchStateRequest{Job: job, Latest: true})
	if err != nil {
		return 0, nil, err
	}
	for first := true; ; first = false {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return version, state, nil
		}
		if err != nil {
			return 0, nil, err
		}
		if first {
			version = int(r.Version)
		}
		state = append(state, r.Chunk...)
	}
}

// Stop ends all servers: politely, and after a while by force.
func (c *Cluster) Stop() {
	for _, n := range c.nodes {
		n.Signal(syscall.SIGCONT)
		n.Signal(syscall.SIGTERM)
	}
	for _, n := range c.nodes {
		n.wait(10 * time.Second)
	}
}

// Start starts the node's process. It does not wait until it is ready.
func (n *Node) Start() error {
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(n.command[0], n.command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	dieWithParent(cmd)
	started, exited := make(chan error), make(chan struct{})
	go func() {
		// The parent, to the kernel, is the thread: it has to live as long.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	n.mu.Lock()
	n.process, n.exited = cmd, exited
	n.mu.Unlock()
	return nil
}

// running returns the process, nil if there is none, and what is closed at its
// end.
func (n *Node) running() (*os.Process, chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return nil, nil
	}
	return n.process.Process, n.exited
}

// Pid of the process, 0 if none was started.
func (n *Node) Pid() int {
	if p, _ := n.running(); p != nil {
		return p.Pid
	}
	return 0
}

// Signal sends a signal: SIGKILL, SIGSTOP, SIGCONT, SIGTERM.
func (n *Node) Signal(s os.Signal) {
	if p, _ := n.running(); p != nil {
		p.Signal(s)
	}
}

// Kill ends the process as a power failure would, and returns once it is gone.
func (n *Node) Kill() {
	n.Signal(os.Kill)
	n.wait(time.Minute)
}

// Exited is closed when the process has ended.
func (n *Node) Exited() <-chan struct{} {
	_, exited := n.running()
	return exited
}

func (n *Node) wait(most time.Duration) {
	_, exited := n.running()
	if exited == nil {
		return
	}
	select {
	case <-exited:
	case <-time.After(most):
		n.Signal(os.Kill)
		<-exited
	}
}

// WaitReady waits until the node says that it can serve.
func (n *Node) WaitReady(ctx context.Context) error {
	why := "it does not answer"
	for {
		if status, body := n.get(ctx, "/readyz"); status == http.StatusOK {
			return nil
		} else if status != 0 {
			why = body
		}
		select {
		case <-n.Exited():
			return fmt.Errorf("%s: ended: %s", n.Name, n.LastLine())
		case <-ctx.Done():
			return fmt.Errorf("%s: not ready: %s: %w", n.Name, why, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Metrics returns the page of that name.
func (n *Node) Metrics(ctx context.Context) string {
	_, body := n.get(ctx, "/metrics")
	return body
}

func (n *Node) get(ctx context.Context, path string) (status int, body string) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.HTTP+path, nil)
	if err != nil {
		return 0, ""
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, ""
	}
	defer response.Body.Close()
	b, _ := io.ReadAll(response.Body)
	return response.StatusCode, strings.TrimSpace(string(b))
}

// LastLine is the last thing that the node logged.
func (n *Node) LastLine() string {
	b, _ := os.ReadFile(n.log)
	b = bytes.TrimSpace(b)
	return string(b[bytes.LastIndexByte(b, '\n')+1:])
}
