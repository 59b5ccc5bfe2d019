package jobs

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"
)

// What New makes and Check takes, the ledger's own arithmetic takes too, down to the last
// nano-rho; the two share no code.
func TestTheLedgerAgreesOnCosts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nMin := rapid.IntRange(1, 100_000).Draw(t, "n_min")
		s, err := New(Parameters{Config: lowrank.Config{
			Dim: rapid.IntRange(2, 60).Draw(t, "dim"), Rank: 2, Features: lowrank.Standard,
			Rounds: rapid.IntRange(1, 12).Draw(t, "rounds"), Update: lowrank.Gradient,
		}}, Terms{
			Job: "films", Epsilon: rapid.Float64Range(0.01, 20).Draw(t, "epsilon"), Delta: 1e-6,
			Adjacency: rapid.SampledFrom([]dp.Adjacency{dp.ZeroOut, dp.ReplaceOne}).Draw(t, "adjacency"),
			Trust:     rapid.SampledFrom([]rounds.Trust{rounds.TrustCentral, rounds.TrustDistributed, rounds.TrustLocal}).Draw(t, "trust"),
			NMin:      nMin, RoundSize: nMin + 10, Deadline: time.Minute,
		})
		if err != nil {
			t.Skip(err)
		}
		h, err := ledger.Verify(allCharged(t, s), publicKey(t), ledger.Checkpoint{})
		if err != nil {
			t.Fatal(err)
		}
		for i, a := range h.Jobs[0].Attempts {
			// The margin on a charge is 10^-11 of it, and a nano-rho for rounding.
			if slack := 2 + a.Charge/1e10; a.Recomputed+slack < chargeNeeded(s, i) {
				t.Errorf("release %d: the ledger recomputes %d, and %d pays for it", i+1, a.Recomputed, chargeNeeded(s, i))
			}
		}
	})
}

// chargeNeeded is the least charge of a release that Check takes.
func chargeNeeded(s *rounds.Spec, i int) accounting.NanoRho {
	r := s.Releases[i]
	least, most := accounting.NanoRho(0), r.Charge
	for least < most {
		if r.Charge = least + (most-least)/2; pays(s, &r) {
			most = r.Charge
		} else {
			least = r.Charge + 1
		}
	}
	return least
}

func publicKey(t interface{ Fatal(...any) }) string {
	_, public := ledgerKey(t)
	return public
}

func ledgerKey(t interface{ Fatal(...any) }) (note.Signer, string) {
	secret, public, err := note.GenerateKey(zeros{}, "cluster.example")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	return signer, public
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// allCharged is the ledger of a job that released every round.
func allCharged(t interface{ Fatal(...any) }, s *rounds.Spec) *ledger.Bundle {
	var log ledger.Log
	signer, public := ledgerKey(t)
	raw := Encode(s)
	spec, state := ledger.Digest(sha256.Sum256(raw)), ledger.Digest{1}
	log.Append(&ledger.Begun{Origin: signer.Name(), Key: public, Format: ledger.Format}, 1)
	log.Append(&ledger.JobCreated{Job: s.Job, Specification: spec, State: state, Budget: s.Budget}, 1)
	var spent accounting.NanoRho
	for i, r := range s.Releases {
		spent += r.Charge
		log.Append(&ledger.AttemptCharged{Job: s.Job, Round: i + 1, Attempt: 1, Specification: spec, State: state, Charge: r.Charge, Spent: spent}, 1)
		state = sha256.Sum256(fmt.Appendf(nil, "%d", i))
		log.Append(&ledger.Released{
			Job: s.Job, Round: i + 1, Attempt: 1, Members: s.NMin, Sum: ledger.Digest{byte(i), 1}, State: state, Charge: r.Charge,
			Mechanism: ledger.Mechanism{
				Length: r.Length, Clip: r.Bound, Sigma: uint64(r.Sigma),
				ScaleBits: s.Lattice.ScaleBits, ModulusBits: s.Lattice.ModulusBits,
				NMin: s.NMin, Adjacency: s.Adjacency, Trust: string(s.Trust), Sampler: ledger.SamplerNone,
			},
		}, 1)
	}
	log.Append(&ledger.JobClosed{Job: s.Job, Released: len(s.Releases), Spent: spent}, 1)
	root, err := log.Root(log.Size())
	if err != nil {
		t.Fatal(err)
	}
	signed, err := ledger.Checkpoint{Origin: signer.Name(), Size: log.Size(), Root: root}.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	return &ledger.Bundle{Checkpoint: signed, Records: log.Records(), Specifications: map[ledger.Digest][]byte{spec: raw}}
}
