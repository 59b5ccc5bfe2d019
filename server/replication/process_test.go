//go:build unix

package replication

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server/authority"
)

// Nodes as processes, which can be stopped and killed: the test binary itself,
// told by its environment to be a node and to do what it reads on stdin.

const processVariable = "UNDERTONE_TEST_NODE"

type processConfig struct {
	Name, Address, Dir, Certificates string
	Peers                            []string
	Heartbeat                        time.Duration
}

func TestMain(m *testing.M) {
	if c := os.Getenv(processVariable); c != "" {
		var config processConfig
		if err := json.Unmarshal([]byte(c), &config); err != nil {
			panic(err)
		}
		beNode(config)
		return
	}
	os.Exit(m.Run())
}

// request is a line on a node's stdin, reply one on its stdout.
type request struct {
	Do    string
	First int // of the contributions to propose
	Job   []byte
}

type reply struct {
	Err     string
	Leads   bool
	Index   uint64
	Hash    rounds.Digest
	Acked   int // contributions so far
	Members int
	Took    time.Duration
}

func beNode(config processConfig) {
	b, err := identity.Load(identity.In(config.Certificates))
	if err != nil {
		panic(err)
	}
	l, err := net.Listen("tcp", config.Address)
	if err != nil {
		panic(err)
	}
	n, err := Open(Config{
		Name: config.Name, Cluster: "test", Dir: config.Dir, Listener: l, Bearer: b,
		Expect: len(config.Peers), Peers: config.Peers, Heartbeat: config.Heartbeat,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		panic(err)
	}
	member := &member{Node: n}
	var mu sync.Mutex
	acked := 0
	in := json.NewDecoder(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for {
		var r request
		if err := in.Decode(&r); err != nil {
			return // the test is over
		}
		var a reply
		switch r.Do {
		case "begin":
			var create rounds.CreateJob
			if err := json.Unmarshal(r.Job, &create); err != nil {
				panic(err)
			}
			for _, c := range []rounds.Command{create, rounds.Run{Job: "job"}, rounds.OpenRound{Job: "job", Round: 1, Attempt: 1}} {
				if _, err := member.propose(c); err != nil {
					a.Err = err.Error()
				}
			}
		case "propose":
			start := time.Now()
			_, err := member.propose(contribution("job", 1, 1, r.First))
			a.Took = time.Since(start)
			if err != nil && !isRefused(err, rounds.Counted) {
				a.Err = err.Error()
			}
		case "load":
			for p := range 4 {
				go func() {
					for i := r.First + p; ; i += 4 {
						if _, err := member.propose(contribution("job", 1, 1, i)); err == nil || isRefused(err, rounds.Counted) {
							mu.Lock()
							acked++
							mu.Unlock()
						}
					}
				}()
			}
		case "state":
			a.Leads, _ = n.Leading()
			last := n.replica.last()
			a.Index, a.Hash, a.Members = last.index, last.hash, member.members()
			mu.Lock()
			a.Acked = acked
			mu.Unlock()
			if why := n.diverged.Load(); why != nil {
				a.Err = "diverged: " + *why
			}
		}
		if err := out.Encode(a); err != nil {
			return
		}
	}
}

type process struct {
	t      testing.TB
	config processConfig
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	out    *json.Decoder
	log    *os.File
}

func (p *process) start() {
	p.t.Helper()
	c, err := json.Marshal(p.config)
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), processVariable+"="+string(c))
	if p.log, err = os.OpenFile(p.config.Dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.cmd.Stderr = p.log
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		p.t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	p.out = json.NewDecoder(bufio.NewReader(stdout))
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
	p.stdin.Close()
	p.log.Close()
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) ask(r request) (a reply) {
	p.t.Helper()
	err := json.NewEncoder(p.stdin).Encode(r)
	if err == nil {
		err = p.out.Decode(&a)
	}
	if err != nil {
		log, _ := os.ReadFile(p.log.Name())
		p.t.Fatalf("%s: %s: %v\n%s", p.config.Name, r.Do, err, log[max(0, len(log)-4000):])
	}
	return a
}

func startProcesses(t testing.TB, n int, heartbeat time.Duration) (out []*process) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	a, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var peers []string
	for i := range n {
		peers = append(peers, freeAddress(t))
		name := string(rune('a' + i))
		issued, err := a.Issue(authority.Request{Identity: identity.Identity{Role: identity.Node, Name: name}, Hosts: []string{"127.0.0.1", "127.0.0.2"}})
		if err != nil {
			t.Fatal(err)
		}
		certificates := filepath.Join(dir, name+"-tls")
		if _, err := issued.Write(certificates); err != nil {
			t.Fatal(err)
		}
		out = append(out, &process{t: t, config: processConfig{
			Name: name, Address: peers[i], Dir: filepath.Join(dir, name), Certificates: certificates, Heartbeat: heartbeat,
		}})
	}
	for _, p := range out {
		p.config.Peers = peers
		p.start()
		t.Cleanup(p.kill)
	}
	job, err := json.Marshal(createJob(t, "job"))
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; {
		a := out[0].ask(request{Do: "begin", Job: job})
		if a.Err == "" {
			return out
		}
		if time.Now().After(deadline) {
			t.Fatal(a.Err)
		}
	}
}

func leading(t testing.TB, ps []*process, except *process) *process {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		for _, p := range ps {
			if p != except && p.ask(request{Do: "state"}).Leads {
				return p
			}
		}
	}
	t.Fatal("no leader")
	return nil
}

// The leader is stopped, long enough for another to be elected, and woken, again
// and again, under load. All nodes must hold the same state at the same index,
// with everything that was acknowledged in it. With raft's own heartbeat handler
// they do not (see transport).
func TestPausedLeaders(t *testing.T) {
	t.Parallel()
	const heartbeat = 60 * time.Millisecond
	pauses := 25
	if s := os.Getenv("UNDERTONE_PAUSES"); s != "" {
		if _, err := fmt.Sscan(s, &pauses); err != nil {
			t.Fatal(err)
		}
	}
	ps := startProcesses(t, 3, heartbeat)
	for i, p := range ps {
		p.ask(request{Do: "load", First: 1_000_000 * (i + 1)})
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	for range pauses {
		l := leading(t, ps, nil)
		l.signal(syscall.SIGSTOP)
		time.Sleep(3*heartbeat + time.Duration(rnd.Int64N(int64(4*heartbeat))))
		l.signal(syscall.SIGCONT)
		time.Sleep(time.Duration(rnd.Int64N(int64(2 * heartbeat))))
	}
	// The load goes on: nodes are compared at an index that all remember.
	seen := map[uint64]rounds.Digest{}
	agreed := 0
	for deadline := time.Now().Add(patience); agreed < 3 && time.Now().Before(deadline); {
		for _, p := range ps {
			s := p.ask(request{Do: "state"})
			if s.Err != "" {
				t.Fatalf("%s: %s", p.config.Name, s.Err)
			}
			if hash, ok := seen[s.Index]; ok {
				if hash != s.Hash {
					t.Fatalf("two states at index %d", s.Index)
				}
				agreed++
			}
			seen[s.Index] = s.Hash
		}
	}
	acked, members := 0, 0
	for _, p := range ps {
		acked += p.ask(request{Do: "state"}).Acked
	}
	for _, p := range ps {
		members = max(members, p.ask(request{Do: "state"}).Members)
	}
	if acked == 0 || members < acked {
		t.Errorf("%d contributions were acknowledged, and %d are in the sum", acked, members)
	}
	t.Logf("%d pauses, %d acknowledged", pauses, acked)
}

// The leader is killed: how long until a command proposed on another node is
// committed. Nothing that was acknowledged is lost.
func TestKilledLeaders(t *testing.T) {
	t.Parallel()
	kills := 3
	if s := os.Getenv("UNDERTONE_KILLS"); s != "" {
		if _, err := fmt.Sscan(s, &kills); err != nil {
			t.Fatal(err)
		}
	}
	ps := startProcesses(t, 3, 0)
	var took []time.Duration
	for i := range kills {
		l := leading(t, ps, nil)
		other := ps[(slices.Index(ps, l)+1)%len(ps)]
		if a := other.ask(request{Do: "propose", First: 2 * i}); a.Err != "" {
			t.Fatal(a.Err)
		}
		l.kill()
		a := other.ask(request{Do: "propose", First: 2*i + 1})
		if a.Err != "" {
			t.Fatal(a.Err)
		}
		took = append(took, a.Took)
		if s := other.ask(request{Do: "state"}); s.Members != 2*i+2 {
			t.Fatalf("%d contributions after %d were acknowledged", s.Members, 2*i+2)
		}
		l.start()
		for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			if l.ask(request{Do: "state"}).Members == 2*i+2 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the killed node does not catch up")
			}
		}
	}
	slices.Sort(took)
	t.Logf("kill -9 of the leader to the next commit through another node: median %v, p90 %v, max %v of %d",
		took[len(took)/2].Round(time.Millisecond), took[len(took)*9/10].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), kills)
}
