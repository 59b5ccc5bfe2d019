package simulations

import (
	"github.com/undertone-fl/undertone/simulations/population"
)

// Config is an experiment: a population, the methods to compare on it, and
// the privacy they must keep. It is written into result.json as it ran, so
// that the run can be repeated from there.
type Config struct {
	Preset string `json:"preset,omitempty"`

	// Exactly one of Synthetic and Data is set.
	Synthetic *population.Synthetic `json:"synthetic,omitempty"`
	Data      *population.CSV       `json:"data,omitempty"`

	Methods []string `json:"methods"`
	// Rank r and Sparsity k of the model that is fitted.
	Rank     int `json:"rank"`
	Sparsity int `json:"sparsity"`

	// Rounds of updates after the initialisation; 0 leaves the number to the
	// schedule.
	Rounds   int       `json:"rounds"`
	Epsilons []Epsilon `json:"epsilon"`
	Delta    float64   `json:"delta"`
	// Adjacency is "zero-out" or "replace-one".
	Adjacency string `json:"adjacency"`
	// Update is "gradient" or "least-squares".
	Update string `json:"update"`
	// Solver is "pursuit" or "hard-threshold".
	Solver string `json:"solver"`
	// Trust is "distributed", "central" or "local".
	Trust string `json:"trust"`
	// NMin is the least number of updates a round may release; 0 is all.
	NMin int `json:"n_min"`

	Seed  uint64 `json:"seed"`
	Seeds int    `json:"seeds"`
}

// Methods that an experiment can compare.
const (
	AMHTLRS = "amht-lrs" // theta_i = U w_i + b_i
	LowRank = "low-rank" // theta_i = U w_i
	Global  = "global"   // one theta for all
	Local   = "local"    // each user alone: ridge regression
	Oracle  = "oracle"   // least squares with U* and every support known
)

// FieldError is a mistake in a Config; Flag is the command's flag that holds
// the field.
type FieldError struct {
	Flag    string // without dashes
	Problem string
}

func (e *FieldError) Error() string { return "--" + e.Flag + ": " + e.Problem }
