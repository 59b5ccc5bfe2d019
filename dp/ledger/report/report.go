// Package report says what a verified ledger means: for an auditor, per job, what was
// promised, what is spent, what is left, to whom it is private, and what is not covered.
// The same Report is the text, the JSON and the page that an auditor reads.
package report

// Report is everything that the auditor's page holds. Its JSON names are a format that
// others read: fields are added, never changed (FORMAT.md).
type Report struct {
	Version int    `json:"version"`
	Ledger  Ledger `json:"ledger"`
	Jobs    []Job  `json:"jobs"`
	// Together is what all jobs of the ledger, also those that are not among Jobs, cost a
	// user who took part in every attempt of them.
	Together Together `json:"together"`
	// NotCovered is what no ledger can show: malicious clients, timing, users with several
	// accounts, ...
	NotCovered []string `json:"not_covered"`
}

// Ledger is the log that the report was computed from.
type Ledger struct {
	Origin     string `json:"origin"`
	Records    int64  `json:"records"`
	Root       string `json:"root"`       // hex
	Checkpoint string `json:"checkpoint"` // the signed note
	Key        string `json:"key"`        // public, that signed it
	Rotations  int    `json:"key_rotations"`
	Began      string `json:"began,omitempty"` // RFC 3339, UTC
	Last       string `json:"last,omitempty"`
	// Carried is how many records are of what there was before the ledger began.
	Carried int64 `json:"carried_over,omitempty"`
	// Ahead is how many records, the last ones, are dated after the time at which the
	// report was made, by more than clocks differ: some server's is wrong, and their times
	// say nothing but the order.
	Ahead int `json:"dated_ahead,omitempty"`
	// Restored are the indices of records at which the cluster went on from a backup.
	Restored []int64 `json:"restored,omitempty"`
	Fetch    string  `json:"fetch_command"`  // that fetches it
	Command  string  `json:"verify_command"` // that verifies it then
}

// Job is one job's account.
type Job struct {
	Name    string `json:"job"`
	Method  string `json:"method"`
	Status  string `json:"status"` // created, open, exhausted, finished, closed
	Created string `json:"created,omitempty"`
	// Carried says that the job is older than the ledger: Created is when the ledger began.
	Carried bool `json:"carried_over,omitempty"`

	Unit           string `json:"unit"` // one user, all rounds
	Adjacency      string `json:"adjacency"`
	AdjacencyMeans string `json:"adjacency_means"`
	Trust          Trust  `json:"trust"`

	Delta float64 `json:"delta"`
	// Population is n, the most users in a release on record, and n_min before any: the job
	// has n users or more, so that delta times them is DeltaTimesN or more. DeltaMeans says
	// so.
	Population  int     `json:"population"`
	DeltaTimesN float64 `json:"delta_times_n"`
	DeltaMeans  string  `json:"delta_means"`

	Cap   Privacy `json:"cap"`
	Spent Privacy `json:"spent"`
	Left  Privacy `json:"left"`
	// FailedAttempts are attempts that released nothing, and FailedSpent what they cost.
	FailedAttempts int     `json:"failed_attempts"`
	FailedSpent    Privacy `json:"failed_spent"`

	Rounds      int         `json:"rounds"` // that the job releases in all
	Released    int         `json:"released"`
	Attempts    []Attempt   `json:"attempts"`
	Parameters  []Parameter `json:"parameters"`
	Accountants Answers     `json:"accountants"`      // of what is spent
	Canaries    int         `json:"canaries"`         // measurements on record
	Canary      *Canary     `json:"canary,omitempty"` // the last of them
	// CanaryFailed is the last that failed a test, or whose lower bound is above its claim,
	// whatever came after it; nil: none did.
	CanaryFailed *Canary `json:"canary_failed,omitempty"`
}

// Together is the cost of all jobs, whose rho add up: under zero-out, whatever theirs is.
// It goes up to 2^64-1 nano-rho, and from there on means that much or more.
type Together struct {
	Jobs  int     `json:"jobs"`  // of the ledger
	Delta float64 `json:"delta"` // the least of the jobs'; 0 where there are none
	Privacy
}

// Privacy is an amount of it, in every unit that people use.
type Privacy struct {
	NanoRho    uint64  `json:"nano_rho"`
	Rho        float64 `json:"rho"`
	Mu         float64 `json:"mu"`                  // of Gaussian DP; 0 where the lattice is too coarse for it
	Epsilon    float64 `json:"epsilon"`             // at the job's delta, under the job's adjacency
	ReplaceOne float64 `json:"replace_one_epsilon"` // the same under replace-one
}

// Trust says in words who is trusted with what.
type Trust struct {
	Mode       string   `json:"mode"`
	SeesBefore []string `json:"sees_before_noise"` // who sees what before all of the noise is in it
	Collude    []string `json:"must_not_collude"`
}

// Attempt is a row of the table of releases.
type Attempt struct {
	Round      int     `json:"round"`
	Attempt    int     `json:"attempt"`
	Kind       string  `json:"kind"`
	Clip       float64 `json:"clip"`  // largest L2 norm, in the method's units
	Noise      float64 `json:"noise"` // standard deviation that is charged, of the sum, in the same units
	Multiplier float64 `json:"noise_multiplier"`
	NMin       int     `json:"n_min"`
	Members    int     `json:"members"`
	Sampler    string  `json:"sampler"`
	Charge     Privacy `json:"charge"`
	Spent      Privacy `json:"spent_after"`
	Leaf       int64   `json:"leaf"`     // record of the charge
	EndLeaf    int64   `json:"end_leaf"` // of the release or failure; -1: none yet
	Status     string  `json:"status"`
	Why        string  `json:"why,omitempty"`
	State      string  `json:"state,omitempty"` // hex
	Opened     string  `json:"opened,omitempty"`
	Ended      string  `json:"ended,omitempty"`
	// Carried says that the attempt is older than the ledger: Opened and Ended are when the
	// ledger began.
	Carried bool `json:"carried_over,omitempty"`
}

// Parameter is a public parameter, and how it was chosen.
type Parameter struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	How   string `json:"how"`
}

// Accountant is one accountant's answer.
type Accountant struct {
	Name    string  `json:"name"`
	Epsilon float64 `json:"epsilon"`
	Note    string  `json:"note"` // why it differs from the others
}

// Canary is a measurement on record.
type Canary struct {
	Claimed float64 `json:"claimed_epsilon"`
	Charged float64 `json:"charged_epsilon"` // by the ledger, for an attempt at every round, at Delta
	// Lower is a bound if the noise is Gaussian. Upper, 0 if there is none, is what the
	// attack may reach, and no bound on epsilon.
	Lower      float64 `json:"lower_bound_epsilon"`
	Upper      float64 `json:"upper_bound_epsilon,omitempty"`
	Delta      string  `json:"delta"`
	Confidence float64 `json:"confidence"` // of each bound
	Trials     uint64  `json:"trials"`
	Passed     bool    `json:"passed"`
	By         string  `json:"by"`
	Date       string  `json:"date,omitempty"`
	How        string  `json:"how"` // what was measured, and by what: by does not vouch for more
	// HowMeans says that How is of no cluster's noise, if it is not.
	HowMeans string `json:"how_means,omitempty"`
}
