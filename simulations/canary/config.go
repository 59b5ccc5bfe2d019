package canary

import (
	"fmt"
	"math"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/accounting"
)

// Config of an audit.
type Config struct {
	// Spec is the job whose noise is measured. Its claim is what all its releases
	// are charged. Nil where Cluster has the test jobs already: theirs is the claim.
	Spec *rounds.Spec
	// Trials are at least this many, as test jobs are whole; with Cluster.Jobs all there
	// are.
	Trials int
	// Cluster is where the test jobs run; nil: in this process.
	Cluster *Cluster
	// Program is this one, with its version, for Result.How.
	Program string
	// Confidence of the bound, and FalseAlarm of the verdict.
	Confidence, FalseAlarm float64
	// Seed makes an audit repeatable; nil: all coins and noise are secret. With
	// TrustCentral the servers draw the noise, and there is none.
	Seed *uint64
	// Progress is told of the trials done, one call after the other.
	Progress func(done, total int)

	wiring wiring
}

// FieldError is a mistake in a Config; Flag is the command's flag that holds the
// field.
type FieldError struct{ Flag, Problem string }

func (e *FieldError) Error() string { return "--" + e.Flag + ": " + e.Problem }

func fieldError(flag, format string, args ...any) error {
	return &FieldError{flag, fmt.Sprintf(format, args...)}
}

const (
	// mostCanaries of a test job: beyond, correlations take longer than the noise.
	mostCanaries = 1024
	// silent coordinates, at least, carry nothing but noise, in a test job and in each
	// of its contributions.
	silent = 8
	// localSize is the most contributions to a round with TrustLocal, where each is
	// looked at by itself, and localSizeThere on a cluster, where rounds take longer.
	localSize, localSizeThere = 8, 64
	// loudness is the norm of a loud canary over C: enough to shout where nothing
	// clips, and so little that the servers' check of single coordinates lets it
	// pass where shares of the noise are large. One canary in loudEvery is loud.
	loudness  = 4
	loudEvery = 8
	// leastNoise of what is looked at, in lattice units: discrete Gaussians are then
	// so close to continuous ones, and rounding adds so little, that the tests'
	// p-values are right to far below their own size: one step of the lattice is less
	// than 10^-5 in probability.
	leastNoise = 1 << 16
	// MostRounds of a job: every pair of them is compared.
	MostRounds = 256
	mostTrials = 10_000_000
	// mostPrints bounds the memory for contributions to be compared with later ones.
	mostPrints = 1 << 21
)

// design is what follows from a Config.
type design struct {
	*Config
	spec     *rounds.Spec // of the test jobs
	start    []byte       // state 0
	jobs     int
	canaries int // of a job
	views    int // what is looked at in a round: the release, or each contribution
	target   []float64
	sigma    []float64 // of a view in each round; target is a canary's size. Lattice units
	mu       float64   // claimed, under the adjacency
}

// check returns the first mistake in what needs no specification, as a *FieldError.
func (c *Config) check() error {
	switch {
	case c.Cluster != nil && len(c.Cluster.Jobs) > 0:
	case c.Trials < 1 || c.Trials > mostTrials:
		return fieldError("trials", "%d is not from 1 to %d", c.Trials, mostTrials)
	}
	switch {
	case !(c.Confidence >= 0.5 && c.Confidence < 1):
		return fieldError("confidence", "%v is not from 0.5 to 1", c.Confidence)
	case !(c.FalseAlarm > 0 && c.FalseAlarm < 0.5):
		return fieldError("false-alarm", "%v is not between 0 and 0.5", c.FalseAlarm)
	}
	return nil
}

// design plans test jobs that have the noise of Spec.
func (c *Config) design() (*design, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	size := c.Spec.NMin
	if c.Spec.Trust == rounds.TrustLocal {
		// No larger than the rounds that the lattice was made for.
		if size = min(localSize, c.Spec.RoundSize); c.Cluster != nil {
			size = min(localSizeThere, c.Spec.RoundSize)
		}
	}
	canaries := min(size, mostCanaries)
	spec, err := jobs.CanaryLike(c.Spec, canaries+silent, size)
	if err != nil {
		return nil, fieldError("spec", "%v", err)
	}
	d, err := c.designOf(spec, canaries)
	if err != nil {
		return nil, err
	}
	d.jobs = (c.Trials + canaries - 1) / canaries
	return d, nil
}

// designOf plans test jobs of a specification, with so many canaries each.
func (c *Config) designOf(spec *rounds.Spec, canaries int) (*design, error) {
	switch {
	case c.Seed != nil && spec.Trust == rounds.TrustCentral:
		return nil, fieldError("seed", "with central trust the servers draw the noise, and no seed reaches them")
	case len(spec.Releases) > MostRounds:
		return nil, fieldError("spec", "%d rounds, of which at most %d can be measured", len(spec.Releases), MostRounds)
	}
	d := &design{Config: c, spec: spec, canaries: canaries, views: 1}
	noises := spec.NMin // whose noise is in a view
	if spec.Trust == rounds.TrustLocal {
		noises, d.views = 1, canaries
	}
	var err error
	if d.start, err = jobs.Start(spec); err != nil {
		return nil, err
	}
	var charged accounting.NanoRho
	for _, r := range spec.Releases {
		// What dp.Lattice.Encode leaves of a contribution beyond the bound.
		d.target = append(d.target, float64(r.Bound)-math.Sqrt(float64(r.Length)))
		sigma := r.Sigma.Float64() * math.Sqrt(float64(noises))
		if sigma < leastNoise {
			return nil, fieldError("spec", "noise of %.3g lattice units is too coarse to be measured; at least %d", sigma, leastNoise)
		}
		d.sigma = append(d.sigma, sigma)
		if charged, err = charged.Add(r.Charge); err != nil {
			return nil, fieldError("spec", "%v", err)
		}
	}
	d.mu = math.Sqrt(2 * charged.Rho())
	if d.wiring.claim != nil {
		d.wiring.claim(d)
	}
	return d, nil
}

// steps is how many neighbours apart a canary's two worlds are.
func (d *design) steps() int { return int(2 / d.spec.Adjacency.SensitivityFactor()) }

// perStep is a neighbour's part of the mu between a canary's two worlds.
func (d *design) perStep(mu float64) float64 { return mu / float64(d.steps()) }

// epsilon is what mu, between a canary's two worlds, says of the job.
func (d *design) epsilon(mu float64) float64 {
	return accounting.GaussianEpsilon(d.perStep(mu), d.spec.Delta)
}

// program is what makes the contributions.
func (d *design) program() string {
	if d.Program == "" {
		return "this program"
	}
	return d.Program
}

// loud reports whether a canary, counted over all jobs, comes in at several times C.
func (d *design) loud(job, canary int) bool { return (job*d.canaries+canary)%loudEvery == loudEvery-1 }

// alternate is the factor of a canary's sign in a round, counted from 0.
func alternate(round int) float64 {
	if round%2 == 1 {
		return -1
	}
	return 1
}
