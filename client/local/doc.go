// Package local is what runs on a user's device: it fits the user's own part
// of the model to the user's own samples, and computes the one thing that is
// sent.
//
// A user's responses follow y = x^T (mean + U w + b) + noise. The shared mean
// and U come from the server (lowrank.Model, released with differential
// privacy); w (r coordinates) and b (at most k non-zeros) are computed here
// and stay here. Solver does that, Personal is what it leaves on the device,
// Predict uses it, Contributor computes what goes into the next U, and Mechanism
// makes that private.
//
// # Promise
//
// Samples, w and b leave the device only inside a contribution, whose norm is
// bounded whatever the samples are (see Contributor.Contribute), and which
// Mechanism rounds and noises before it is sent. Nothing here logs, stores or
// sends by itself.
//
// # Policy
//
// Samples come from an app and models from a network, so nothing that they
// can hold panics: what does not fit together is ErrSamples or ErrModel, a
// NaN, an infinity or a number too large to be squared is ErrNotFinite, and a
// result that is returned without an error holds numbers only. Few samples,
// dependent columns or an empty U are no errors: what the samples cannot tell
// is zero.
//
// A Solver or Contributor serves one goroutine, and its results do not depend
// on what it did before. It keeps its storage, so that a fit does not
// allocate; it writes to nothing that it is given but dst.
//
// Sources: Pal et al., "Sample-Efficient Personalization: Modeling User
// Parameters as Low Rank Plus Sparse Components" (arXiv 2210.03505), for the
// model and the hard-threshold schedule; Chen, Billings, Luo, "Orthogonal
// least squares methods and their application to non-linear system
// identification" (1989) for the pursuit.
package local
