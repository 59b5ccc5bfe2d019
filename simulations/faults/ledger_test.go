package faults

import (
	"crypto/sha256"
	"encoding/json"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/ledger"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// bookkeeper is a machine with a ledger, whose job has a round that was released and one
// that collects.
type bookkeeper struct {
	t      *testing.T
	m      *rounds.Machine
	signer note.Signer
	public string
	raw    []byte
}

func newBookkeeper(t *testing.T, state string) *bookkeeper {
	t.Helper()
	made, err := jobs.New(
		jobs.Parameters{Config: lowrank.Config{Dim: 4, Rank: 1, Rounds: 2, Features: lowrank.Standard, Update: lowrank.Gradient}},
		jobs.Terms{Job: "job", Epsilon: 8, Delta: 1e-6, Adjacency: dp.ZeroOut, Trust: rounds.TrustDistributed, NMin: 1, RoundSize: 4, Deadline: 1e9})
	if err != nil {
		t.Fatal(err)
	}
	b := &bookkeeper{t: t, m: rounds.NewMachine()}
	if b.raw, err = json.Marshal(made); err != nil {
		t.Fatal(err)
	}
	secret, public, err := note.GenerateKey(strings.NewReader(strings.Repeat("k", 64)), "faults.example")
	if err != nil {
		t.Fatal(err)
	}
	if b.signer, err = note.NewSigner(secret); err != nil {
		t.Fatal(err)
	}
	b.public = public
	zeros := aggregation.Pack(nil, make([]int64, made.Releases[0].Length), made.Width())
	b.do(rounds.BeginLedger{Origin: "faults.example", Key: public},
		rounds.CreateJob{Spec: b.raw, State: rounds.BlobOf([]byte("0"))}, rounds.Run{Job: "job"},
		rounds.OpenRound{Job: "job", Round: 1, Attempt: 1},
		rounds.Collect{Job: "job", Round: 1, Attempt: 1, Members: []rounds.ClientID{{1}}, Sum: rounds.BlobOf(zeros)},
		rounds.CloseRound{Job: "job", Round: 1, Attempt: 1},
		rounds.ReleaseRound{Job: "job", Round: 1, Attempt: 1, State: rounds.BlobOf([]byte(state))},
		rounds.OpenRound{Job: "job", Round: 2, Attempt: 1})
	return b
}

func (b *bookkeeper) do(commands ...rounds.Command) {
	b.t.Helper()
	for _, c := range commands {
		if _, err := b.m.Apply(c); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bookkeeper) checkpoint(size int64) []byte {
	root, err := b.m.Ledger().Root(size)
	if err != nil {
		b.t.Fatal(err)
	}
	signed, err := ledger.Checkpoint{Origin: "faults.example", Size: size, Root: root}.Sign(b.signer)
	if err != nil {
		b.t.Fatal(err)
	}
	return signed
}

// shown is the ledger of so many records, to somebody who has seen the first old ones.
func (b *bookkeeper) shown(old, size int64) *undertonev1.Ledger {
	proof, err := b.m.Ledger().Consistency(old, size)
	if err != nil {
		b.t.Fatal(err)
	}
	return &undertonev1.Ledger{Checkpoint: b.checkpoint(size), Consistency: hashesOf(proof)}
}

// grows is the ledger shown twice, the second time with so many records.
func (b *bookkeeper) grows(w *witness, size int64) {
	w.sees(b.shown(0, 2))
	w.sees(b.shown(2, size))
}

// work is the round that collects, with the reservation in record index.
func (b *bookkeeper) work(index int64) *undertonev1.Work {
	l := b.m.Ledger()
	proof, err := l.Inclusion(index, l.Size())
	if err != nil {
		b.t.Fatal(err)
	}
	v, _ := b.m.Job("job")
	return &undertonev1.Work{Job: "job", Round: 2, Attempt: 1, StateDigest: v.Latest.Digest[:],
		Reservation: &undertonev1.Inclusion{Record: l.Records()[index], Index: uint64(index), Proof: hashesOf(proof)}}
}

func (b *bookkeeper) bundle() *ledger.Bundle {
	return &ledger.Bundle{Checkpoint: b.checkpoint(b.m.Ledger().Size()), Records: b.m.Ledger().Records(),
		Specifications: map[ledger.Digest][]byte{sha256.Sum256(b.raw): b.raw}}
}

// job is what an operator is shown.
func (b *bookkeeper) job() *undertonev1.Job {
	v, _ := b.m.Job("job")
	out := &undertonev1.Job{Spec: b.raw, Released: uint32(v.Released), StateDigest: v.Latest.Digest[:], SpentNanoRho: uint64(v.Spent)}
	for _, a := range v.Attempts {
		x := &undertonev1.Attempt{Round: uint32(a.Round), Attempt: uint32(a.Attempt), Phase: undertonev1.Phase(a.Phase), Members: uint32(a.Members)}
		if a.Phase == rounds.Released {
			x.StateDigest = a.State[:]
		}
		out.Attempts = append(out.Attempts, x)
	}
	return out
}

func hashesOf(p ledger.Proof) (out [][]byte) {
	for i := range p {
		out = append(out, p[i][:])
	}
	return out
}

// Promise 7, broken in one way each.
func TestWitnessesFindViolations(t *testing.T) {
	const all, reservation = 5, 4
	for name, c := range map[string]struct {
		show func(b, other *bookkeeper, w *witness) *ledger.Bundle
		want string // "": no violation
	}{
		"good": {func(b, _ *bookkeeper, w *witness) *ledger.Bundle {
			b.grows(w, all)
			w.reserved(b.work(reservation))
			return b.bundle()
		}, ""},
		"two histories": {func(b, other *bookkeeper, w *witness) *ledger.Bundle {
			b.grows(w, 4)
			w.sees(other.shown(4, all))
			return b.bundle()
		}, "eve was shown a ledger after 4 records: ledger: two histories"},
		"taken back": {func(b, _ *bookkeeper, w *witness) *ledger.Bundle {
			b.grows(w, all)
			w.sees(b.shown(0, 3))
			return b.bundle()
		}, "records were taken back"},
		"none": {func(b, _ *bookkeeper, w *witness) *ledger.Bundle {
			w.sees(nil)
			return b.bundle()
		}, "not signed"},
		"not reserved": {func(b, _ *bookkeeper, w *witness) *ledger.Bundle {
			b.grows(w, 4)
			w.reserved(b.work(reservation))
			return b.bundle()
		}, "job round 2 attempt 1 collects: its reservation: ledger: the record is not in the log"},
		"another reservation": {func(b, _ *bookkeeper, w *witness) *ledger.Bundle {
			b.grows(w, all)
			w.reserved(b.work(reservation - 2))
			return b.bundle()
		}, "collects, and its reservation is"},
		"a reservation from another state": {func(b, other *bookkeeper, w *witness) *ledger.Bundle {
			b.grows(w, all)
			work := b.work(reservation)
			work.StateDigest = other.work(reservation).StateDigest
			w.reserved(work)
			return b.bundle()
		}, "collects, and its reservation is"},
		"another history in the end": {func(b, other *bookkeeper, w *witness) *ledger.Bundle {
			b.grows(w, all)
			return other.bundle()
		}, "does not extend the 5 records that eve was shown"},
		"shorter in the end": {func(b, _ *bookkeeper, w *witness) *ledger.Bundle {
			b.grows(w, all)
			short := b.bundle()
			short.Records, short.Checkpoint = short.Records[:4], b.checkpoint(4)
			return short
		}, "does not extend the 5 records that eve was shown"},
		"an attempt that is not on record": {func(b, _ *bookkeeper, _ *witness) *ledger.Bundle {
			short := b.bundle()
			short.Records, short.Checkpoint = short.Records[:4], b.checkpoint(4)
			return short
		}, "the ledger lacks job round 2 attempt 1"},
		"a job that is not on record": {func(b, _ *bookkeeper, _ *witness) *ledger.Bundle {
			short := b.bundle()
			short.Records, short.Checkpoint, short.Specifications = short.Records[:1], b.checkpoint(1), nil
			return short
		}, "job job is not in the ledger"},
		"it does not verify": {func(b, _ *bookkeeper, _ *witness) *ledger.Bundle {
			spoilt := b.bundle()
			spoilt.Records = append([][]byte{spoilt.Records[0]}, spoilt.Records[2:]...)
			return spoilt
		}, "there is no such job"},
		"another state was shown": {func(b, other *bookkeeper, w *witness) *ledger.Bundle {
			w.log.jobs["job"].states[1] = other.job().StateDigest
			return b.bundle()
		}, "job: state 1 was"},
		"other members were shown": {func(b, _ *bookkeeper, w *witness) *ledger.Bundle {
			w.log.jobs["job"].shown.Attempts[0].Members++
			return b.bundle()
		}, "in the ledger job round 1 attempt 1 is released with 1 members"},
	} {
		t.Run(name, func(t *testing.T) {
			b, other := newBookkeeper(t, "1"), newBookkeeper(t, "another 1")
			h := newHistory()
			h.jobs["job"] = &jobHistory{states: map[int][]byte{}}
			h.sawJob(b.job())
			key, err := ledger.ParseKey(b.public)
			if err != nil {
				t.Fatal(err)
			}
			w := &witness{name: "eve", key: key, log: h}
			h.holds("node-1", c.show(b, other, w), b.public, []*witness{w})
			if found := strings.Join(h.violations, "\n"); (found == "") != (c.want == "") || !strings.Contains(found, c.want) {
				t.Errorf("found %q, want %q", found, c.want)
			}
		})
	}
}
