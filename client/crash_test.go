package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/client"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server/authority"
)

// A device that is a process of its own: this test binary with these variables.
const (
	deviceVariable = "UNDERTONE_TEST_DEVICE" // folder,certificates,server[,server]
	killVariable   = "UNDERTONE_TEST_KILL"   // the step at which it kills itself
)

func TestMain(m *testing.M) {
	if arguments := os.Getenv(deviceVariable); arguments != "" {
		os.Exit(device(strings.Split(arguments, ",")))
	}
	os.Exit(m.Run())
}

// device opens, syncs once and prints the summary, unless it dies on the way, as
// suddenly as a process can.
func device(arguments []string) int {
	c := client.Config{
		Dir: arguments[0], Identity: identity.In(arguments[1]), Servers: arguments[2:],
		Samples: client.Fixed(samples()), Cap: client.Cap{Epsilon: 20, Delta: 1e-6}, Patience: 20 * time.Second,
	}
	steps, _ := strconv.Atoi(os.Getenv(killVariable))
	if steps > 0 {
		client.FailAt(&c, func(string, string) error {
			if steps--; steps == 0 {
				kill(os.Getpid())
				select {} // until it has effect
			}
			return nil
		})
	}
	d, err := client.Open(c)
	if err == nil {
		var s *client.Summary
		if s, err = d.Sync(context.Background()); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(s)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func kill(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Kill()
}

// process is a device's life.
type process struct {
	t         *testing.T
	dir, keys string
	servers   []string
	stdout    string
}

func (s *service) process(name string) *process {
	s.t.Helper()
	issued, err := s.authority.Issue(authority.Request{Identity: identity.Identity{Role: identity.Client, Name: name}})
	if err != nil {
		s.t.Fatal(err)
	}
	p := &process{t: s.t, dir: s.t.TempDir(), keys: s.t.TempDir() + "/keys", servers: s.Addresses}
	if _, err := issued.Write(p.keys); err != nil {
		s.t.Fatal(err)
	}
	return p
}

// run lives once, and reports whether it was killed.
func (p *process) run(killAt int, started func(pid int)) (killed bool) {
	p.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(),
		deviceVariable+"="+strings.Join(append([]string{p.dir, p.keys}, p.servers...), ","),
		fmt.Sprintf("%s=%d", killVariable, killAt), "GORACE=atexit_sleep_ms=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	started(cmd.Process.Pid)
	stdout, _ := io.ReadAll(out)
	p.stdout = string(stdout)
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == -1 {
		return true
	}
	if err != nil {
		p.t.Fatalf("%v: %s", err, stderr.String())
	}
	return false
}

// recovers holds that the next life of a device that was killed takes part, and
// that it was charged once.
func (s *service) recovers(p *process, when string) {
	s.t.Helper()
	if p.run(0, func(int) {}) || !strings.Contains(p.stdout, `"outcome":"contributed"`) {
		s.t.Fatalf("killed %s: the next life: %s", when, p.stdout)
	}
	d := open(s.t, client.Config{Dir: p.dir, Offline: true})
	if st := onlyJob(s.t, d); st.Attempts != 1 || st.Counted != 1 || st.Model != 0 {
		s.t.Errorf("killed %s: %+v", when, st)
	}
}

// TestKilledAtEveryStep kills a device's process with SIGKILL before every step
// that it takes on disk. The service holds that no two vectors arrive.
func TestKilledAtEveryStep(t *testing.T) {
	s := newService(t, 1)
	s.Create(parameters(), terms("taste"))
	s.Begin("taste")
	users := 0
	for n := 1; ; n++ {
		if testing.Short() && n%4 != 0 {
			continue
		}
		p := s.process(fmt.Sprintf("user-%d", n))
		users++
		if !p.run(n, func(int) {}) {
			if n < 20 {
				t.Errorf("only %d steps", n)
			}
			break
		}
		s.recovers(p, fmt.Sprintf("before step %d", n))
	}
	if s.Members("taste") != users || len(s.Arrived) != users {
		t.Errorf("%d members and %d contributions of %d users", s.Members("taste"), len(s.Arrived), users)
	}
	t.Logf("killed %d times", users-1)
}

// TestRenamedAndNotSynced: a contribution that was renamed into the outbox, which
// could not be synced any more, is durable before it is sent, by the same device or
// by its next life, and so is the record.
func TestRenamedAndNotSynced(t *testing.T) {
	for _, next := range []string{"sync", "life"} {
		t.Run("next "+next, func(t *testing.T) {
			s := newService(t, 1)
			s.Create(parameters(), terms("taste"))
			s.Begin("taste")
			c := s.config(t.TempDir(), "ann")
			outbox := filepath.Join(c.Dir, "outbox")
			var mu sync.Mutex
			failing, synced := true, map[string]bool{}
			client.FailAt(&c, func(step, path string) error {
				mu.Lock()
				defer mu.Unlock()
				if step == "sync-folder" && path == outbox && failing {
					return syscall.EIO
				}
				synced[path] = synced[path] || step == "sync-folder"
				return nil
			})
			d := open(t, c)
			want(t, syncOne(t, d), "", syscall.EIO)
			waiting, err := os.ReadDir(outbox)
			if err != nil || len(waiting) != 1 || len(s.Arrived) != 0 {
				t.Fatalf("%v, %v; %d contributions", waiting, err, len(s.Arrived))
			}
			mu.Lock()
			failing = false
			mu.Unlock()
			if next == "life" {
				d.Close()
				clear(synced)
				d = open(t, c)
				if !synced[c.Dir] {
					t.Error("the record may be lost")
				}
			}
			s.InterruptWith(func(call, when string) error {
				mu.Lock()
				defer mu.Unlock()
				if call == "submit" && when == "before" && !synced[outbox] {
					t.Error("what is sent may be lost")
				}
				return nil
			})
			want(t, syncOne(t, d), client.Contributed)
		})
	}
}

// TestKilledWhileItSpeaks kills a device's process while the service holds its
// call: nothing has come of it, or all but the answer.
func TestKilledWhileItSpeaks(t *testing.T) {
	for _, moment := range []string{"poll before", "spec before", "state before", "state after", "submit before", "submit after"} {
		t.Run(moment, func(t *testing.T) {
			s := newService(t, 1)
			s.Create(parameters(), terms("taste"))
			s.Begin("taste")
			p := s.process("ann")
			pid := make(chan int, 1)
			s.InterruptWith(func(call, when string) error {
				if call+" "+when == moment {
					s.InterruptWith(nil)
					if err := kill(<-pid); err != nil {
						t.Error(err)
					}
				}
				return nil
			})
			if !p.run(0, func(id int) { pid <- id }) {
				t.Fatal("it lives")
			}
			s.recovers(p, moment)
			if s.Members("taste") != 1 || len(s.Arrived) != 1 {
				t.Errorf("%d members, %d contributions", s.Members("taste"), len(s.Arrived))
			}
		})
	}
}
