package simulations

import (
	"math"

	"github.com/undertone-fl/undertone/simulations/population"
)

// Preset is a named synthetic population, and the budgets and the number of
// seeds that show it well. A preset gives the defaults; every one of them can
// be changed.
type Preset struct {
	Name       string
	Summary    string // one line
	Population population.Synthetic
	Epsilons   []Epsilon
	Seeds      int
}

// QuickPreset is the one that runs when nothing else is asked for.
const QuickPreset = "quick"

// Presets returns every preset, the default first.
func Presets() []Preset {
	inf := Epsilon(math.Inf(1))
	return []Preset{
		{
			Name:    QuickPreset,
			Summary: "2,000 users, d = 30: the price of privacy from epsilon 0.1 up, within a minute",
			Population: population.Synthetic{
				Clients: 2000, Dim: 30, Rank: 3, Sparsity: 3, Samples: 30, LabelNoise: 0.1},
			Epsilons: []Epsilon{0.1, 0.25, 0.5, 1, 2, inf},
			Seeds:    5,
		},
		{
			Name:    "lrs-2000",
			Summary: "2,000 users with 50 samples each, d = 50, low rank plus sparse",
			Population: population.Synthetic{
				Clients: 2000, Dim: 50, Rank: 3, Sparsity: 4, Samples: 50, LabelNoise: 0.1},
			Epsilons: []Epsilon{1, inf},
			Seeds:    5,
		},
		{
			Name:    "lrs-4000",
			Summary: "lrs-2000 with twice the users",
			Population: population.Synthetic{
				Clients: 4000, Dim: 50, Rank: 3, Sparsity: 4, Samples: 50, LabelNoise: 0.1},
			Epsilons: []Epsilon{1, inf},
			Seeds:    5,
		},
		{
			Name:    "lrs-scarce",
			Summary: "200 users with 25 samples for 50 unknowns, no label noise",
			Population: population.Synthetic{
				Clients: 200, Dim: 50, Rank: 5, Sparsity: 4, Samples: 25},
			Epsilons: []Epsilon{1, inf},
			Seeds:    5,
		},
		{
			Name:    "private-fedrep",
			Summary: "the released experiment of Private FedRep (ICML 2025): 20,000 users with 5 samples, no sparse part",
			Population: population.Synthetic{
				Clients: 20000, Dim: 50, Rank: 2, Samples: 5, LabelNoise: 0.01, WScale: 1 / math.Sqrt2},
			Epsilons: []Epsilon{1, inf},
			Seeds:    5,
		},
	}
}

// FindPreset returns the preset of that name, or a *FieldError.
func FindPreset(name string) (Preset, error) {
	for _, p := range Presets() {
		if p.Name == name {
			return p, nil
		}
	}
	return Preset{}, mustBeOneOf("preset", name)
}

// Config returns the experiment that the preset stands for: every method on
// its population. Delta is that of [DefaultDelta].
func (p Preset) Config() Config {
	synthetic := p.Population
	c := defaults()
	c.Preset = p.Name
	c.Synthetic = &synthetic
	c.Rank, c.Sparsity = synthetic.Rank, synthetic.Sparsity
	c.Methods = c.Applicable()
	c.Epsilons = p.Epsilons
	c.Seeds = p.Seeds
	c.Delta = DefaultDelta(synthetic.Clients, false)
	return c
}

// DataConfig returns the experiment on a file's users that runs when nothing
// more is asked for: every method but the oracle, without privacy. Delta
// stays 0 until the number of users is known; see [DefaultDelta].
func DataConfig(data population.CSV) Config {
	c := defaults()
	c.Data = &data
	c.Rank = 6
	c.Methods = c.Applicable()
	c.Epsilons = []Epsilon{Epsilon(math.Inf(1))}
	c.Seeds = 5
	return c
}

// Applicable returns the methods that say something different from each other:
// without a sparse part low-rank is amht-lrs, and only of a synthetic
// population is the truth known.
func (c *Config) Applicable() []string {
	methods := []string{AMHTLRS}
	if c.Sparsity > 0 {
		methods = append(methods, LowRank)
	}
	methods = append(methods, Global, Local)
	if c.Synthetic != nil {
		methods = append(methods, Oracle)
	}
	return methods
}

func defaults() Config {
	return Config{
		Adjacency: "zero-out",
		Update:    "gradient",
		Solver:    "pursuit",
		Trust:     "distributed",
		Seed:      1,
	}
}

// DefaultDelta is the largest power of ten that is at most 1e-6 (1e-5 for
// users from a file) and at most a tenth of 1/clients: a delta near
// 1/clients would allow publishing one user outright.
func DefaultDelta(clients int, data bool) float64 {
	inverse := 1e6
	if data {
		inverse = 1e5
	}
	for inverse < 10*float64(clients) {
		inverse *= 10
	}
	return 1 / inverse
}
