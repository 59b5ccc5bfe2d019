package simulations

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"

	"github.com/undertone-fl/undertone/simulations/population"
)

// Bounds that keep a slip of the finger from running for ever.
const (
	largestEpsilon = 1e6
	mostRuns       = 10000
)

// maxSampleFloats bounds samples x dim, the numbers of one user's X: 1 GiB.
const maxSampleFloats = 1 << 27

// Choices returns the values that the named flag accepts, or nil if it is not
// an enumeration.
func Choices(flag string) []string {
	switch flag {
	case "preset":
		var names []string
		for _, p := range Presets() {
			names = append(names, p.Name)
		}
		return names
	case "methods":
		return []string{AMHTLRS, LowRank, Global, Local, Oracle}
	case "format":
		return []string{"features", "ratings"}
	case "adjacency":
		return []string{"zero-out", "replace-one"}
	case "update":
		return []string{"gradient", "least-squares"}
	case "solver":
		return []string{"pursuit", "hard-threshold"}
	case "trust":
		return []string{"distributed", "central", "local"}
	}
	return nil
}

// Nearest returns the choice that value was most likely meant to be, or ""
// if none is near.
func Nearest(value string, choices []string) string {
	best, distance := "", len(value)/3+2 // farther than this is another word
	for _, c := range choices {
		if d := levenshtein.ComputeDistance(strings.ToLower(value), c); d < distance {
			best, distance = c, d
		}
	}
	return best
}

// Validate returns the first mistake in c as a *FieldError, or nil. Clients
// is the number of users of the population, or 0 where it is not known yet:
// what depends on it is then left unchecked.
func (c *Config) Validate(clients int) error {
	for _, check := range []func() error{
		c.validatePopulation,
		c.validateModel,
		func() error { return c.validatePrivacy(clients) },
		c.validateRuns,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// ValidateDim reports, as a *FieldError, a model that d features have no room
// for. Validate does so itself where the population is synthetic.
func (c *Config) ValidateDim(d int) error {
	if c.Rank > d {
		return problem("rank", "%d is more than the %d features", c.Rank, d)
	}
	if c.Sparsity > d {
		return problem("sparsity", "%d is more than the %d features", c.Sparsity, d)
	}
	return nil
}

func (c *Config) validatePopulation() error {
	var err error
	switch {
	case c.Synthetic != nil && c.Data != nil:
		return problem("data", "the users come from a file or from a synthetic population, not from both")
	case c.Data != nil:
		if f := c.Data.Format; f != "" && !slices.Contains(Choices("format"), f) {
			return mustBeOneOf("format", f)
		}
		err = c.Data.Validate()
	case c.Synthetic != nil:
		err = c.Synthetic.Validate()
		if s := c.Synthetic; err == nil && s.Dim > maxSampleFloats/s.Samples {
			return problem("dim", "%d features of %d samples are more than 1 GiB for one user", s.Dim, s.Samples)
		}
	default:
		return problem("data", "neither a file nor a synthetic population")
	}
	var field *population.FieldError
	if errors.As(err, &field) {
		return &FieldError{Flag: field.Field, Problem: field.Problem}
	}
	return err
}

func (c *Config) validateModel() error {
	if len(c.Methods) == 0 {
		return problem("methods", "at least one is needed: %s", strings.Join(Choices("methods"), ", "))
	}
	for i, m := range c.Methods {
		switch {
		case !slices.Contains(Choices("methods"), m):
			return mustBeOneOf("methods", m)
		case slices.Contains(c.Methods[:i], m):
			return problem("methods", "%s stands twice", m)
		case m == Oracle && c.Data != nil:
			return problem("methods", "oracle needs the truth, which is known of a synthetic population only")
		}
	}
	if c.Rank < 1 {
		return problem("rank", "%d is less than 1", c.Rank)
	}
	if c.Sparsity < 0 {
		return problem("sparsity", "%d is negative", c.Sparsity)
	}
	if c.Synthetic != nil {
		if err := c.ValidateDim(c.Synthetic.Dim); err != nil {
			return err
		}
	}
	for _, f := range []struct{ flag, value string }{{"update", c.Update}, {"solver", c.Solver}} {
		if !slices.Contains(Choices(f.flag), f.value) {
			return mustBeOneOf(f.flag, f.value)
		}
	}
	return nil
}

func (c *Config) validatePrivacy(clients int) error {
	if len(c.Epsilons) == 0 {
		return problem("epsilon", "at least one is needed, inf for no privacy")
	}
	for i, e := range c.Epsilons {
		if !(e > 0) {
			return problem("epsilon", "%q is neither a positive number nor inf", e.String())
		}
		if e.Private() && e > largestEpsilon {
			return problem("epsilon", "%v is no privacy worth an account: use inf", e)
		}
		if slices.Contains(c.Epsilons[:i], e) {
			return problem("epsilon", "%v stands twice", e)
		}
	}
	if !(c.Delta > 0 && c.Delta < 1) {
		return problem("delta", "%v is not between 0 and 1", c.Delta)
	}
	if clients > 0 && c.Delta > 1/float64(clients) {
		return problem("delta", "%v is more than 1/%d: it would allow publishing one user outright", c.Delta, clients)
	}
	for _, f := range []struct{ flag, value string }{{"adjacency", c.Adjacency}, {"trust", c.Trust}} {
		if !slices.Contains(Choices(f.flag), f.value) {
			return mustBeOneOf(f.flag, f.value)
		}
	}
	if c.NMin < 0 {
		return problem("n-min", "%d is negative", c.NMin)
	}
	if clients > 0 && c.NMin > clients {
		return problem("n-min", "%d is more than the %d users: no round could be released", c.NMin, clients)
	}
	return nil
}

func (c *Config) validateRuns() error {
	if c.Rounds < 0 {
		return problem("rounds", "%d is negative", c.Rounds)
	}
	if c.Rounds > mostRuns {
		return problem("rounds", "%d is more than %d", c.Rounds, mostRuns)
	}
	if c.Seeds > mostRuns {
		return problem("seeds", "%d is more than %d", c.Seeds, mostRuns)
	}
	if c.Seeds < 1 {
		return problem("seeds", "%d is less than 1", c.Seeds)
	}
	return nil
}

func problem(flag, format string, args ...any) error {
	return &FieldError{Flag: flag, Problem: fmt.Sprintf(format, args...)}
}

func mustBeOneOf(flag, value string) error {
	choices := Choices(flag)
	hint := ""
	if near := Nearest(value, choices); near != "" {
		hint = fmt.Sprintf(" (did you mean %s?)", near)
	}
	return problem(flag, "%q is not one of %s%s", value, strings.Join(choices, ", "), hint)
}
