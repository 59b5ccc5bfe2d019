package noise

import (
	crand "crypto/rand"
	"encoding/binary"
	"math"
	"math/rand/v2"
)

// Source is a stream of uniform random bits. It is sealed: only [Secret]
// and [Seeded] implement it, so that a deployed path can ask for a *Secret
// and no seed can slip in. A Source serves one goroutine.
type Source interface {
	Uint64() uint64
	sealed()
}

// Secret is a cryptographic source: ChaCha8 (with fast key erasure) keyed by
// 256 bits from the operating system. Each goroutine makes its own, so that
// none waits for a lock.
type Secret struct{ chacha *rand.ChaCha8 }

// NewSecret returns a source keyed from crypto/rand.
func NewSecret() *Secret {
	var key [32]byte
	crand.Read(key[:]) // never fails: the runtime aborts the program instead
	return &Secret{rand.NewChaCha8(key)}
}

// Uint64 returns 64 uniform bits.
func (s *Secret) Uint64() uint64 { return s.chacha.Uint64() }

func (*Secret) sealed() {}

// Seeded is a repeatable source for simulations and tests. It protects
// nobody: whoever knows the seed can subtract the noise.
type Seeded struct{ chacha *rand.ChaCha8 }

// NewSeeded returns the repeatable stream that belongs to a seed and a path
// of up to three labels below it (round, client, purpose). Different paths
// give independent streams.
func NewSeeded(seed uint64, path ...uint64) *Seeded {
	s := &Seeded{rand.NewChaCha8([32]byte{})}
	s.Reset(seed, path...)
	return s
}

// Reset turns s into the stream of another path, without allocating.
func (s *Seeded) Reset(seed uint64, path ...uint64) {
	if len(path) > 3 {
		panic("noise: a seeded path has at most three labels")
	}
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	for i, label := range path {
		// A label is stored plus one, so that a shorter path is no prefix of zeros.
		if label == math.MaxUint64 {
			panic("noise: a label of 2^64-1")
		}
		binary.LittleEndian.PutUint64(key[8*(i+1):], label+1)
	}
	s.chacha.Seed(key)
}

// Uint64 returns the next 64 bits of the stream.
func (s *Seeded) Uint64() uint64 { return s.chacha.Uint64() }

func (*Seeded) sealed() {}
