// Package accounting says what a sequence of releases costs in privacy.
//
// An [Event] describes the releases; an accountant prices them:
//
//   - [ZCDP], with [Filter], enforces a budget: unsigned integers, additive,
//     valid whatever is chosen in view of earlier releases. A ledger holds these.
//   - [GDP] reports: it is exact for Gaussian releases, and the epsilon to show.
//     [NanoRho.GaussianEpsilon] reads it off a zCDP ledger.
//   - [RDP] also takes secret Poisson sampling. It is quick; its epsilon is some
//     ten percent above the truth, and several times it at small sampling rates.
//   - [NewPLD] takes all of them and is tight; it cross-checks the others, and
//     is the one to report where there is sampling.
//
// [Guesses] goes the other way: from attacks that were tried to a lower bound on what
// a mechanism costs.
//
// Adjacency is zero-out: one user's contribution, in all rounds, is replaced by
// zero, and the size of the cohort is public. Under any other adjacency the
// sensitivity changes by a factor, see [Scale]; replace-one doubles it.
//
// The policy is: when in doubt, charge. Costs round up and budgets down, a
// distribution is discretised and cut off so that it looks less private, an
// event without a sound bound is refused with a typed error, and no answer is
// ever NaN.
package accounting
