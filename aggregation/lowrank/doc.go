// Package lowrank is the server's half of AMHT-LRS: how the shared component
// U, d x r, follows from noised sums of what the clients send. Clients compute
// their half in package client/local, from the same State, Layout and Model.
//
// A schedule (Config.Phases) is a list of releases: statistics of the features
// where they are not known, an initialisation, and updates. Each release is
// one vector a user, of bounded norm (Config.Layout), noised and summed; State
// is all that has been released, and State.Advance the only way on. So
// everything here is post-processing of private sums: nothing in this package
// sees one user's data, and no parameter follows from private data but through
// a release that was charged.
//
// DESIGN.md argues the choices.
//
// Sources: Pal et al., "Sample-Efficient Personalization: Modeling User
// Parameters as Low Rank Plus Sparse Components" (arXiv 2210.03505), for the
// model, the alternation and the least-squares update; Snedeker, Zhou, Bassily
// (Private FedRep, ICML 2025) for the gradient update with QR retraction.
package lowrank
