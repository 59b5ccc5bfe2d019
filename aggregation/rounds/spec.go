package rounds

import (
	"crypto/sha256"
	"encoding/json"

	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/noise"
)

// Spec is everything public about a job. It is fixed before the first round,
// and clients, servers and auditors each recompute what it claims. It is written
// once, as JSON (FORMAT.md), and from then on the bytes are what counts: they
// are what is replicated, sent and hashed.
type Spec struct {
	// Job is the job's name: lower-case letters, digits and dashes, 1 to 63 of
	// them, beginning with a letter.
	Job string `json:"job"`
	// Method names the code that interprets Parameters and the released states:
	// a client's step, and the rule from a sum to the next state.
	Method     string          `json:"method"`
	Parameters json.RawMessage `json:"parameters"` // of the method; opaque here

	// Releases has one entry a round: round l, counted from 1, makes state l
	// out of state l-1 and the sum of its contributions.
	Releases []Release  `json:"releases"`
	Lattice  dp.Lattice `json:"lattice"` // ModulusBits is a multiple of 8

	Adjacency dp.Adjacency `json:"adjacency"`
	Trust     Trust        `json:"trust"`
	// NMin is the least number of contributions that a round releases, and the
	// number of noise shares that make up the noise that is charged.
	NMin int `json:"n_min"`
	// RoundSize closes a round: no more contributions are taken. At least NMin.
	RoundSize int `json:"round_size"`
	// Deadline in milliseconds, after which a round closes with what it has.
	// Whoever leads measures it, as a duration: clocks differ.
	Deadline int64 `json:"deadline_ms"`

	// Delta and Budget bound all attempts together; Delta is carried for
	// those who convert nano-rho into epsilon, and not computed with here.
	Delta  float64            `json:"delta"`
	Budget accounting.NanoRho `json:"budget_nano_rho,string"`
}

// Release is what one round collects, and what it costs.
type Release struct {
	Kind   string `json:"kind"`         // the method's name for it
	Length int    `json:"length"`       // coordinates of a contribution
	Bound  uint64 `json:"bound,string"` // largest L2 norm of a contribution, in lattice units: its sensitivity
	// Sigma is the noise on each coordinate that one contribution carries, in
	// units of 2^-20 lattice spacings (see noise.Sigma). NMin of them make up
	// the noise that Charge pays for; with TrustLocal each one does.
	Sigma noise.Sigma `json:"sigma,string"`
	// Largest is the largest absolute value that a coordinate of an honest,
	// noised contribution has, but for a probability below 2^-100. With
	// TrustCentral contributions arrive without noise, and it is Bound.
	Largest uint64             `json:"largest,string"`
	Charge  accounting.NanoRho `json:"charge_nano_rho,string"`
}

// Trust says where noise is added, and so who must be trusted with what a
// single client sends.
type Trust string

// Trust modes.
const (
	TrustDistributed Trust = "distributed" // every client adds its share
	TrustCentral     Trust = "central"     // the receiving server adds each client's share
	TrustLocal       Trust = "local"       // every client adds all of the noise
)

// Width is the number of bytes of a coordinate on the wire (aggregation.Pack).
func (s *Spec) Width() int { return int(s.Lattice.ModulusBits / 8) }

// Digest is a SHA-256 sum.
type Digest [sha256.Size]byte

// Blob is bytes that are known by their digest: a released state, or a sum.
// Bytes is nil where they were staged before (see Stage).
type Blob struct {
	Digest Digest
	Size   int64
	Bytes  []byte
}

// BlobOf returns a blob with its bytes, which it keeps.
func BlobOf(b []byte) Blob {
	return Blob{Digest: sha256.Sum256(b), Size: int64(len(b)), Bytes: b}
}
