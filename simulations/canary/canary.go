package canary

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"gonum.org/v1/gonum/stat/distuv"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/noise"
)

// Run performs an audit. A service that does not do what it claims is a Result that
// has not passed, and no error. Fails with a *FieldError, before anything is done; on a
// cluster with a *JobError, ErrStrangers, ErrLedger or ErrUnavailable; or with what ctx
// was cancelled with.
func Run(ctx context.Context, c Config) (*Result, error) {
	r, err := run(ctx, &c)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return r, err
}

func run(ctx context.Context, c *Config) (*Result, error) {
	if c.Cluster != nil {
		return c.onCluster(ctx)
	}
	d, err := c.design()
	if err != nil {
		return nil, err
	}
	return d.measure(ctx, process{d})
}

func (d *design) measure(ctx context.Context, v venue) (*Result, error) {
	t, err := d.perform(ctx, v)
	if err != nil {
		return nil, err
	}
	r := t.result()
	r.How = v.how()
	if d.Seed != nil {
		r.How += fmt.Sprintf(", noise from seed %d, so not secret", *d.Seed)
	}
	return r, nil
}

// perform runs the test jobs, side by side, and adds them up in their order: so a
// seed repeats an audit to the last bit.
func (d *design) perform(ctx context.Context, v venue) (*tally, error) {
	var mechanisms []*local.Mechanism
	for l := range d.spec.Releases {
		m, err := local.DeviceMechanism(d.spec, l+1, noise.NewSecret())
		if err != nil {
			return nil, err
		}
		mechanisms = append(mechanisms, m)
	}
	t := newTally(d)
	batch := make([]*observed, 4*v.atOnce())
	var telling sync.Mutex
	played := 0
	for first := 0; first < d.jobs && !t.refused; first += len(batch) {
		batch = batch[:min(len(batch), d.jobs-first)]
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(v.atOnce())
		for i := range batch {
			group.Go(func() (err error) {
				if err = ctx.Err(); err == nil {
					batch[i], err = d.run(ctx, v, first+i, mechanisms)
				}
				if errors.Is(err, errRefused) {
					batch[i], err = nil, nil
				}
				if d.Progress != nil && err == nil {
					telling.Lock()
					defer telling.Unlock()
					played++
					d.Progress(played*d.canaries, d.jobs*d.canaries)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return nil, err
		}
		for _, o := range batch {
			if t.refused = o == nil; t.refused {
				break
			}
			t.add(o)
		}
	}
	return t, nil
}

// powerful is the share of the claim that the lower bound must reach before an audit that
// found nothing says that the noise is there. A bound that low has played too few trials to
// tell the noise from less, or a claim that so many cannot measure.
const powerful = 0.5

// result judges.
func (t *tally) result() *Result {
	d := t.d
	r := &Result{
		Version: Version, Date: time.Now().UTC().Truncate(time.Second), Job: d.Spec.Job,
		Trust: string(d.Spec.Trust), Adjacency: d.Spec.Adjacency.String(), NMin: d.Spec.NMin, Rounds: len(d.Spec.Releases),
		ClaimedEpsilon: accounting.GaussianEpsilon(d.mu, d.Spec.Delta), Delta: d.Spec.Delta,
		Confidence: d.Confidence, FalseAlarm: d.FalseAlarm,
		Trials: t.exact.Trials + t.loud.Trials, TestJobs: t.jobs, Seed: d.Seed,
	}
	r.Attacks = t.attacks()
	r.Tests = t.tests()
	limit := d.FalseAlarm / float64(len(r.Attacks)+len(r.Tests))
	var wrong []string // with what it means, the most telling first
	for i := range r.Tests {
		c := &r.Tests[i]
		if c.Passed = c.PValue >= limit; c.Passed {
			c.Meaning = ""
		} else {
			wrong = append(wrong, c.Name+": "+c.Meaning)
		}
	}
	var refuted *Attack
	for i := range r.Attacks {
		a := &r.Attacks[i]
		if i == 0 || a.Lower > r.LowerBound {
			r.LowerBound, r.UpperBound = a.Lower, a.Upper
		}
		r.LowerBoundAny = max(r.LowerBoundAny, a.LowerAny)
		if a.Passed = a.PValue >= limit; a.Passed {
			a.Meaning = ""
		} else {
			if refuted == nil || a.Lower > refuted.Lower {
				refuted = a
			}
			wrong = append(wrong, a.Name+": "+a.Meaning)
		}
	}
	r.Passed = len(wrong) == 0
	switch {
	case r.Passed && r.LowerBound >= powerful*r.ClaimedEpsilon:
		r.Verdict = fmt.Sprintf("nothing contradicts the claim: the noise of epsilon %.4g is there", r.ClaimedEpsilon)
	case r.Passed:
		few := fmt.Sprintf("%d trials are", r.Trials)
		if r.Trials == 1 {
			few = "one trial is"
		}
		r.Verdict = "nothing contradicts the claim, but " + few + " too few to say that the noise is there"
	case refuted != nil:
		r.Verdict = fmt.Sprintf("not mu-GDP for any mu below %.3g, which at delta %g would be epsilon %.3g, and %.4g is claimed: %s",
			refuted.LowerMu, r.Delta, refuted.Lower, r.ClaimedEpsilon, wrong[0])
	default:
		r.Verdict = "the noise is not what is claimed: " + wrong[0]
	}
	if n := len(wrong) - 1; n > 0 {
		r.Verdict += fmt.Sprintf(" (and %d more)", n)
	}
	return r
}

// attacks are the two guessing games. What none has played contradicts nothing.
func (t *tally) attacks() []Attack {
	d := t.d
	var out []Attack
	names := kinds()
	for _, a := range []struct {
		name    string
		guesses accounting.Guesses
		meaning string
	}{
		{names[0], t.exact, "contributions can be told from the releases better than epsilon allows: there is less noise than is claimed, or the same twice"},
		{names[1], t.loud, "contributions above the bound can be told from the releases better than epsilon allows: they are not clipped, or there is less noise than is claimed"},
	} {
		of := Attack{Name: a.name, Trials: a.guesses.Trials, Correct: a.guesses.Correct, PValue: 1, Meaning: a.meaning}
		if a.guesses.Trials > 0 {
			low, high := a.guesses.Mu((1 - d.Confidence) / 2)
			of.Lower, of.Upper, of.LowerMu = d.epsilon(low), d.epsilon(high), d.perStep(low)
			of.LowerAny = a.guesses.Epsilon(d.spec.Delta, (1-d.Confidence)/2, d.steps())
			if math.IsInf(of.Upper, 1) {
				of.Upper = 0
			}
			if of.Estimate = d.epsilon(a.guesses.Estimate()); math.IsInf(of.Estimate, 1) {
				of.Estimate = 0
			}
			of.PValue = a.guesses.PValue(d.mu * float64(d.steps()))
		}
		out = append(out, of)
	}
	return out
}

// kinds are the two of canaries.
func kinds() [2]string {
	return [2]string{"canaries of norm C", fmt.Sprintf("canaries of norm %d C", loudness)}
}

// tests are of what the noise looks like, those first that say most where they fail.
func (t *tally) tests() []Test {
	refused := Test{Name: "contributions refused as out of range", PValue: 1, Meaning: "devices do not clip what they send"}
	if t.refused {
		refused.Measured, refused.PValue = 1, 0
		return []Test{refused}
	}
	out := []Test{refused}
	if t.d.spec.Trust != rounds.TrustCentral { // there contributions come without noise
		out = append(out, t.additions())
	}
	out = append(out, t.bareness(), t.repetition())
	if n := t.d.spec.NMin; t.sums > 0 && n > 1 {
		out = append(out, t.residues(n))
	}
	out = append(out,
		correlation("correlation between rounds", "round", t.rounds),
		correlation("correlation between coordinates", "coordinate", t.coordinates))
	for i, of := range kinds() {
		if e := t.kind[i]; e.n > 0 {
			out = append(out, amplitude("excess of "+of+", in standard errors", []float64{e.sum}, e.n, func(int) string { return "contributions arrive" }))
		}
	}
	out = append(out, amplitude("excess of the worst canary, in standard errors", t.canaries, float64(t.jobs*len(t.d.sigma)),
		func(i int) string { return fmt.Sprintf("the contributions of client %d arrive", i+1) }))
	for l := range t.d.sigma {
		out = append(out, t.deviation(l))
	}
	out = append(out, t.field.tests(slices.Min(t.d.sigma), t.d.spec.Trust != rounds.TrustLocal)...)
	out = append(out,
		correlation("correlation of sizes between rounds", "round", t.sizes[0]),
		correlation("correlation of sizes between coordinates", "coordinate", t.sizes[1]))
	for l := range t.shapes {
		out = append(out, t.shapes[l].tests(fmt.Sprintf("the noise of round %d", l+1))...)
	}
	if t.devices != nil {
		out = append(out, t.devices.tests(t.d.leastShare())...)
	}
	return out
}

// additions holds that what is released is the sum of what was sent, to the last unit:
// where devices add the noise, servers only add up.
func (t *tally) additions() Test {
	out := Test{Name: "releases that are not the sum of what was sent", Measured: float64(t.wrong), PValue: 1,
		Meaning: "servers leave out contributions, or release something else"}
	if t.wrong > 0 {
		out.PValue = 0
	}
	return out
}

// bareness is of contributions, or releases, that have no noise where they carry nothing
// else.
func (t *tally) bareness() Test {
	if t.d.spec.Trust == rounds.TrustCentral {
		return t.printedTest("releases without noise", t.bare, "servers leave the noise out of a release, or of some of its coordinates")
	}
	return t.printedTest("contributions without noise", t.bare, "devices do not add their share of the noise")
}

func (t *tally) repetition() Test {
	if t.d.spec.Trust == rounds.TrustCentral {
		return t.printedTest("releases with the noise of another", t.repeated, "servers use noise again, or draw it from few seeds")
	}
	return t.printedTest("contributions with the noise of another", t.repeated, "devices, or one device in several rounds, draw from the same seed")
}

// printedTest is of a number that the claim makes 0, but for what collision bounds. Where the
// lattice is so coarse that this is no small probability, nothing is tested.
func (t *tally) printedTest(name string, found int, meaning string) Test {
	out := Test{Name: name, Measured: float64(found), PValue: 1, Meaning: meaning}
	switch chance := t.collision(); {
	case chance > t.d.FalseAlarm/1e4:
		out.Name += " (not tested: too coarse a lattice)"
	case found > 0:
		out.PValue = chance
	}
	return out
}

func correlation(name, of string, p *dependence) Test {
	r, i, j, pvalue := p.strongest()
	out := Test{Name: name, Measured: r, PValue: pvalue,
		Meaning: fmt.Sprintf("%ss %d and %d share noise", of, i+1, j+1)}
	if i == j {
		out.Meaning = fmt.Sprintf("%s %d has no noise: it is the same every time", of, i+1)
	}
	return out
}

// deviation holds the noise of a round to its sigma: the sum of m squares is
// chi-square of m degrees of freedom.
func (t *tally) deviation(round int) Test {
	m := t.values[round]
	chi := distuv.ChiSquared{K: m}
	out := Test{
		Name:     fmt.Sprintf("noise of round %d over what is claimed", round+1),
		Measured: math.Sqrt(t.squares[round] / m), Expected: 1,
	}
	alpha := 1 - t.d.Confidence
	out.Low = math.Sqrt(t.squares[round] / chi.Quantile(1-alpha/2))
	out.High = math.Sqrt(t.squares[round] / chi.Quantile(alpha/2))
	less, more := chi.CDF(t.squares[round]), chi.Survival(t.squares[round])
	out.PValue = min(1, 2*min(less, more))
	out.Meaning = "there is less noise than is charged"
	if more < less {
		out.Meaning = "there is more noise than is charged, so it is not made as is claimed"
	}
	return out
}

// residues holds that sums of n shares lie on the lattice of one: a sum of n equal
// ones is a multiple of n.
func (t *tally) residues(n int) Test {
	m := float64(t.sums)
	share := float64(t.whole) / m
	b := distuv.Binomial{N: m, P: 1 / float64(n)}
	p := 1.0
	if t.whole > 0 {
		p = b.Survival(float64(t.whole) - 1)
	}
	return Test{Name: fmt.Sprintf("silent sums that %d divides", n), Measured: share, Expected: 1 / float64(n), PValue: p,
		Meaning: "the shares of noise are equal: devices draw from one seed"}
}
