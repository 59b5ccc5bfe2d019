package server_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/server/internal/solo"
)

// clockVariable sets a server's wall clock wrong by so many seconds, which change
// their sign every two seconds if they begin with "~".
const clockVariable = "UNDERTONE_TEST_CLOCK"

// wrongClock replaces time.Now's wall clock, and leaves its monotonic one.
const wrongClock = `package time

import "syscall"

var wrongBy, wrongSign = func() (by, sign int64) {
	s, _ := syscall.Getenv("` + clockVariable + `")
	if len(s) > 0 && s[0] == '~' {
		s, sign = s[1:], 1
	}
	for i := range len(s) {
		if s[i] != '-' {
			by = 10*by + int64(s[i]-'0')
		}
	}
	if len(s) > 0 && s[0] == '-' {
		by = -by
	}
	return by, sign
}()

func wrong(mono int64) int64 {
	if wrongSign != 0 && mono/2e9%2 == 1 {
		return -wrongBy
	}
	return wrongBy
}
`

// buildWithWrongClocks builds this test binary with a standard library whose wall
// clock can be set wrong: nothing else can, for one process.
func buildWithWrongClocks(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	must(t, err)
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	now, err := os.ReadFile(filepath.Join(source, "time.go"))
	must(t, err)
	const read = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	patched := strings.Replace(string(now), read, read+"\tsec += wrong(mono)\n", 1)
	if patched == string(now) {
		t.Skip("time.Now of this Go is another")
	}
	overlay := map[string]map[string]string{"Replace": {
		filepath.Join(source, "time.go"):  filepath.Join(dir, "time.go"),
		filepath.Join(source, "wrong.go"): filepath.Join(dir, "wrong.go"),
	}}
	text, err := json.Marshal(overlay)
	must(t, err)
	for name, content := range map[string]string{"time.go": patched, "wrong.go": wrongClock, "overlay.json": string(text)} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	binary := filepath.Join(dir, "server.test")
	out, err := exec.Command("go", "test", "-c", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary
}

// Promises 1 to 4: no decision reads a wall clock. Of three servers one's clock is
// an hour late, one's is an hour ahead, and one's jumps by two hours again and
// again; each leads in turn. Rounds close at their deadline, of a second, and one
// with a deadline of half an hour does not.
func TestClocksAnHourOff(t *testing.T) {
	if os.Getenv("UNDERTONE_CLOCKS") == "" {
		t.Skip("UNDERTONE_CLOCKS=1 builds the standard library anew, with a wrong clock")
	}
	binary := buildWithWrongClocks(t)
	const clients = 4
	c := newCluster(t, 3)
	c.binary = binary
	c.environ = func(i int) []string { return []string{clockVariable + "=" + []string{"-3600", "~3600", "3600"}[i]} }
	c.form(nil)
	terms := solo.Terms("slow")
	terms.RoundSize, terms.Deadline = clients+1, 30*time.Minute
	slow, raw := solo.Spec(t, solo.Parameters(), terms)
	terms.Job, terms.Deadline, terms.Spare = "fast", time.Second, 3
	fast, rawFast := solo.Spec(t, solo.Parameters(), terms)
	for _, raw := range [][]byte{raw, rawFast} {
		_, err := c.operator(0).CreateJob(t.Context(), &undertonev1.CreateJobRequest{Spec: raw})
		must(t, err)
	}
	for _, job := range []string{slow.Job, fast.Job} {
		_, err := c.operator(0).OpenJob(t.Context(), &undertonev1.OpenJobRequest{Job: job})
		must(t, err)
	}
	crowd := c.crowd(fast, clients, nil)
	for i := range 2 * len(c.nodes) { // each leads twice, for longer than a jump takes
		c.lead(i % len(c.nodes))
		time.Sleep(2500 * time.Millisecond)
	}
	c.keptPromises(fast, crowd)
	for i := range c.nodes {
		resp, err := c.operator(i).GetJob(t.Context(), &undertonev1.GetJobRequest{Job: slow.Job})
		must(t, err)
		if a := resp.Job.Attempts; len(a) != 1 || a[0].Phase != undertonev1.Phase_PHASE_COLLECTING {
			t.Errorf("the slow job: %v", a)
		}
		stamp := regexp.MustCompile(`(?m)^time=(\S+)`).FindStringSubmatch(c.log(i))
		if stamp == nil {
			t.Fatalf("no time in the log of node-%d", i)
		}
		shown, err := time.Parse(time.RFC3339, stamp[1])
		must(t, err)
		if off := time.Until(shown).Abs(); off < 55*time.Minute || off > 65*time.Minute {
			t.Errorf("node-%d's clock is off by %v: this test shows nothing", i, off)
		}
	}
}
