package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/undertone-fl/undertone/commandline"
	"github.com/undertone-fl/undertone/simulations"
	"github.com/undertone-fl/undertone/simulations/population"
)

// defaultOut is where a run without --out leaves its report.
const defaultOut = "undertone-out"

// flags are the values of the command line. Those of an experiment count only
// where they were given; the others come from the preset.
type flags struct {
	preset     string
	synthetic  population.Synthetic
	data       population.CSV
	experiment simulations.Config
	epsilons   []string

	workers int
	cluster int
	out     string
	resume  bool
	json    bool
	quiet   bool
}

// syntheticOnly are the flags that describe a simulated population, and so
// contradict --data. Rank and sparsity are the fitted model's as well.
var syntheticOnly = []string{"preset", "clients", "dim", "samples", "label-noise",
	"unequal-samples", "correlation", "heavy-tails", "outliers"}

func (f *flags) add(cmd *cobra.Command) {
	var parts []*pflag.FlagSet
	begin := func(title string) *pflag.FlagSet {
		parts = append(parts, commandline.Part(title))
		return parts[len(parts)-1]
	}
	choices := func(flag string) string { return strings.Join(simulations.Choices(flag), ", ") }

	fs := begin("Simulated population (default: the preset's)")
	fs.StringVar(&f.preset, "preset", simulations.QuickPreset, "population and defaults, a `name` of those below")
	fs.IntVar(&f.synthetic.Clients, "clients", 0, "users `t`")
	fs.IntVar(&f.synthetic.Dim, "dim", 0, "features `d`")
	fs.IntVar(&f.experiment.Rank, "rank", 0, "columns `r` of the shared U, of the users and of the model (for --data 6, or d if that is less)")
	fs.IntVar(&f.experiment.Sparsity, "sparsity", 0, "non-zeros `k` of each user's b, of the users and of the model (for --data 0)")
	fs.IntVar(&f.synthetic.Samples, "samples", 0, "training samples `m` of each user")
	fs.Float64Var(&f.synthetic.LabelNoise, "label-noise", 0, "standard deviation `sigma` of the responses' noise")

	fs = begin("Harder than the theory")
	fs.BoolVar(&f.synthetic.UnequalSamples, "unequal-samples", false, "draw each user's number of samples from a log-normal distribution with mean --samples")
	fs.Float64Var(&f.synthetic.Correlation, "correlation", 0, "correlation `rho` of neighbouring features, between -1 and 1")
	fs.BoolVar(&f.synthetic.HeavyTails, "heavy-tails", false, "draw the responses' noise from Student's t with 3 degrees of freedom")
	fs.Float64Var(&f.synthetic.Outliers, "outliers", 0, "`share` of users whose parameters have nothing in common with the others'")

	fs = begin("Users from a file, instead of a simulated population")
	fs.StringVar(&f.data.Path, "data", "", "CSV `file` with a header, plain or gzipped")
	fs.StringVar(&f.data.Format, "format", "", "what a row is, a `word`: "+choices("format"))
	fs.Float64Var(&f.data.Train, "train", 0, "training samples of each user, a `number`, or below 1 their fraction; the others are held out")

	fs = begin("Methods")
	fs.StringSliceVar(&f.experiment.Methods, "methods", nil, "`list` of "+choices("methods")+" (default: all that apply)")
	fs.IntVar(&f.experiment.Rounds, "rounds", 0, "`updates` after the initialisation; 0 leaves the number to the schedule")
	fs.StringVar(&f.experiment.Update, "update", "", "how U follows from the sum, a `rule`: "+choices("update")+" (default gradient)")
	fs.StringVar(&f.experiment.Solver, "solver", "", "solver for w and b on the device, a `name`: "+choices("solver")+" (default pursuit)")

	fs = begin("Privacy")
	fs.StringSliceVar(&f.epsilons, "epsilon", nil, "`list` of budgets, each a run of its own; inf is no privacy (default: the preset's; with --data inf)")
	fs.Float64Var(&f.experiment.Delta, "delta", 0, "`probability` delta of the guarantee (default: the largest power of ten that is at most 1e-6, with --data 1e-5, and 0.1 / users)")
	fs.StringVar(&f.experiment.Adjacency, "adjacency", "", "what neighbouring data sets differ in, a `relation`: "+choices("adjacency")+" (default zero-out)")
	fs.StringVar(&f.experiment.Trust, "trust", "", "who adds the noise, a `mode`: "+choices("trust")+" (default distributed)")
	fs.IntVar(&f.experiment.NMin, "n-min", 0, "least `number` of updates that a round releases; 0 is every user")

	fs = begin("Running")
	fs.Uint64Var(&f.experiment.Seed, "seed", 1, "first `seed`; the same seed gives the same result")
	fs.IntVar(&f.experiment.Seeds, "seeds", 0, "`number` of seeds to run (default: the preset's; with --data 5)")
	fs.IntVar(&f.workers, "workers", 0, "clients computed at a time, a `number`; 0 is one for each processor")
	fs.IntVar(&f.cluster, "cluster", 0, "compute every run under a budget on a `number` of real servers, 1, 3 or 5, started on loopback, with a real client for each user; the states released are the same bit for bit, but with --trust central, where the servers draw the noise")
	fs.StringVar(&f.out, "out", defaultOut, "`directory` for result.json, report.html and the figures; a finished report in it is replaced; \"\" writes no files")
	fs.BoolVar(&f.resume, "resume", false, "go on with the experiment that was stopped in --out; the other flags must be as before")
	fs.BoolVar(&f.json, "json", false, "print result.json instead of the table")
	fs.BoolVar(&f.quiet, "quiet", false, "no progress")

	commandline.AddParts(cmd, parts...)
	f.addCompletions(cmd)
}

// config turns the flags into an experiment without mistakes. It reads the
// file that --data names: the number of its users matters.
func (f *flags) config(cmd *cobra.Command) (simulations.Config, error) {
	changed := cmd.Flags().Changed
	cfg, err := f.base(changed)
	if err != nil {
		return cfg, err
	}
	if err := f.override(&cfg, cmd.Flags()); err != nil {
		return cfg, err
	}
	if f.workers < 0 {
		return cfg, &simulations.FieldError{Flag: "workers", Problem: fmt.Sprintf("%d is negative", f.workers)}
	}
	if f.resume && f.out == "" {
		return cfg, &simulations.FieldError{Flag: "resume", Problem: "there is nothing to go on with where --out is empty"}
	}

	if !changed("methods") {
		cfg.Methods = cfg.Applicable()
	}
	if cfg.Synthetic != nil {
		clients := cfg.Synthetic.Clients
		if !changed("delta") {
			cfg.Delta = simulations.DefaultDelta(clients, false)
		}
		return cfg, cfg.Validate(clients)
	}
	if !changed("delta") {
		cfg.Delta = simulations.DefaultDelta(0, true)
	}
	if err := cfg.Validate(0); err != nil {
		return cfg, err
	}
	users, err := population.OpenCSV(*cfg.Data, cfg.Seed)
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return cfg, &simulations.FieldError{Flag: "data", Problem: pathProblem(path)}
	}
	if err != nil {
		return cfg, err
	}
	if !changed("delta") {
		cfg.Delta = simulations.DefaultDelta(users.Len(), true)
	}
	if !changed("rank") {
		cfg.Rank = min(cfg.Rank, users.Dim())
	}
	if err := cfg.Validate(users.Len()); err != nil {
		return cfg, err
	}
	return cfg, cfg.ValidateDim(users.Dim())
}

// base is the experiment before the flags that change it.
func (f *flags) base(changed func(string) bool) (simulations.Config, error) {
	if changed("data") {
		for _, name := range syntheticOnly {
			if changed(name) {
				return simulations.Config{}, &simulations.FieldError{Flag: name, Problem: "describes simulated users, but --data names a file of users"}
			}
		}
		return simulations.DataConfig(f.data), nil
	}
	for _, name := range []string{"format", "train"} {
		if changed(name) {
			return simulations.Config{}, &simulations.FieldError{Flag: name, Problem: "is about a file, but --data names none"}
		}
	}
	preset, err := simulations.FindPreset(f.preset)
	return preset.Config(), err
}

// override sets what was given.
func (f *flags) override(cfg *simulations.Config, given *pflag.FlagSet) error {
	s := cfg.Synthetic
	if s == nil {
		s = new(population.Synthetic) // rank and sparsity are the model's alone
	}
	var err error
	set := map[string]func(){
		"clients":         func() { s.Clients = f.synthetic.Clients },
		"dim":             func() { s.Dim = f.synthetic.Dim },
		"rank":            func() { s.Rank, cfg.Rank = f.experiment.Rank, f.experiment.Rank },
		"sparsity":        func() { s.Sparsity, cfg.Sparsity = f.experiment.Sparsity, f.experiment.Sparsity },
		"samples":         func() { s.Samples = f.synthetic.Samples },
		"label-noise":     func() { s.LabelNoise = f.synthetic.LabelNoise },
		"unequal-samples": func() { s.UnequalSamples = f.synthetic.UnequalSamples },
		"correlation":     func() { s.Correlation = f.synthetic.Correlation },
		"heavy-tails":     func() { s.HeavyTails = f.synthetic.HeavyTails },
		"outliers":        func() { s.Outliers = f.synthetic.Outliers },
		"methods":         func() { cfg.Methods = f.experiment.Methods },
		"rounds":          func() { cfg.Rounds = f.experiment.Rounds },
		"update":          func() { cfg.Update = f.experiment.Update },
		"solver":          func() { cfg.Solver = f.experiment.Solver },
		"epsilon":         func() { cfg.Epsilons, err = parseEpsilons(f.epsilons) },
		"delta":           func() { cfg.Delta = f.experiment.Delta },
		"adjacency":       func() { cfg.Adjacency = f.experiment.Adjacency },
		"trust":           func() { cfg.Trust = f.experiment.Trust },
		"n-min":           func() { cfg.NMin = f.experiment.NMin },
		"seed":            func() { cfg.Seed = f.experiment.Seed },
		"seeds":           func() { cfg.Seeds = f.experiment.Seeds },
	}
	given.Visit(func(flag *pflag.Flag) {
		if apply, ok := set[flag.Name]; ok {
			apply()
		}
	})
	return err
}

func parseEpsilons(list []string) ([]simulations.Epsilon, error) {
	var epsilons []simulations.Epsilon
	for _, s := range list {
		e, err := simulations.ParseEpsilon(strings.TrimSpace(s))
		if err != nil {
			return nil, &simulations.FieldError{Flag: "epsilon", Problem: err.Error()}
		}
		epsilons = append(epsilons, e)
	}
	return epsilons, nil
}

// commandLine is the command that repeats the experiment, as one would type
// it into a shell.
func commandLine(cmd *cobra.Command) string {
	words := strings.Fields(cmd.CommandPath())
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		value := flag.Value.String()
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			value = strings.Join(list.GetSlice(), ",")
		}
		switch {
		case slices.Contains([]string{"resume", "json", "quiet", "workers"}, flag.Name):
		case flag.Value.Type() == "bool" && value == "true":
			words = append(words, "--"+flag.Name)
		case strings.HasPrefix(value, "-") || flag.Value.Type() == "bool":
			words = append(words, quote("--"+flag.Name+"="+value))
		default:
			words = append(words, "--"+flag.Name, quote(value))
		}
	})
	return strings.Join(words, " ")
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// quote makes one word of a POSIX shell out of s.
func quote(s string) string {
	if plainWord.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// addCompletions lets shells complete the flags that are enumerations and
// paths, and offer no files for the others.
func (f *flags) addCompletions(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(flag *pflag.Flag) {
		complete := cobra.NoFileCompletions
		switch choices := simulations.Choices(flag.Name); {
		case flag.Name == "preset":
			complete = completePresets
		case flag.Name == "methods":
			complete = completeMethods
		case flag.Name == "out":
			complete = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
		case flag.Name == "data":
			complete = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
				return []string{"csv", "csv.gz"}, cobra.ShellCompDirectiveFilterFileExt
			}
		case choices != nil:
			complete = cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp)
		}
		register(cmd, flag.Name, complete)
	})
}

func register(cmd *cobra.Command, flag string, complete cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // a flag has two
	}
}

func completePresets(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var lines []string
	for _, p := range simulations.Presets() {
		lines = append(lines, cobra.CompletionWithDesc(p.Name, p.Summary))
	}
	return lines, cobra.ShellCompDirectiveNoFileComp
}

// completeMethods completes the last name of a list, with those that are not
// in it yet.
func completeMethods(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	before := typed[:strings.LastIndex(typed, ",")+1]
	var lists []string
	for _, m := range simulations.Choices("methods") {
		if !slices.Contains(strings.Split(before, ","), m) {
			lists = append(lists, before+m)
		}
	}
	return lists, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// epilogue of the help.
func epilogue() string {
	var b strings.Builder
	b.WriteString("Presets:\n")
	for _, p := range simulations.Presets() {
		fmt.Fprintf(&b, "  %-15s %s\n", p.Name, p.Summary)
	}
	b.WriteString("\nExit status: 0 done, 1 failed, 2 a mistake in a flag or in the data, 130 interrupted.")
	return b.String()
}
