package canary

import "time"

// Version of Result's JSON.
const Version = 1

// Result of an audit. Epsilons are those of the whole job, at Delta.
type Result struct {
	Version int       `json:"version"`
	Date    time.Time `json:"date"` // RFC 3339, in UTC, to the second
	Job     string    `json:"job"`

	Trust     string `json:"trust"`
	Adjacency string `json:"adjacency"`
	NMin      int    `json:"n_min"`
	Rounds    int    `json:"rounds"`

	// How says what was measured: the jobs of which cluster, or which program.
	How string `json:"how"`

	ClaimedEpsilon float64 `json:"claimed_epsilon"`
	// LowerBound is the epsilon of the least mu that the releases can have, if they are
	// mu-GDP and trials are independent: which is so under the claim, and need not be if
	// it is false. It is the higher of the attacks'.
	LowerBound float64 `json:"lower_bound_epsilon"`
	// UpperBound is the other end of the same attack's interval: what this attack can
	// reach, and not what another one could. 0 if nothing bounds it.
	UpperBound float64 `json:"upper_bound_epsilon,omitempty"`
	// LowerBoundAny is a lower bound on epsilon whatever the noise is, and however it
	// depends: see accounting.Guesses.Epsilon.
	LowerBoundAny float64 `json:"lower_bound_any_mechanism"`
	Delta         float64 `json:"delta"`
	Confidence    float64 `json:"confidence"`       // of each of the lower bounds
	FalseAlarm    float64 `json:"false_alarm_rate"` // of Passed, if the claim is true

	Trials   int     `json:"trials"`
	TestJobs int     `json:"test_jobs"`
	Seed     *uint64 `json:"seed,omitempty"` // that repeats it; without, randomness was secret

	Attacks []Attack `json:"attacks"`
	Tests   []Test   `json:"tests"`
	Passed  bool     `json:"passed"`  // every attack and test
	Verdict string   `json:"verdict"` // one line
}

// Attack is how well one kind of canaries was guessed.
type Attack struct {
	Name    string `json:"name"`
	Trials  int    `json:"trials"`
	Correct int    `json:"correct"`
	// Epsilons of the share of right guesses, as Gaussian noise has them. Each of Lower
	// and Upper holds but for (1 - Confidence) / the number of attacks; Upper is what this
	// attack can reach, and 0 if nothing bounds it. LowerMu is the mu of Lower; LowerAny
	// assumes nothing of the noise.
	Lower    float64 `json:"lower_epsilon"`
	Estimate float64 `json:"estimate_epsilon,omitempty"`
	Upper    float64 `json:"upper_epsilon,omitempty"`
	LowerMu  float64 `json:"lower_mu"`
	LowerAny float64 `json:"lower_epsilon_any_mechanism"`
	PValue   float64 `json:"p_value"` // of the claim
	Passed   bool    `json:"passed"`
	Meaning  string  `json:"meaning,omitempty"` // of a failure
}

// Test is what the noise looks like, beside what the claim makes of it.
type Test struct {
	Name     string  `json:"name"`
	Measured float64 `json:"measured"`
	Expected float64 `json:"expected"`
	// Low and High are an interval of Confidence around what is measured, of the
	// noise's deviation; 0 elsewhere.
	Low     float64 `json:"low,omitempty"`
	High    float64 `json:"high,omitempty"`
	PValue  float64 `json:"p_value"` // of what is measured, or more
	Passed  bool    `json:"passed"`
	Meaning string  `json:"meaning,omitempty"` // of a failure
}
