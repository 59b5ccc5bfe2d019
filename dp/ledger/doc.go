// Package ledger is a tamper-evident record of everything that concerns a privacy
// budget: an append-only Merkle log (RFC 6962, by golang.org/x/mod/sumdb/tlog) of
// jobs, charges, releases and failures, under checkpoints that the cluster signs.
//
// A cluster appends an Entry in the same step as the event it records, so log and
// state cannot part; whoever has the log's public key can
//
//   - Verify a Bundle, offline: every hash, signature, charge and order of events;
//   - Follow one checkpoint with the next, and see that nothing between them was
//     taken back, for a few hundred bytes;
//   - check that one entry is in the log (Checkpoint.Includes).
//
// # Promise
//
// Two different histories cannot both be shown to those who compare checkpoints:
// that would take two checkpoints of which neither extends the other, both signed,
// and the two together are the proof. What Verify accepts is a history in which
// every release was charged before it was collected, by at least what its noise
// costs, and no budget was exceeded at any prefix.
//
// # Policy
//
// The package knows neither jobs nor rounds as code: it reads the public documents
// (the entries here, and specifications as their format page describes them) and
// computes for itself. That is what makes it a second opinion. There is no clock, no
// network, and no float in what a cluster appends. FORMAT.md describes the bytes,
// which never change for entries that exist.
package ledger
