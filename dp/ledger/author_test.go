package ledger_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"testing"

	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
	"golang.org/x/mod/sumdb/note"
)

// author writes ledgers as a cluster does, from events, and signs whatever it is told to.
type author struct {
	log    ledger.Log
	signer note.Signer
	public string // keys
	first  string
	now    int64
	specs  map[ledger.Digest][]byte
	jobs   map[string]*authorJob
}

type authorJob struct {
	spec     ledger.Specification
	digest   ledger.Digest
	state    ledger.Digest
	spent    accounting.NanoRho
	released int
	round    int // of the attempt charged last
	attempt  int
}

const origin = "cluster.example"

// testKey is a key pair that follows from its number.
func testKey(t testing.TB, number byte) (signer note.Signer, public string) {
	t.Helper()
	secret, public, err := note.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{number}, 64)), origin)
	if err != nil {
		t.Fatal(err)
	}
	if signer, err = note.NewSigner(secret); err != nil {
		t.Fatal(err)
	}
	return signer, public
}

func newAuthor(t testing.TB) *author { return newAuthorOf(t, 0) }

// newAuthorOf begins with so many records of what there was before.
func newAuthorOf(t testing.TB, history int64) *author {
	a := &author{
		now:   1_790_000_000_000,
		specs: make(map[ledger.Digest][]byte),
		jobs:  make(map[string]*authorJob),
	}
	a.signer, a.first = testKey(t, 1)
	a.public = a.first
	a.append(&ledger.Begun{Origin: origin, Key: a.first, Format: ledger.Format, History: history})
	return a
}

func (a *author) append(e ledger.Entry) {
	a.now += 1000
	a.log.Append(e, a.now)
}

// terms of a job of the author's: nano-rho enough for rounds and spare attempts.
type terms struct {
	name          string
	rounds, spare int
	trust         string
	adjacency     dp.Adjacency
	nMin          int
}

// specification of a job whose charge is the least that pays for its noise, and a little.
func (w terms) specification() ledger.Specification {
	const length, bound, units = 306, 1 << 24, 1 << 20
	parts, factor := w.nMin, w.adjacency.SensitivityFactor()
	if w.trust == ledger.TrustLocal {
		parts = 1
	}
	const multiplier = 8 // of the sum's noise over its sensitivity
	sigma := multiplier * factor * bound / sqrt(parts)
	charge, err := accounting.GaussianCharge(multiplier, 1)
	if err != nil {
		panic(err)
	}
	charge += charge/1e6 + 1
	s := ledger.Specification{
		Job: w.name, Method: "amht-lrs",
		Parameters: json.RawMessage(`{"dim":50,"rank":3,"features":"standard","centred":false,"rounds":` + fmt.Sprint(max(1, w.rounds-1)) + `,"update":"gradient","sparsity":3}`),
		Lattice:    dp.Lattice{ScaleBits: 24, ModulusBits: 48},
		Adjacency:  w.adjacency, Trust: w.trust,
		NMin: w.nMin, RoundSize: w.nMin + 1000, Deadline: 60_000,
		Delta: 1e-6, Budget: charge * accounting.NanoRho(w.rounds+w.spare),
	}
	for i := range w.rounds {
		kind := "update"
		if i == 0 {
			kind = "initialise"
		}
		r := ledger.Release{Kind: kind, Length: length, Bound: bound, Sigma: uint64(sigma * units), Charge: charge}
		r.Largest = r.Bound + r.Sigma>>20*16 + 16
		if w.trust == ledger.TrustCentral {
			r.Largest = r.Bound
		}
		s.Releases = append(s.Releases, r)
	}
	return s
}

func digestOf(format string, args ...any) ledger.Digest {
	return sha256.Sum256(fmt.Appendf(nil, format, args...))
}

func (a *author) create(s ledger.Specification) {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(err)
	}
	a.createWritten(s, raw)
}

func (a *author) createWritten(s ledger.Specification, raw []byte) {
	j := &authorJob{spec: s, digest: sha256.Sum256(raw), state: digestOf("%s 0", s.Job)}
	a.jobs[s.Job], a.specs[j.digest] = j, raw
	a.append(&ledger.JobCreated{Job: s.Job, Specification: j.digest, State: j.state, Budget: s.Budget})
}

func (a *author) open(name string, attempt int) {
	j := a.jobs[name]
	j.round, j.attempt = j.released+1, attempt
	charge := j.spec.Releases[j.released].Charge
	j.spent += charge
	a.append(&ledger.AttemptCharged{
		Job: name, Round: j.round, Attempt: attempt, Specification: j.digest, State: j.state,
		Charge: charge, Spent: j.spent,
	})
}

func (a *author) fail(name, why string, members int) {
	j := a.jobs[name]
	a.append(&ledger.Failed{Job: name, Round: j.round, Attempt: j.attempt, Members: members, Why: why})
}

func (a *author) release(name string) {
	j := a.jobs[name]
	r := j.spec.Releases[j.released]
	j.state = digestOf("%s %d", name, j.round)
	a.append(&ledger.Released{
		Job: name, Round: j.round, Attempt: j.attempt, Members: j.spec.NMin + j.round%100,
		Sum: digestOf("sum %s %d", name, j.round), State: j.state,
		Mechanism: ledger.Mechanism{
			Length: r.Length, Clip: r.Bound, Sigma: r.Sigma,
			ScaleBits: j.spec.Lattice.ScaleBits, ModulusBits: j.spec.Lattice.ModulusBits,
			NMin: j.spec.NMin, Adjacency: j.spec.Adjacency, Trust: j.spec.Trust, Sampler: ledger.SamplerNone,
		},
		Charge: r.Charge,
	})
	if j.released++; j.released == len(j.spec.Releases) {
		a.close(name)
	}
}

func (a *author) close(name string) {
	j := a.jobs[name]
	a.append(&ledger.JobClosed{Job: name, Released: j.released, Spent: j.spent})
}

func (a *author) rotate(t testing.TB, number byte) {
	next, public := testKey(t, number)
	endorsement, err := ledger.Endorse(a.signer, public)
	if err != nil {
		t.Fatal(err)
	}
	a.append(&ledger.KeyRotated{Key: public, Endorsement: endorsement})
	a.signer, a.public = next, public
}

// bundle is the ledger as it is now, signed.
func (a *author) bundle(t testing.TB) *ledger.Bundle {
	b := &ledger.Bundle{Records: a.log.Records(), Specifications: maps.Clone(a.specs)}
	sign(t, b, a.signer)
	return b
}

// sign signs whatever records a bundle has.
func sign(t testing.TB, b *ledger.Bundle, s note.Signer) ledger.Checkpoint {
	t.Helper()
	c := checkpointOf(t, b.Records, s.Name())
	signed, err := c.Sign(s)
	if err != nil {
		t.Fatal(err)
	}
	b.Checkpoint = signed
	return c
}

// ordinary is a ledger that has every kind of record.
func ordinary(t testing.TB) *author {
	a := newAuthor(t)
	a.create(terms{"films", 3, 2, ledger.TrustDistributed, dp.ZeroOut, 4000}.specification())
	a.create(terms{"music", 2, 3, ledger.TrustCentral, dp.ReplaceOne, 500}.specification())
	a.open("films", 1)
	a.release("films")
	a.open("music", 1)
	a.fail("music", "499 contributions of 500", 499)
	a.open("music", 2)
	a.open("films", 1)
	a.fail("films", "an operator gave it up", 2800)
	a.open("films", 2)
	a.rotate(t, 2)
	a.release("films")
	a.fail("music", "the state was restored from a backup", 0)
	a.append(&ledger.Restored{Era: 1})
	a.create(terms{"books", 4, 1, ledger.TrustLocal, dp.ZeroOut, 20}.specification())
	a.open("music", 1_000_001)
	a.release("music")
	a.open("films", 1_000_001)
	a.release("films") // and closes
	a.append(&ledger.CanaryMeasured{
		Job: "films", By: "auditor ada", Claimed: 2_000_000, Lower: 1_912_345, Upper: 2_067_890, Delta: "1e-06",
		Confidence: 950_000, Trials: 100_000, Passed: true, Measured: a.now - 500,
		How: "test jobs with this job's specification, in one process",
	})
	a.open("music", 1_000_001)
	a.fail("music", "an operator closed the job", 17)
	a.close("music")
	a.open("books", 1_000_001)
	a.release("books")
	a.open("books", 1_000_001) // and is open
	return a
}
