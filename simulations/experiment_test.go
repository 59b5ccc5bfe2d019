package simulations

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/simulations/population"
)

// small is an experiment that takes a fraction of a second.
func small() Config {
	return Config{
		Synthetic: &population.Synthetic{Clients: 300, Dim: 12, Rank: 2, Sparsity: 1, Samples: 16, LabelNoise: 0.1},
		Methods:   []string{AMHTLRS, Global, Local, Oracle}, Rank: 2, Sparsity: 1,
		Rounds: 3, Epsilons: []Epsilon{8, Epsilon(math.Inf(1))}, Delta: 1e-6,
		Adjacency: "zero-out", Update: "gradient", Solver: "pursuit", Trust: "distributed",
		Seed: 5, Seeds: 2,
	}
}

func simulate(t *testing.T, cfg Config, opts Options) *Result {
	t.Helper()
	r, err := Simulate(context.Background(), cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// runs is what of a result must not depend on how it was computed.
func runs(t *testing.T, r *Result) string {
	t.Helper()
	var out []Run
	for _, run := range r.Runs {
		run.Seconds = 0
		out = append(out, run)
	}
	b, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestResultDoesNotDependOnWorkers(t *testing.T) {
	want := runs(t, simulate(t, small(), Options{Workers: 1}))
	for _, workers := range []int{2, 5} {
		if got := runs(t, simulate(t, small(), Options{Workers: workers})); got != want {
			t.Errorf("%d workers give another result than one", workers)
		}
	}
	cfg := small()
	cfg.Seed++
	if runs(t, simulate(t, cfg, Options{})) == want {
		t.Error("another seed gives the same result")
	}
}

// TestResume stops an experiment after every number of progress reports that
// it makes in turn, goes on, and expects the result of the undisturbed run.
func TestResume(t *testing.T) {
	cfg := small()
	cfg.Seeds = 1
	want := runs(t, simulate(t, cfg, Options{}))
	dir := t.TempDir()
	stopped := 0
	for after := 1; ; after++ {
		ctx, cancel := context.WithCancel(context.Background())
		seen := 0
		r, err := Simulate(ctx, cfg, Options{Dir: dir, Resume: after > 1, Progress: func(Progress) {
			if seen++; seen > after%4+1 {
				cancel()
			}
		}})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if !r.Interrupted {
			if got := runs(t, r); got != want {
				t.Error("an interrupted experiment ends with another result")
			}
			break
		}
		stopped++
		if _, err := Simulate(context.Background(), cfg, Options{Dir: dir}); !errors.Is(err, ErrUnfinished) {
			t.Fatalf("starting over a stopped experiment: got %v, want ErrUnfinished", err)
		}
		if after > 200 {
			t.Fatal("the experiment never ends")
		}
	}
	if stopped < 3 {
		t.Errorf("stopped only %d times: the test shows little", stopped)
	}
	other := cfg
	other.Delta /= 2
	if _, err := Simulate(context.Background(), other, Options{Dir: dir, Resume: true}); !errors.Is(err, ErrOtherExperiment) {
		t.Errorf("resuming another experiment: got %v, want ErrOtherExperiment", err)
	}
	// A torn last line is dropped, and its run computed again.
	path := filepath.Join(dir, journalName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b[:len(b)-20], 0o666); err != nil {
		t.Fatal(err)
	}
	if got := runs(t, simulate(t, cfg, Options{Dir: dir, Resume: true})); got != want {
		t.Error("a torn journal changes the result")
	}
	if err := RemoveJournal(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Simulate(context.Background(), cfg, Options{Dir: dir, Resume: true}); !errors.Is(err, ErrNothingToResume) {
		t.Errorf("resuming without a journal: got %v, want ErrNothingToResume", err)
	}
}

// TestSchedulePaysForEverything recomputes what a plan costs from its noise
// multipliers alone, with an accountant that the plan does not use.
func TestSchedulePaysForEverything(t *testing.T) {
	for _, adjacency := range []dp.Adjacency{dp.ZeroOut, dp.ReplaceOne} {
		for _, method := range []string{AMHTLRS, LowRank, Global} {
			for _, epsilon := range []Epsilon{0.1, 1, 8} {
				cfg := small()
				cfg.Adjacency = adjacency.String()
				p, err := schedule(&cfg, method, epsilon, 12, 300)
				if err != nil {
					t.Fatal(err)
				}
				var events accounting.Composed
				for step := range p.Phases() {
					_, multiplier := p.charge(step)
					events = append(events, accounting.Gaussian{NoiseMultiplier: multiplier})
				}
				scaled, err := accounting.Scale(events, adjacency.SensitivityFactor())
				if err != nil {
					t.Fatal(err)
				}
				mu, err := accounting.GDP(scaled)
				if err != nil {
					t.Fatal(err)
				}
				got := accounting.GaussianEpsilon(mu, cfg.Delta)
				if got > float64(epsilon) || got < 0.999*float64(epsilon) {
					t.Errorf("%s, %v: %v planned, %v spent", method, adjacency, epsilon, got)
				}
			}
		}
	}
}

// TestSpentNeverExceedsEpsilon also checks that what is reported grows with
// every release and ends at the budget.
func TestSpentNeverExceedsEpsilon(t *testing.T) {
	cfg := small()
	for _, r := range simulate(t, cfg, Options{}).Runs {
		last := 0.0
		for _, round := range r.Rounds {
			if !r.Epsilon.Private() {
				if round.EpsilonSpent != 0 {
					t.Errorf("%s without privacy reports a cost", r.Method)
				}
				continue
			}
			if round.EpsilonSpent <= last {
				t.Errorf("%s: round %d costs nothing", r.Method, round.Round)
			}
			last = round.EpsilonSpent
		}
		if r.Epsilon.Private() && (last > float64(r.Epsilon) || last < 0.999*float64(r.Epsilon)) {
			t.Errorf("%s: spent %v of %v", r.Method, last, r.Epsilon)
		}
		if r.Epsilon.Private() && r.EpsilonReplaceOne < 2*last {
			t.Errorf("%s: replace-one %v beside zero-out %v", r.Method, r.EpsilonReplaceOne, last)
		}
	}
}

func TestTooSmallABudgetIsRefused(t *testing.T) {
	cfg := small()
	cfg.Epsilons = []Epsilon{1e-6}
	_, err := Simulate(context.Background(), cfg, Options{})
	var field *FieldError
	if !errors.As(err, &field) || field.Flag != "epsilon" {
		t.Fatalf("got %v, want a mistake in --epsilon", err)
	}
}

func mean(t *testing.T, r *Result, method, metric string, epsilon float64) float64 {
	t.Helper()
	for _, s := range r.Summary {
		if s.Method == method && s.Metric == metric && float64(s.Epsilon) == epsilon {
			return s.Mean
		}
	}
	t.Fatalf("no %s of %s at epsilon %v", metric, method, epsilon)
	return 0
}

// TestAccuracy runs small versions of the presets, seeded, with bounds that a
// method which learns nothing misses by far.
func TestAccuracy(t *testing.T) {
	inf := math.Inf(1)
	cfg := small()
	cfg.Synthetic = &population.Synthetic{Clients: 1000, Dim: 30, Rank: 3, Sparsity: 3, Samples: 40, LabelNoise: 0.1}
	cfg.Methods = []string{AMHTLRS, LowRank, Local, Oracle}
	cfg.Rank, cfg.Sparsity, cfg.Rounds, cfg.Seeds = 3, 3, 0, 1
	cfg.Epsilons = []Epsilon{1, Epsilon(inf)}
	r := simulate(t, cfg, Options{})
	oracle := mean(t, r, Oracle, RelativeError, inf)
	for _, c := range []struct {
		method  string
		epsilon float64
		most    float64
	}{
		{AMHTLRS, inf, 1.05 * oracle},
		{AMHTLRS, 1, 1.5 * oracle},
		{LowRank, inf, 1},
		{Local, inf, 0.5},
	} {
		if got := mean(t, r, c.method, RelativeError, c.epsilon); got > c.most {
			t.Errorf("%s at epsilon %v: relative error %v, want at most %v", c.method, c.epsilon, got, c.most)
		}
	}
	if local := mean(t, r, Local, RelativeError, inf); local < 3*oracle {
		t.Errorf("users alone reach %v, oracle %v: the population is too easy", local, oracle)
	}
}

// TestOneDefault is the rule that no preset has tuning of its own: the same
// schedule, but for public numbers, whatever the population.
func TestOneDefault(t *testing.T) {
	for _, preset := range Presets() {
		cfg := preset.Config()
		p, err := schedule(&cfg, AMHTLRS, 1, cfg.Synthetic.Dim, cfg.Synthetic.Clients)
		if err != nil {
			t.Fatal(err)
		}
		want := lowrank.Config{Dim: cfg.Synthetic.Dim, Rank: cfg.Synthetic.Rank, Rounds: 6,
			Features: lowrank.Standard, Update: lowrank.Gradient}
		if p.Config != want {
			t.Errorf("%s: schedule %+v, want %+v", preset.Name, p.Config, want)
		}
	}
}

func TestUpdatesAndSolvers(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		update, solver, trust string
		most                  float64
	}{
		{"least-squares", "pursuit", "distributed", 0.03},
		{"gradient", "hard-threshold", "distributed", 0.3},
		{"gradient", "pursuit", "central", 0.03},
	} {
		cfg := small()
		cfg.Methods, cfg.Seeds, cfg.Epsilons = []string{AMHTLRS}, 1, []Epsilon{Epsilon(inf)}
		cfg.Update, cfg.Solver, cfg.Trust = c.update, c.solver, c.trust
		if got := mean(t, simulate(t, cfg, Options{}), AMHTLRS, RelativeError, inf); got > c.most {
			t.Errorf("%+v: relative error %v", c, got)
		}
	}
}

// TestTrustModesAgree: central and distributed noise are the same sum; local
// noise is far more.
func TestTrustModesAgree(t *testing.T) {
	errorOf := func(trust string) float64 {
		cfg := small()
		cfg.Methods, cfg.Seeds, cfg.Epsilons, cfg.Trust = []string{AMHTLRS}, 1, []Epsilon{4}, trust
		return mean(t, simulate(t, cfg, Options{}), AMHTLRS, RelativeError, 4)
	}
	distributed := errorOf("distributed")
	if central := errorOf("central"); central != distributed {
		t.Errorf("central %v, distributed %v", central, distributed)
	}
	if local := errorOf("local"); local < 2*distributed {
		t.Errorf("local noise costs nothing: %v against %v", local, distributed)
	}
}

func TestHarderPopulations(t *testing.T) {
	for _, harder := range []population.Synthetic{
		{UnequalSamples: true}, {Correlation: 0.5}, {HeavyTails: true}, {Outliers: 0.1},
	} {
		cfg := small()
		s := harder
		s.Clients, s.Dim, s.Rank, s.Sparsity, s.Samples, s.LabelNoise = 400, 12, 2, 1, 16, 0.1
		cfg.Synthetic, cfg.Seeds, cfg.Rounds = &s, 1, 0
		cfg.Methods = []string{AMHTLRS, Local}
		cfg.Epsilons = []Epsilon{1, Epsilon(math.Inf(1))}
		r := simulate(t, cfg, Options{})
		for _, s := range r.Summary {
			if math.IsNaN(s.Mean) || math.IsInf(s.Mean, 0) {
				t.Errorf("%+v: %s of %s is %v", harder, s.Metric, s.Method, s.Mean)
			}
		}
		if got := mean(t, r, AMHTLRS, RelativeError, math.Inf(1)); got > 1 {
			t.Errorf("%+v: relative error %v, worse than predicting zero", harder, got)
		}
	}
}

// TestManyFeatures: above the dimension whose moment matrices are sent, every
// method still has a release to begin with.
func TestManyFeatures(t *testing.T) {
	cfg := small()
	cfg.Synthetic = &population.Synthetic{Clients: 60, Dim: lowrank.LargestMoment + 1, Rank: 2, Sparsity: 1, Samples: 20, LabelNoise: 0.1}
	cfg.Methods, cfg.Seeds, cfg.Rounds = Choices("methods"), 1, 2
	for _, s := range simulate(t, cfg, Options{}).Summary {
		if math.IsNaN(s.Mean) {
			t.Errorf("%s of %s is NaN", s.Metric, s.Method)
		}
	}
}

// TestNoSpread: a measure that does not apply is left out, and the result
// can still be written.
func TestNoSpread(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flat.csv")
	text := "user,item,rating\n"
	for _, u := range []string{"a", "b", "c", "d"} {
		for _, i := range []string{"x", "y", "z", "v"} {
			text += u + "," + i + ",3\n"
		}
	}
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	cfg := small()
	cfg.Synthetic, cfg.Data = nil, &population.CSV{Path: path, Format: "ratings", Train: 2}
	cfg.Methods, cfg.Delta = []string{AMHTLRS, Global, Local}, 1e-3
	r := simulate(t, cfg, Options{})
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
	for _, s := range r.Summary {
		if s.Metric == ExplainedVariance {
			t.Errorf("%s explains %v of no variance", s.Method, s.Mean)
		}
	}
}

// TestDamagedCheckpoint: what the checksum or the plan refuses is computed
// again.
func TestDamagedCheckpoint(t *testing.T) {
	cfg := small()
	cfg.Seeds = 1
	want := runs(t, simulate(t, cfg, Options{}))
	for _, damage := range []func([]byte) []byte{
		func(b []byte) []byte { return b[:len(b)/2] },
		func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		func([]byte) []byte {
			b := []byte(`{"unit":0,"at":{"state":{"step":99}}}`)
			return append([]byte(checksum(b)+"\n"), b...)
		},
	} {
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(context.Background())
		if _, err := Simulate(ctx, cfg, Options{Dir: dir, Progress: func(p Progress) {
			if p.Done > 700 {
				cancel()
			}
		}}); err != nil {
			t.Fatal(err)
		}
		cancel()
		path := filepath.Join(dir, checkpointName)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, damage(b), 0o666); err != nil {
			t.Fatal(err)
		}
		if got := runs(t, simulate(t, cfg, Options{Dir: dir, Resume: true})); got != want {
			t.Error("a damaged checkpoint changes the result")
		}
	}
}

// TestOneProcessADirectory: a second one is turned away.
func TestOneProcessADirectory(t *testing.T) {
	dir := t.TempDir()
	cfg := small()
	tried := false
	simulate(t, cfg, Options{Dir: dir, Progress: func(Progress) {
		if tried {
			return
		}
		tried = true
		if _, err := Simulate(context.Background(), cfg, Options{Dir: dir, Resume: true}); !errors.Is(err, ErrInUse) {
			t.Errorf("got %v, want ErrInUse", err)
		}
	}})
}

// oneBad is a population with one user whose samples cannot be used.
type oneBad struct{ population.Population }

func (p oneBad) Train(i int, dst *population.Samples) {
	p.Population.Train(i, dst)
	if i == 7 {
		dst.Y[0] = math.NaN()
	}
}

// TestOneUserDecidesNothing: a user whose samples cannot be used counts as one
// who sends zeros, and the round goes on.
func TestOneUserDecidesNothing(t *testing.T) {
	cfg := small()
	users, err := population.NewSynthetic(*cfg.Synthetic, 1)
	if err != nil {
		t.Fatal(err)
	}
	p, err := schedule(&cfg, AMHTLRS, 8, users.Dim(), users.Len())
	if err != nil {
		t.Fatal(err)
	}
	u := &unit{cfg: &cfg, pop: oneBad{users}, method: AMHTLRS, epsilon: 8, plan: p, cohort: &cohort{workers: 2}}
	run, err := u.run(context.Background(), nil, func(progressState) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if len(run.Rounds) != len(p.Phases()) {
		t.Errorf("%d releases of %d", len(run.Rounds), len(p.Phases()))
	}
}

func TestPanicInAWorkerReachesTheCaller(t *testing.T) {
	c := &cohort{workers: 2}
	defer func() {
		if recover() == nil {
			t.Error("the panic is gone")
		}
	}()
	c.each(context.Background(), 1000, func(*worker) error { return nil },
		func(_ *worker, i int, _ *tally) error {
			if i == 700 {
				panic("here")
			}
			return nil
		}, func(*worker) error { return nil })
}

// BenchmarkClientRounds is the cost of one client in one round, of everything:
// drawing the samples, both halves of the method, rounding, noise, and the
// measurement.
func BenchmarkClientRounds(b *testing.B) {
	for b.Loop() {
		cfg := Config{
			Synthetic: &population.Synthetic{Clients: 5000, Dim: 50, Rank: 3, Sparsity: 4, Samples: 50, LabelNoise: 0.1},
			Methods:   []string{AMHTLRS}, Rank: 3, Sparsity: 4, Rounds: 5,
			Epsilons: []Epsilon{1}, Delta: 1e-6, Adjacency: "zero-out", Update: "gradient",
			Solver: "pursuit", Trust: "distributed", Seed: 1, Seeds: 1,
		}
		r, err := Simulate(context.Background(), cfg, Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(r.Timing.ClientRoundsPerSecond, "client-rounds/s")
	}
}
