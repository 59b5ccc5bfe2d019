// Package rounds is the life of jobs, rounds and attempts as a pure state
// machine: what may happen, in which order, and what it costs.
//
//	job:      created -> running <-> paused -> finished, or closed
//	attempt:  collecting -> closed -> released
//	               \___________\______> failed
//
// Machine.Apply is its one way on. A command either changes the state as it
// says, or is refused with a *Refusal and changes nothing; which of the two,
// and every bit of the state after it, follow from the state and the command
// alone. There is no clock, no randomness, no file, no float arithmetic: a
// deadline is a command that somebody sends, and a release is bytes that
// somebody computed. So every replica that applies the same commands holds the
// same state, and a script is enough of a test (testdata).
//
// # What it promises
//
//   - A round is released at most once, and rounds in order: released state v
//     is the sum of round v applied to state v-1, and never changes.
//   - An attempt is charged when it opens, before anybody is asked for data,
//     and is refused if the job's budget has no room. Nothing is refunded: an
//     attempt that fails stays spent.
//   - A client is in the sum of an attempt at most once. Its membership is the
//     idempotency key: whatever is retried, re-routed or replayed, a Collect
//     that names a member again is refused as a whole and says whom it named.
//   - Fewer than NMin members: the attempt fails, and nothing is released.
//   - With a ledger, each of these is on record in it once, in the same command: state
//     and ledger cannot part, and Restore takes no snapshot in which they have.
//
// Sums are modulo 2^Lattice.ModulusBits, so no client can make one overflow,
// and a mask that vanishes in the sum may be added by the clients later.
//
// # Retries
//
// Every command may be proposed again by somebody who does not know what became
// of it. It does no harm, and the answer says what had happened:
//
//	CreateJob, CloseJob    no error
//	Run                    no error, or NotRunning once the job is closed
//	Stage                  no error while its attempt lasts
//	OpenRound              AlreadyOpen, or AlreadyReleased, or NotOpen if it failed
//	Collect                Counted, naming all members, or NotOpen if the attempt failed
//	CloseRound             NotOpen, or AlreadyReleased
//	ReleaseRound           AlreadyReleased
//	FailRound              NotOpen
//	BeginLedger            no error
//	RotateKey              no error, until there is a later key
//	RecordCanary           no error, until there is a later measurement
package rounds
