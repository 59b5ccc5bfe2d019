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
	// are charged.
	Spec   *rounds.Spec
	Trials int // at least this many: test jobs are whole
	// Confidence of the bound, and FalseAlarm of the verdict.
	Confidence, FalseAlarm float64
	// Seed makes an audit repeatable; nil: all coins and noise are secret. With
	// TrustCentral the servers draw the noise, and there is none.
	Seed *uint64
	// Progress is told of the trials done, from one goroutine.
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
	// silent coordinates carry nothing but noise, in a test job and in each of its
	// contributions.
	silent = 8
	// localSize is the number of contributions to a round with TrustLocal, where
	// each is looked at by itself.
	localSize = 8
	// loudness is the norm of a loud canary over C: enough to shout where nothing
	// clips, and so little that the servers' check of single coordinates lets it
	// pass where shares of the noise are large. One canary in loudEvery is loud.
	loudness  = 4
	loudEvery = 8
	// leastNoise of what is looked at, in lattice units: discrete Gaussians are then
	// so close to continuous ones, and rounding adds so little, that the tests'
	// p-values are right to far below their own size.
	leastNoise = 1024
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
	raw      []byte
	start    []byte // state 0
	jobs     int
	canaries int // of a job
	views    int // what is looked at in a round: the release, or each contribution
	target   []float64
	sigma    []float64 // of a view in each round; target is a canary's size. Lattice units
	mu       float64   // claimed, under the adjacency
}

func (c *Config) design() (*design, error) {
	switch {
	case c.Trials < 1 || c.Trials > mostTrials:
		return nil, fieldError("trials", "%d is not from 1 to %d", c.Trials, mostTrials)
	case !(c.Confidence >= 0.5 && c.Confidence < 1):
		return nil, fieldError("confidence", "%v is not from 0.5 to 1", c.Confidence)
	case !(c.FalseAlarm > 0 && c.FalseAlarm < 0.5):
		return nil, fieldError("false-alarm", "%v is not between 0 and 0.5", c.FalseAlarm)
	case c.Seed != nil && c.Spec.Trust == rounds.TrustCentral:
		return nil, fieldError("seed", "with central trust the servers draw the noise, and no seed reaches them")
	case len(c.Spec.Releases) > MostRounds:
		return nil, fieldError("spec", "%d rounds, of which at most %d can be measured", len(c.Spec.Releases), MostRounds)
	}
	d := &design{Config: c, views: 1}
	size, noises := c.Spec.NMin, c.Spec.NMin // contributions, and whose noise is in a view
	if c.Spec.Trust == rounds.TrustLocal {
		size, noises, d.views = localSize, 1, localSize
	}
	d.canaries = min(size, mostCanaries)
	var err error
	if d.spec, err = jobs.CanaryLike(c.Spec, d.canaries+silent, size); err != nil {
		return nil, fieldError("spec", "%v", err)
	}
	d.raw = jobs.Encode(d.spec)
	if d.start, err = jobs.Start(d.spec); err != nil {
		return nil, err
	}
	d.jobs = (c.Trials + d.canaries - 1) / d.canaries
	var charged accounting.NanoRho
	for _, r := range d.spec.Releases {
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
	return d, nil
}

// steps is how many neighbours apart a canary's two worlds are.
func (d *design) steps() float64 { return 2 / d.spec.Adjacency.SensitivityFactor() }

// epsilon is what mu, between a canary's two worlds, says of the job.
func (d *design) epsilon(mu float64) float64 {
	return accounting.GaussianEpsilon(mu/d.steps(), d.spec.Delta)
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
