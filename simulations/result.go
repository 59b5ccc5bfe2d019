package simulations

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// Epsilon is a privacy budget; +Inf, spelled "inf", is none.
type Epsilon float64

// ParseEpsilon reads a positive number or "inf".
func ParseEpsilon(s string) (Epsilon, error) {
	if s == "inf" {
		return Epsilon(math.Inf(1)), nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || v <= 0 {
		return 0, fmt.Errorf("%q is neither a positive number nor inf", s)
	}
	return Epsilon(v), nil
}

// Private reports whether e bounds anything.
func (e Epsilon) Private() bool { return !math.IsInf(float64(e), 1) }

func (e Epsilon) String() string {
	if !e.Private() {
		return "inf"
	}
	return strconv.FormatFloat(float64(e), 'g', -1, 64)
}

// MarshalJSON writes a number, or the string "inf".
func (e Epsilon) MarshalJSON() ([]byte, error) {
	if !e.Private() {
		return []byte(`"inf"`), nil
	}
	return json.Marshal(float64(e))
}

// UnmarshalJSON reads what MarshalJSON writes.
func (e *Epsilon) UnmarshalJSON(b []byte) error {
	s := string(b)
	if len(s) > 1 && s[0] == '"' {
		s = s[1 : len(s)-1]
	}
	v, err := ParseEpsilon(s)
	*e = v
	return err
}

// ResultVersion is the version of the format of result.json.
const ResultVersion = 1

// Result is what an experiment found, and the content of result.json.
type Result struct {
	Version int       `json:"version"`
	Config  Config    `json:"config"`
	Runs    []Run     `json:"runs"`
	Summary []Summary `json:"summary"`
	Timing  Timing    `json:"timing"`
	// Interrupted says that the experiment was stopped before its end.
	Interrupted bool `json:"interrupted,omitempty"`
}

// Metric names, as they appear in result.json.
const (
	RelativeError     = "relative_error"     // ||Theta^ - Theta*||_F / ||Theta*||_F (synthetic)
	SubspaceDistance  = "subspace_distance"  // ||(I - U U^T) U*||_F / sqrt(r) (synthetic)
	MSE               = "mse"                // relative_error squared: predict-zero is 1 (synthetic)
	RMSE              = "rmse"               // on held-out samples (CSV)
	ExplainedVariance = "explained_variance" // 1 - SSE/SST on held-out samples (CSV)
)

// Run is one method at one epsilon with one seed. Methods that release
// nothing (local, oracle) run once a seed, with epsilon inf.
type Run struct {
	Method  string  `json:"method"`
	Epsilon Epsilon `json:"epsilon"`
	Seed    uint64  `json:"seed"`
	// Rounds in order; the last one's metrics are the run's result.
	Rounds []Round `json:"rounds"`
	// EpsilonReplaceOne is the epsilon that the whole run costs under
	// replace-one adjacency, reported beside zero-out; absent without privacy.
	EpsilonReplaceOne float64 `json:"epsilon_replace_one,omitempty"`
	// Users are the errors of a sample of at most 500 users, evenly spaced,
	// the same in every method; recorded for the first seed only.
	Users []UserError `json:"users,omitempty"`
	// Seconds of computation.
	Seconds float64 `json:"seconds"`
}

// Round is what one release gave and cost. In JSON its metrics stand beside
// its other fields.
type Round struct {
	Round int    // 0 is what precedes the first update (initialisation)
	Phase string // "statistics", "initialise", "update"
	// EpsilonSpent is the exact cost so far at the run's delta, under the
	// run's adjacency; 0 without privacy.
	EpsilonSpent float64
	Metrics      map[string]float64
	// Clip is the bound on the contribution of the round, NoiseMultiplier
	// the noise over the sensitivity (0 without privacy).
	Clip            float64
	NoiseMultiplier float64
	// State is the SHA-256 of what was released, as servers encode it.
	State string
}

// MarshalJSON flattens the metrics into the round.
func (r Round) MarshalJSON() ([]byte, error) {
	m := map[string]any{"round": r.Round, "phase": r.Phase, "epsilon_spent": r.EpsilonSpent,
		"clip": r.Clip, "noise_multiplier": r.NoiseMultiplier}
	if r.State != "" {
		m["state_sha256"] = r.State
	}
	for k, v := range r.Metrics {
		m[k] = v
	}
	return json.Marshal(m)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (r *Round) UnmarshalJSON(b []byte) error {
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	*r = Round{Metrics: map[string]float64{}}
	for k, v := range m {
		f, _ := v.(float64)
		switch k {
		case "round":
			r.Round = int(f)
		case "phase":
			r.Phase, _ = v.(string)
		case "epsilon_spent":
			r.EpsilonSpent = f
		case "clip":
			r.Clip = f
		case "noise_multiplier":
			r.NoiseMultiplier = f
		case "state_sha256":
			r.State, _ = v.(string)
		default:
			r.Metrics[k] = f
		}
	}
	return nil
}

// UserError is one user's root mean squared error: of theta on synthetic
// data, of held-out predictions on a CSV.
type UserError struct {
	Client  int     `json:"client"`
	Samples int     `json:"samples"` // for training
	Error   float64 `json:"error"`
}

// Summary is one metric's mean over the seeds, with the half-width of its
// 95 % confidence interval (Student's t; 0 for a single seed). Every method
// has an entry at every epsilon, those that release nothing the same one.
type Summary struct {
	Method  string  `json:"method"`
	Epsilon Epsilon `json:"epsilon"`
	Metric  string  `json:"metric"`
	Mean    float64 `json:"mean"`
	CI95    float64 `json:"ci95"`
}

// Timing is the cost of the whole experiment on the machine it ran on: the
// seconds of its runs, client-rounds a second of these, and the most memory
// that the process which ended it has had resident.
type Timing struct {
	Seconds               float64 `json:"seconds"`
	ClientRoundsPerSecond float64 `json:"client_rounds_per_second"`
	PeakRSSBytes          int64   `json:"peak_rss_bytes"`
}
