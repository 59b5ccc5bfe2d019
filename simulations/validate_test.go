package simulations

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/undertone-fl/undertone/simulations/population"
)

func TestPresetsAreValid(t *testing.T) {
	for _, p := range Presets() {
		c := p.Config()
		if err := c.Validate(c.Synthetic.Clients); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
}

func TestPresetConfigIsACopy(t *testing.T) {
	p, err := FindPreset(QuickPreset)
	if err != nil {
		t.Fatal(err)
	}
	c := p.Config()
	c.Synthetic.Clients = 1
	if p.Population.Clients == 1 {
		t.Error("changing a configuration changed the preset it came from")
	}
}

func TestValidate(t *testing.T) {
	data := func(c *Config) {
		c.Synthetic = nil
		c.Data = &population.CSV{Path: "users.csv", Format: "features", Train: 0.75}
		c.Methods = []string{AMHTLRS}
	}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string // of the error; none if empty
	}{
		{"as the preset", func(*Config) {}, ""},
		{"delta of 1/n", func(c *Config) { c.Delta = 1.0 / 2000 }, ""},
		{"all users needed", func(c *Config) { c.NMin = 2000 }, ""},
		{"rank of d", func(c *Config) { c.Rank, c.Synthetic.Rank = 30, 30 }, ""},
		{"no sparse part", func(c *Config) { c.Sparsity, c.Synthetic.Sparsity = 0, 0 }, ""},
		{"data", data, ""},

		{"no population", func(c *Config) { c.Synthetic = nil }, "--data: neither"},
		{"two populations", func(c *Config) { c.Data = &population.CSV{} }, "--data: "},
		{"no clients", func(c *Config) { c.Synthetic.Clients = 0 }, "--clients: 0 is less than 1"},
		{"no features", func(c *Config) { c.Synthetic.Dim = 0 }, "--dim: 0"},
		{"too many features", func(c *Config) { c.Synthetic.Dim = math.MaxInt }, "--dim: "},
		{"no samples", func(c *Config) { c.Synthetic.Samples = -1 }, "--samples: -1"},
		{"rank above d", func(c *Config) { c.Synthetic.Rank = 31 }, "--rank: 31 is more than the 30 features"},
		{"rank of the model above d", func(c *Config) { c.Rank = 31 }, "--rank: 31"},
		{"no rank", func(c *Config) { c.Rank = 0 }, "--rank: 0 is less than 1"},
		{"negative sparsity", func(c *Config) { c.Sparsity = -1 }, "--sparsity: -1 is negative"},
		{"sparsity above d", func(c *Config) { c.Synthetic.Sparsity = 31 }, "--sparsity: 31"},
		{"label noise", func(c *Config) { c.Synthetic.LabelNoise = math.NaN() }, "--label-noise: NaN"},
		{"correlation", func(c *Config) { c.Synthetic.Correlation = 1 }, "--correlation: 1"},
		{"outliers", func(c *Config) { c.Synthetic.Outliers = 1.5 }, "--outliers: 1.5"},

		{"no format", func(c *Config) { data(c); c.Data.Format = "" }, "--format: "},
		{"unknown format", func(c *Config) { data(c); c.Data.Format = "rating" }, "did you mean ratings?"},
		{"no train", func(c *Config) { data(c); c.Data.Train = 0 }, "--train: "},
		{"negative train", func(c *Config) { data(c); c.Data.Train = -3 }, "--train: -3"},
		{"half a sample", func(c *Config) { data(c); c.Data.Train = 2.5 }, "--train: 2.5"},
		{"oracle on data", func(c *Config) { data(c); c.Methods = []string{Oracle} }, "--methods: oracle"},

		{"no method", func(c *Config) { c.Methods = nil }, "--methods: at least one"},
		{"unknown method", func(c *Config) { c.Methods = []string{"lowrank"} }, "did you mean low-rank?"},
		{"method twice", func(c *Config) { c.Methods = []string{Local, Local} }, "--methods: local stands twice"},
		{"update", func(c *Config) { c.Update = "newton" }, `--update: "newton" is not one of gradient, least-squares`},
		{"solver", func(c *Config) { c.Solver = "" }, "--solver: "},

		{"no epsilon", func(c *Config) { c.Epsilons = nil }, "--epsilon: at least one"},
		{"epsilon of 0", func(c *Config) { c.Epsilons = []Epsilon{0} }, "--epsilon: "},
		{"epsilon not a number", func(c *Config) { c.Epsilons = []Epsilon{Epsilon(math.NaN())} }, "--epsilon: "},
		{"epsilon twice", func(c *Config) { c.Epsilons = []Epsilon{1, 2, 1} }, "--epsilon: 1 stands twice"},
		{"delta of 0", func(c *Config) { c.Delta = 0 }, "--delta: 0"},
		{"delta of 1", func(c *Config) { c.Delta = 1 }, "--delta: 1"},
		{"delta above 1/n", func(c *Config) { c.Delta = 1e-3 }, "--delta: 0.001 is more than 1/2000"},
		{"adjacency", func(c *Config) { c.Adjacency = "zeroout" }, "did you mean zero-out?"},
		{"trust", func(c *Config) { c.Trust = "me" }, "--trust: "},
		{"negative n-min", func(c *Config) { c.NMin = -1 }, "--n-min: -1"},
		{"n-min above n", func(c *Config) { c.NMin = 2001 }, "--n-min: 2001"},

		{"rounds", func(c *Config) { c.Rounds = -1 }, "--rounds: -1"},
		{"seeds", func(c *Config) { c.Seeds = 0 }, "--seeds: 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := FindPreset(QuickPreset)
			if err != nil {
				t.Fatal(err)
			}
			c := p.Config()
			tt.change(&c)
			err = c.Validate(2000)
			if tt.want == "" {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			var field *FieldError
			if !errors.As(err, &field) {
				t.Fatalf("got %v, want a *FieldError", err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, want it to contain %q", err, tt.want)
			}
		})
	}
}

func TestValidateWithoutTheNumberOfUsers(t *testing.T) {
	c := DataConfig(population.CSV{Path: "users.csv", Format: "ratings", Train: 5})
	c.Delta = 0.5
	c.NMin = 1 << 40
	if err := c.Validate(0); err != nil {
		t.Errorf("refused for a number of users that is not known: %v", err)
	}
}

func TestDefaultDelta(t *testing.T) {
	for _, tt := range []struct {
		clients int
		data    bool
		want    float64
	}{
		{0, false, 1e-6},
		{2000, false, 1e-6},
		{100_000, false, 1e-6},
		{100_001, false, 1e-7},
		{139, true, 1e-5},
		{10_000, true, 1e-5},
		{50_000, true, 1e-6},
	} {
		if got := DefaultDelta(tt.clients, tt.data); got != tt.want {
			t.Errorf("DefaultDelta(%d, %t) = %v, want %v", tt.clients, tt.data, got, tt.want)
		}
	}
}

func TestNearest(t *testing.T) {
	for value, want := range map[string]string{
		"lrs2000": "lrs-2000", "quikc": "quick", "fedrep": "", "banana": "",
	} {
		if got := Nearest(value, Choices("preset")); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", value, got, want)
		}
	}
}
