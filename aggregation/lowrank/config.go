package lowrank

import (
	"fmt"

	"github.com/undertone-fl/undertone/aggregation"
)

// Features says what is publicly known of the features before the first
// round, and so what must be learned of them, and charged.
type Features string

const (
	// Standard features have mean about 0, variance about 1 and no strong
	// correlation: nothing need be learned of them.
	Standard Features = "standard"
	// Unscaled features are numbers of unknown size and correlation: two
	// releases learn each one's scale, then the covariance and the pooled
	// regression.
	Unscaled Features = "unscaled"
	// OneHot features are indicators of one item a sample, and last a constant.
	// One release learns how often each item occurs and its mean response. The
	// constant is the sum of the items, so the shared part leaves it out.
	OneHot Features = "one-hot"
)

// Update says how U follows from what the clients send.
type Update string

const (
	// Gradient sends the residual gradient and a preconditioner, and takes a
	// Newton step (the mechanism of Private FedRep, Snedeker, Zhou, Bassily,
	// ICML 2025, with a sparse part).
	Gradient Update = "gradient"
	// LeastSquares sends the statistics of the exact minimisation over U
	// (AMHT-LRS, Pal et al., Algorithm 1).
	LeastSquares Update = "least-squares"
)

// Config is everything public that is fixed before the first round.
type Config struct {
	Dim      int      `json:"dim"`  // with OneHot features at least 2
	Rank     int      `json:"rank"` // at most Dim; 0: only the shared mean is learned
	Features Features `json:"features"`
	// Centred methods learn a shared mean of theta and a prior over w.
	Centred bool   `json:"centred"`
	Rounds  int    `json:"rounds"` // updates after the initialisation
	Update  Update `json:"update"`
	// Sketch is the number of columns of the sketched initialisation, from Rank
	// to Dim, or 0 for the full moment matrix.
	Sketch int `json:"sketch,omitempty"`
	// Trace keeps a Measure of each release in the states after it, so that whoever
	// has the latest state sees how the model came about.
	Trace bool `json:"trace,omitempty"`
}

// Bounds on a Config that comes over a network.
const (
	largestDim    = 1 << 20
	largestRounds = 10_000
)

// ConfigError is a field of a Config that is out of range; Field is its JSON
// name.
type ConfigError struct{ Field, Problem string }

func (e *ConfigError) Error() string { return "lowrank: " + e.Field + ": " + e.Problem }

// Validate returns the first mistake in c as a *ConfigError, or nil.
func (c Config) Validate() error {
	problem := func(field, format string, args ...any) error {
		return &ConfigError{field, fmt.Sprintf(format, args...)}
	}
	least := 1
	if c.Features == OneHot {
		least = 2
	}
	switch {
	case c.Features != Standard && c.Features != Unscaled && c.Features != OneHot:
		return problem("features", "%q is none of %s, %s, %s", c.Features, Standard, Unscaled, OneHot)
	case c.Update != Gradient && c.Update != LeastSquares:
		return problem("update", "%q is neither %s nor %s", c.Update, Gradient, LeastSquares)
	case c.Dim < least || c.Dim > largestDim:
		return problem("dim", "%d is not from %d to %d", c.Dim, least, largestDim)
	case c.Rank < 0 || c.Rank > c.Dim:
		return problem("rank", "%d is not from 0 to the %d features", c.Rank, c.Dim)
	case c.Rank == 0 && !c.Centred:
		return problem("rank", "0 leaves nothing to learn without a shared mean")
	case c.Rounds < 1 || c.Rounds > largestRounds:
		return problem("rounds", "%d is not from 1 to %d", c.Rounds, largestRounds)
	case c.Sketch != 0 && (c.Sketch < max(c.Rank, 1) || c.Sketch > c.Dim):
		return problem("sketch", "%d is not from the rank %d to the %d features", c.Sketch, c.Rank, c.Dim)
	case c.Sketch == 0 && c.Dim > LargestMoment:
		return problem("sketch", "missing: %d features are too many for full moments", c.Dim)
	}
	return nil
}

// Kind is what a release is for.
type Kind string

const (
	Scales     Kind = "scales"     // each feature's size
	Moments    Kind = "moments"    // covariance of the features, pooled regression
	Items      Kind = "items"      // counts and sums of the items
	Initialise Kind = "initialise" // the first U
	Refine     Kind = "update"     // the next U
)

// Phase is one release of the schedule.
type Phase struct {
	Kind Kind
	// Share of the privacy budget mu^2 (rho).
	Share float64
}

// LargestMoment is the largest dimension whose d x d moment matrices are sent.
// Above it the initialisation is a sketch, and of the features' covariance
// only the diagonal is learned.
const LargestMoment = 256

// momentLen is the number of coordinates of the features' second moment.
func (c Config) momentLen() int {
	if c.Dim > LargestMoment {
		return c.Dim
	}
	return triangle(c.Dim)
}

// Phases is the schedule: what is released in which order, and what share of
// the budget it gets. It is a function of public numbers only.
//
// The initialisation gets a quarter and the updates, evenly, the rest: enough
// for a U_0 that the first update can improve on, since each one cuts the
// error by a factor that its noise, shrinking with the error, does not limit
// until the floor is reached. What is learned of the features need only be
// right to a few percent, as an error there costs a preconditioner's quality
// and no bias: a fifth, most of it for the release that has more numbers.
func (c Config) Phases() []Phase {
	var phases []Phase
	switch c.Features {
	case Unscaled:
		phases = append(phases, Phase{Scales, 0.05}, Phase{Moments, 0.15})
	case OneHot:
		phases = append(phases, Phase{Items, 0.2})
	case Standard:
		if c.Centred {
			phases = append(phases, Phase{Moments, 0.2})
		}
	}
	if c.Rank > 0 {
		phases = append(phases, Phase{Initialise, 0.25})
	}
	rest := 1.0
	for _, p := range phases {
		rest -= p.Share
	}
	if c.Rounds == 0 || c.columns() == 0 { // nothing is left unspent
		for i := range phases {
			phases[i].Share /= 1 - rest
		}
		return phases
	}
	for range c.Rounds {
		phases = append(phases, Phase{Refine, rest / float64(c.Rounds)})
	}
	return phases
}

// columns is the number of columns that an update changes: U's, and the mean.
func (c Config) columns() int {
	if c.Centred {
		return c.Rank + 1
	}
	return c.Rank
}

// Names of the parts of a contribution.
const (
	PartMain     = "main"
	PartResponse = "response" // root mean square of the responses
	PartNoise    = "residual" // root mean square of the fit's residual
	PartBalance  = "balance"  // gradient over preconditioner, in norm
	PartSize     = "size"     // norm of w
)

// Layout of the contribution to a release. Its main part has norm at most 1,
// the histograms beside it histogramBound each: that all are released as one
// vector costs at most sqrt(1 + 3 * 0.15^2) = 1.03 in noise.
func (c Config) Layout(k Kind) aggregation.Layout {
	d, n := c.Dim, 0
	var histograms []string
	switch k {
	case Scales:
		n = d * scaleBins
	case Items:
		n = 2 * d
	case Moments:
		n = c.momentLen()
		if c.Centred {
			n += d
		}
	case Initialise:
		n = triangle(d)
		if c.Sketch > 0 {
			n = d * c.Sketch
		}
	case Refine:
		cols := c.columns()
		histograms = []string{PartNoise}
		if c.Update == LeastSquares {
			n = d*cols + triangle(d*cols)
		} else {
			n = d*cols + triangle(cols)
			histograms = append(histograms, PartBalance)
		}
		if !c.Centred {
			histograms = append(histograms, PartSize)
		}
	default:
		panic(fmt.Sprintf("lowrank: no layout for a release of kind %q", k))
	}
	if c.Centred && k == c.Phases()[0].Kind {
		// A centred method's first release also learns the responses' size.
		histograms = append(histograms, PartResponse)
	}
	layout := aggregation.Layout{{Name: PartMain, Len: n, Bound: 1}}
	for _, name := range histograms {
		layout = append(layout, aggregation.Part{Name: name, Len: histogramBins, Bound: histogramBound})
	}
	return layout
}
