package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/undertone-fl/undertone/simulations"
	"github.com/undertone-fl/undertone/simulations/report"
)

// parse returns the experiment that a command line stands for.
func parse(t *testing.T, args ...string) (simulations.Config, *cobra.Command, error) {
	t.Helper()
	root := &cobra.Command{Use: "undertone"}
	var f flags
	cmd := &cobra.Command{Use: "simulate"}
	f.add(cmd)
	root.AddCommand(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	cfg, err := f.config(cmd)
	return cfg, cmd, err
}

func TestDefaults(t *testing.T) {
	cfg, _, err := parse(t)
	if err != nil {
		t.Fatal(err)
	}
	preset, err := simulations.FindPreset(simulations.QuickPreset)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprintf("%+v %+v", cfg.Synthetic, cfg.Epsilons), fmt.Sprintf("%+v %+v", &preset.Population, preset.Epsilons); got != want {
		t.Errorf("without flags: %s, want %s", got, want)
	}
	if cfg.Delta != 1e-6 || cfg.Seeds != 5 || cfg.Seed != 1 {
		t.Errorf("delta %v, %d seeds from %d", cfg.Delta, cfg.Seeds, cfg.Seed)
	}
}

// TestEveryFlagCounts: each flag changes the field that it names, and no
// other.
func TestEveryFlagCounts(t *testing.T) {
	base, _, err := parse(t, "--preset", "lrs-2000")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		flag   string
		change func(*simulations.Config)
	}{
		{"--clients=500", func(c *simulations.Config) { c.Synthetic.Clients = 500 }},
		{"--clients=200000", func(c *simulations.Config) { c.Synthetic.Clients, c.Delta = 200000, 1e-7 }},
		{"--dim=60", func(c *simulations.Config) { c.Synthetic.Dim = 60 }},
		{"--rank=2", func(c *simulations.Config) { c.Synthetic.Rank, c.Rank = 2, 2 }},
		{"--sparsity=0", func(c *simulations.Config) {
			c.Synthetic.Sparsity, c.Sparsity = 0, 0
			c.Methods = []string{"amht-lrs", "global", "local", "oracle"} // low-rank would be amht-lrs
		}},
		{"--samples=9", func(c *simulations.Config) { c.Synthetic.Samples = 9 }},
		{"--label-noise=0", func(c *simulations.Config) { c.Synthetic.LabelNoise = 0 }},
		{"--unequal-samples", func(c *simulations.Config) { c.Synthetic.UnequalSamples = true }},
		{"--correlation=-0.5", func(c *simulations.Config) { c.Synthetic.Correlation = -0.5 }},
		{"--heavy-tails", func(c *simulations.Config) { c.Synthetic.HeavyTails = true }},
		{"--outliers=0.1", func(c *simulations.Config) { c.Synthetic.Outliers = 0.1 }},
		{"--methods=local,global", func(c *simulations.Config) { c.Methods = []string{"local", "global"} }},
		{"--rounds=7", func(c *simulations.Config) { c.Rounds = 7 }},
		{"--update=least-squares", func(c *simulations.Config) { c.Update = "least-squares" }},
		{"--solver=hard-threshold", func(c *simulations.Config) { c.Solver = "hard-threshold" }},
		{"--epsilon=3", func(c *simulations.Config) { c.Epsilons = []simulations.Epsilon{3} }},
		{"--delta=1e-9", func(c *simulations.Config) { c.Delta = 1e-9 }},
		{"--adjacency=replace-one", func(c *simulations.Config) { c.Adjacency = "replace-one" }},
		{"--trust=local", func(c *simulations.Config) { c.Trust = "local" }},
		{"--n-min=10", func(c *simulations.Config) { c.NMin = 10 }},
		{"--seed=18446744073709551615", func(c *simulations.Config) { c.Seed = 1<<64 - 1 }},
		{"--seeds=2", func(c *simulations.Config) { c.Seeds = 2 }},
		{"--workers=2", func(*simulations.Config) {}},
		{"--out=elsewhere", func(*simulations.Config) {}},
	} {
		got, _, err := parse(t, "--preset", "lrs-2000", tt.flag)
		if err != nil {
			t.Errorf("%s: %v", tt.flag, err)
			continue
		}
		want, synthetic := base, *base.Synthetic
		want.Synthetic = &synthetic
		tt.change(&want)
		if g, w := asJSON(t, got), asJSON(t, want); g != w {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.flag, g, w)
		}
	}
}

func asJSON(t *testing.T, cfg simulations.Config) string {
	t.Helper()
	var buf bytes.Buffer
	if err := report.Encode(&buf, &simulations.Result{Config: cfg}); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

func TestDataDefaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "my ratings.csv")
	file := "user,item,rating\n"
	for _, u := range []string{"a", "b", "c"} {
		for i := range 6 {
			file += fmt.Sprintf("%s,i%d,%d\n", u, i, i)
		}
	}
	if err := os.WriteFile(path, []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg, cmd, err := parse(t, "--data", path, "--format", "ratings", "--train", "0.5")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Synthetic != nil || cfg.Rank != 6 || cfg.Sparsity != 0 || cfg.Delta != 1e-5 || cfg.Seeds != 5 ||
		len(cfg.Epsilons) != 1 || cfg.Epsilons[0].Private() || strings.Join(cfg.Methods, " ") != "amht-lrs global local" {
		t.Errorf("got %+v", cfg)
	}
	if got, want := commandLine(cmd), "undertone simulate --data '"+path+"' --format ratings --train 0.5"; got != want {
		t.Errorf("command %q, want %q", got, want)
	}
	cfg, _, err = parse(t, "--data", path, "--format", "ratings", "--train", "2", "--rank", "1", "--sparsity", "2")
	if err != nil || cfg.Rank != 1 || cfg.Sparsity != 2 || cfg.Synthetic != nil {
		t.Errorf("got %+v, %v", cfg, err)
	}
}

// TestCommandLineRepeats: the command that a report shows stands for the same
// experiment, in the user's order.
func TestCommandLineRepeats(t *testing.T) {
	args := []string{"--preset", "lrs-scarce", "--epsilon", "1,inf", "--methods=local", "--methods=global", "--correlation", "-0.25",
		"--heavy-tails", "--unequal-samples=false", "--out", "it's here", "--resume", "--quiet", "--json", "--workers", "3"}
	cfg, cmd, err := parse(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	line := commandLine(cmd)
	const want = `undertone simulate --preset lrs-scarce --epsilon 1,inf --methods local,global --correlation=-0.25 --heavy-tails --unequal-samples=false --out 'it'\''s here'`
	if line != want {
		t.Fatalf("got  %s\nwant %s", line, want)
	}
	again, _, err := parse(t, strings.Fields(strings.Replace(line, `'it'\''s here'`, "out", 1))[2:]...)
	if err != nil {
		t.Fatal(err)
	}
	if g, w := asJSON(t, again), asJSON(t, cfg); g != w {
		t.Errorf("the command stands for\n%s\nnot for\n%s", g, w)
	}
}

func TestProgressWithoutATerminal(t *testing.T) {
	var out bytes.Buffer
	clock := time.Unix(0, 0)
	p := newLines(&out, func() time.Time { return clock }, "client-rounds")
	for second := range 26 {
		clock = time.Unix(int64(second), 0)
		p.update(simulations.Progress{Done: 500 + 100*int64(second), Total: 4500, Stage: "amht-lrs, epsilon 1"})
	}
	p.finish()
	const want = " 33 %  amht-lrs, epsilon 1  (100 client-rounds/s, 30s left)\n" +
		" 56 %  amht-lrs, epsilon 1  (100 client-rounds/s, 20s left)\n"
	if got := out.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestShortOrQuietRunsPrintNoProgress(t *testing.T) {
	var out bytes.Buffer
	for _, p := range []progress{newProgress(&out, false, "trials"), newProgress(&out, true, "trials")} {
		p.update(simulations.Progress{Done: 1, Total: 2})
		p.finish()
	}
	if out.Len() > 0 {
		t.Errorf("printed %q", out.String())
	}
}

func fixture(t *testing.T) *simulations.Result {
	t.Helper()
	f, err := os.Open("../report/testdata/synthetic-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	res, err := report.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	if err := printResult(&out, fixture(t), false); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	for _, want := range []string{"relative error ", "mean squared error ", "subspace distance ", "AMHT-LRS ", "oracle ", " the relative error of AMHT-LRS is "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
	// Aligned: the second column of the first table starts at one place.
	column := strings.Index(lines[0], "ε = ")
	for _, line := range lines[1:6] {
		if r := []rune(line); len(r) <= column || r[column-1] != ' ' || r[column] == ' ' {
			t.Errorf("not aligned at %d: %q", column, line)
		}
	}
}

// run presents a result as the command would, and returns what it printed.
func run(t *testing.T, res *simulations.Result, f *flags) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	root := &cobra.Command{Use: "undertone"}
	cmd := &cobra.Command{Use: "simulate"}
	root.AddCommand(cmd)
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	err = present(cmd, f, res)
	return out.String(), errs.String(), err
}

func TestFinished(t *testing.T) {
	dir := t.TempDir()
	stdout, stderr, err := run(t, fixture(t), &flags{out: dir})
	if err != nil || stderr != "" {
		t.Fatalf("%v, stderr %q", err, stderr)
	}
	if !strings.Contains(stdout, "report: "+filepath.Join(dir, "report.html")) || !strings.Contains(stdout, "client-rounds/s, peak memory") {
		t.Errorf("printed\n%s", stdout)
	}
}

func TestJSON(t *testing.T) {
	stdout, stderr, err := run(t, fixture(t), &flags{json: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := report.Decode(strings.NewReader(stdout)); err != nil {
		t.Errorf("stdout is no result: %v", err)
	}
	if !strings.HasPrefix(stderr, "time: ") {
		t.Errorf("stderr %q", stderr)
	}
}

func TestInterrupted(t *testing.T) {
	res := fixture(t)
	res.Interrupted = true
	dir := t.TempDir()
	_, _, err := run(t, res, &flags{out: dir})
	var status interface{ ExitStatus() int }
	if !errors.As(err, &status) || status.ExitStatus() != 130 {
		t.Errorf("got %v, want exit status 130", err)
	}
	if err == nil || !strings.Contains(err.Error(), "--resume") {
		t.Errorf("%v does not say how to go on", err)
	}
	f, err := os.Open(filepath.Join(dir, report.ResultFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if kept, err := report.Decode(f); err != nil || !kept.Interrupted {
		t.Errorf("result.json does not say that it was interrupted (%v)", err)
	}
}

// TestInterruptedBeforeAnyRun: a finished report stays where there is nothing
// to put in its place.
func TestInterruptedBeforeAnyRun(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := run(t, fixture(t), &flags{out: dir}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := run(t, &simulations.Result{Interrupted: true}, &flags{out: dir}); err == nil {
		t.Error("no error")
	}
	f, err := os.Open(filepath.Join(dir, report.ResultFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if kept, err := report.Decode(f); err != nil || len(kept.Runs) == 0 {
		t.Errorf("the finished result is gone (%v)", err)
	}
}

// TestFiguresSurviveAFailedReport: what was computed is printed although it
// could not be written.
func TestFiguresSurviveAFailedReport(t *testing.T) {
	stdout, _, err := run(t, fixture(t), &flags{out: filepath.Join(t.TempDir(), "gone")})
	if err == nil {
		t.Error("no error")
	}
	if !strings.Contains(stdout, "AMHT-LRS") {
		t.Errorf("printed %q", stdout)
	}
}

// TestReportSurvivesAFailedOutput: what was computed is written although
// nobody reads what is printed.
func TestReportSurvivesAFailedOutput(t *testing.T) {
	dir := t.TempDir()
	cmd := &cobra.Command{Use: "simulate"}
	cmd.SetOut(closedPipe{})
	if err := present(cmd, &flags{out: dir}, fixture(t)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v, want %v", err, io.ErrClosedPipe)
	}
	if _, err := os.Stat(filepath.Join(dir, report.HTMLFile)); err != nil {
		t.Error(err)
	}
}

type closedPipe struct{}

func (closedPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestPrepareOutLeavesNothing(t *testing.T) {
	f := flags{out: filepath.Join(t.TempDir(), "a", "b")}
	if err := f.prepareOut(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(f.out)
	if err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
}
