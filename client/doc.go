// Package client is the device's half of undertone, for an app to embed: it
// keeps its user's samples, takes part in the rounds of the jobs that servers
// run, and predicts from a model of its own.
//
// Open a directory with a Config, Sync now and then (or Run), Predict at any
// time. Samples, the personal model and every noise seed stay on the device.
// What leaves it is, once an attempt at a round, a contribution that was
// clipped, rounded and noised (package local), over TLS to a server whose
// certificate was checked.
//
// # Promise
//
// Through a kill or a power failure at any moment, and whatever servers answer:
//
//   - Of one attempt at most one noised vector is ever sent. It is on disk
//     before the first byte is, every retry sends the same bytes, and it goes
//     once the server has acknowledged it, or the attempt is over.
//   - Nothing is disclosed that is not in the device's own record, on disk
//     before any noise is drawn. What the record sums up to stays within the
//     device's own Cap, over all jobs and failed attempts together, and for each
//     job within the budget in its specification, however many attempts servers
//     open.
//   - It trains on what was released, and on nothing else: a specification's
//     claims are recomputed (jobs.Check), a model's bytes have the digest that
//     was announced, no version is ever followed by a lower one, and what was
//     seen once of a job never changes, or the device takes no further part in
//     it (ErrTwoHistories).
//   - It contributes to an attempt only once the servers' ledger (package ledger) has
//     it: reserved and charged as its specification says, for the model that it
//     computes from. It follows one ledger under one line of keys, remembers the last
//     checkpoint before it sends anything under it, and what it remembers every later
//     one must extend: otherwise it keeps the two as evidence, and sends nothing more
//     before it was shown one ledger that extends both.
//   - Predict uses a personal model with the released model that it was fitted
//     to, never with another.
//   - Whether a device has samples, and whether they are usable, shows in
//     nothing that it sends: it contributes zeros then, rounded and noised like
//     any contribution.
//
// # Whom it trusts
//
// A job's charge is the price of what its servers release; what a single server
// sees of a device on the way there depends on the job's trust mode:
//
//   - rounds.TrustLocal: all the noise that is charged is in every contribution.
//     Nobody is trusted.
//   - rounds.TrustDistributed: a contribution carries one of n_min shares of it.
//     The charge holds against those who see the sum, as long as at least n_min
//     contributions in it carry their honest share. A device can verify neither
//     n_min nor who else took part: n_min is the servers' promise. Servers see the
//     single vector, weakly noised: against them its guarantee is that of one
//     share, n_min times the charge.
//   - rounds.TrustCentral: a contribution carries no noise, the server that
//     receives it adds it. A device takes part only if Config.Trust says so.
//
// Status shows, job by job, the mode and the n_min that were relied on.
//
// # What a ledger shows it
//
// Take a contribution that a device sent, and the checkpoint that it had seen. The
// attempt's charge is under that checkpoint, and so are all charges before it: whoever
// verifies a log with that root counts them. The log cannot lose any: a checkpoint
// that the device accepts later extends this one, by a proof that fails for any other
// log unless SHA-256 collides. So what was spent on this device is in every history
// that it will ever accept, and a model's announcement with it: the State of an attempt
// is the digest of the release before it.
//
// A proof that fails may be a server's mistake, or one of two histories. So nothing is
// sent, and every later Sync asks for one checkpoint with a proof for each of the two.
// Whoever has that has nothing to fear: the two are the roots of the first records of one
// log, so the shorter is the beginning of the longer, and they might have been shown in
// order. Two that are of different logs have no such third without a collision; so no
// waiting, no restart and no going back to the first history clears a fork. Two of one
// size with different roots are proof of it, and nobody is asked any more (ForkError).
//
// A ledger of another origin is another ledger, and never taken for the one that is
// followed, nor for the first that is seen. Who follows it from now on decides so by
// Config.LedgerKey: then what the former ledger showed binds the new one no more, and the
// device's own record all the same: its charges count for the cap and against what the new
// ledger says to be spent, and no job's model or specification may be another.
//
// What a single device cannot see:
//
//   - Whether all are shown the same log. Two logs that are each shown to half of
//     the devices satisfy both halves. They cannot be joined again, as neither
//     extends the other; and they are found by the first two who compare: Compare,
//     and undertone-agent's checkpoint and compare, are for that, and an auditor
//     verifies a bundle against a device's note.
//   - What the other records say: it does not download them. Sums, charges of other
//     jobs and releases are for ledger.Verify. Of its own job it checks that no less
//     is spent than it was charged itself, and no more than the budget.
//   - That a smaller log is false: it may come from a server that lags behind. It is
//     not relied on, and asked for again (ErrBackwards).
//   - The first key, if none is pinned: Config.LedgerKey.
//
// TAMPERING.md lists what servers can try, and what the device says. A check of a ledger
// of 100,000 records takes less than 2 KB of an answer (BenchmarkCheck).
//
// # Policy
//
// A directory belongs to one identity and, while it is open, to one Device.
// It may not be copied or put back from a backup: a device that forgets what it
// disclosed would disclose it again. FORMAT.md describes its files; what an
// earlier version of this package wrote, a later one reads. Files that are damaged
// are named in an error, and never guessed at.
//
// Errors are values of the block in errors.go, types among them; what goes wrong
// in one job is in the Summary and does not keep the others waiting. The logger
// gets job names, rounds and errors; never samples, contributions or models.
//
// It needs neither the server's packages nor a compiler for C; it builds for
// linux, darwin, windows, android and, as local, for js/wasm.
package client
