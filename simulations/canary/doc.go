// Package canary measures, from outside, that the noise which a specification
// claims is really there.
//
// Canaries are contributions that the auditor knows: a direction of norm exactly C,
// with a secret sign. They go the way of every contribution - a device's clipping,
// rounding and noise (client/local), a server's checks and sums (server/ingest), the
// rounds, the release - in test jobs that have the noise, bounds, lattice, n_min and
// trust mode of the job in question. The released states are all that the attacks
// see (with local trust, what one device sent). How often they guess the signs
// right bounds epsilon from below.
//
// # Where
//
// Test jobs run in this process, or on a Cluster. There this program plays all their
// clients, and each sends over gRPC with a certificate of its own, once the ledger has
// the attempt's reservation; the releases are what the cluster's servers publish. With
// central trust the noise is theirs, and it is their noise that is measured. Else it is
// what this program's devices add, as others' do of the same version, and what the
// servers do is held to a simpler standard: every release must be the sum of what was
// sent, to the last unit. A round that somebody else took part in measures nothing
// (ErrStrangers); an attempt that failed is played again, with new noise.
//
// # The game
//
// A test job has as many rounds as the job, each of exactly n_min contributions, the
// fewest that are released: more only add noise that is not claimed. Canary j owns
// coordinate j. Its sign s is a fair coin; in round l it sends s (-1)^l C_l times
// its direction. The attack, fixed in advance, guesses the sign of
//
//	T = sum_l (-1)^l (C_l / sigma_l^2) y_l,
//
// y_l being coordinate j of the sum that round l released: the likelihood ratio,
// with threshold 0. Every canary is a trial. That signs alternate costs the attack
// nothing, and what noise two rounds share cancels.
//
// # The bound
//
// Suppose that the claim holds: the job is mu-GDP. The two worlds of a canary are
// 2C apart. Under zero-out adjacency that is two steps, from C to zero to -C, so they
// are 2mu-GDP (Dong, Roth, Su 2022, Theorem 2.14); under replace-one it is a step, and
// they are mu-GDP. A guess is then right with probability at most Phi(mu), or
// Phi(mu/2), and the share of right guesses bounds mu: see accounting.Guesses. As T is
// the likelihood ratio of Gaussian noise, the bound loses nothing but what chance
// costs: 1.96 of a true epsilon of 2 at 100,000 trials.
//
// Many trials share a round, as in Steinke, Nasr, Jagielski 2023 ("Privacy Auditing
// with One (1) Training Run") and Andrew et al. 2023 ("One-shot Empirical Privacy
// Estimation for Federated Learning"). They are independent if the claim is true: the
// mechanism that is claimed adds independent noise to every coordinate, a canary's
// world moves its own coordinate alone, and the coins are independent. So the number
// of right guesses is binomial at worst, and the bound exceeds a true claim with
// probability at most 1 - Confidence.
//
// If the claim is false, the noise need not be Gaussian, nor the trials independent.
// Then a bound above the claim still shows that it is false: that is what the verdict
// says, and the epsilon in it is that of the Gaussian noise which the claim could at best
// be about. What is true of any mechanism is Result.LowerBoundAny, at the same
// confidence: see accounting.Guesses.Epsilon. It is much lower, as an attack of one
// threshold on Gaussian noise is wrong far more often than (epsilon, delta) allows.
//
// # Tests
//
// Beside the attacks, which only see too little noise, stand tests of what the
// claimed noise looks like, each with a p-value under the claim that is exact but for
// the lattice (see leastNoise), or a bound on it. All of the noise together: its deviation
// in every round, whether that of another round or coordinate correlates with it, or with
// its size, whether it lies on a coarser lattice than it should. Its distribution in every
// round is held to a Gaussian's, by Kolmogorov and Smirnov's distance and by how many
// values lie beyond 3 and 4 deviations: an epsilon at a small delta follows from tails, and
// noise of the right variance may have none. And whether canaries arrive whole, those at C
// and loud ones, which are to be clipped to it.
//
// What fails for one of many is lost where all are pooled, so each is looked at by itself,
// and the worst held to Bonferroni's rate: every coordinate's noise in every round (its
// deviation and mean), every release's deviation, and how large every client's canaries
// arrive: twice as large if they count twice.
//
// With central trust what servers add is known to the last unit, as what is released less
// what was sent. No eight coordinates of it may be zero, or those of another release.
// With the other modes that is asked of the silent coordinates of every contribution, and
// devices' noise is tested one by one, as sums of many shares look Gaussian whatever these
// are: of every device the deviation where it contributes, elsewhere, and in every
// coordinate, and the excess of its canaries; every contribution's deviation; the
// distribution in the silent coordinates, and where something is contributed. What lies
// along no coordinate is encoded beside the game, and held to norm C.
//
// The audit fails if any p-value is below FalseAlarm over the number of tests and
// attacks (Bonferroni): an honest service fails with probability at most FalseAlarm.
// The bound has a rate of its own, as an alarm wants to be rarer than a confidence
// interval wants to be wide. It is the higher of the attacks' bounds, each of which
// holds at 1 - (1 - Confidence) / 2.
//
// # What it does not show
//
// That devices run this code: what they add is measured in this program. That servers do
// the same in other jobs: they can know a test job by its method. Nor anything of a
// coordinate after those of a test job, which takes its length for the job's: n_min and 8,
// at most 1032, or at most 2048 in jobs that Cluster.Jobs names.
//
// That contributions are clipped in every direction: canaries lie along single
// coordinates, and a clip of each coordinate by itself would pass. What is encoded beside
// the game shows that this program's devices have none, in one direction more; whether a
// server with central trust refuses a norm above C is not tested.
//
// What fails for one of many and is too small for its own samples, of which there is one in
// every round of a test job. At epsilon 2 and two rounds, a client that counts twice takes
// some 200 test jobs: 20,000 trials at n_min 100, 200,000 at 1,000. With central trust one
// share of noise missing of a hundred is half a percent of it, and not found at 100,000
// trials. Devices' noise that
// repeats in other coordinates than the silent ones, and anything of shares of less than
// 256 lattice units, or their shape below 65,536. More than 1,048,576 pairs of a device and
// a coordinate are not looked at pair by pair.
//
// Dependence of another kind than between two rounds or coordinates, in value or size; how
// the noise is distributed where no trial came, beyond about 5 deviations. And that no seed
// leaks: noise that somebody can predict looks like any other. An audit with Config.Seed is
// itself such a case: its noise is not secret, and who makes the record could have tried
// seeds. Result.How says so.
//
// An audit of few trials that finds nothing has shown little. The verdict says that the
// noise is there only if the lower bound is at least half of the claim.
package canary
