package client

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/lowrank"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/client/internal/contract"
	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/ledger"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// check is one answer of servers whose ledger is large, with what a device needs to
// verify it.
type check struct {
	seen   *witnessed
	spec   *jobSpec
	answer []byte // what comes over the network, the work among it
	bytes  int    // of it, the ledger and the reservation
}

// largestLedger is the number of records that a check must be cheap at.
const largestLedger = 100_000

// checks returns checks against a ledger of so many records, for devices that saw it
// last at sizes from one record to all but one. With rotations its key was handed on so
// often, and the devices know of none.
func checks(tb testing.TB, records, rotations int) (out []check, l *contract.Ledger) {
	tb.Helper()
	must := func(err error) {
		if err != nil {
			tb.Fatal(err)
		}
	}
	spec, err := jobs.New(
		jobs.Parameters{Config: lowrank.Config{Dim: 6, Rank: 2, Features: lowrank.Standard, Update: lowrank.Gradient, Rounds: 2}, Sparsity: 1},
		jobs.Terms{Job: "taste", Epsilon: 4, Delta: 1e-6, Adjacency: dp.ZeroOut, Trust: rounds.TrustDistributed, NMin: 1, RoundSize: 100, Deadline: time.Hour},
	)
	must(err)
	raw, err := json.Marshal(spec)
	must(err)
	parsed, err := parseSpec(raw)
	must(err)
	state := sha256.Sum256(nil)
	l, err = contract.BeginLedger(secretKey, publicKey)
	must(err)
	first := l.Key
	charged := &ledger.AttemptCharged{
		Job: "taste", Round: 1, Attempt: 1, Specification: ledger.Digest(parsed.digest), State: state,
		Charge: spec.Releases[0].Charge, Spent: spec.Releases[0].Charge,
	}
	seen := map[int64]*witnessed{}
	for l.Size() < int64(records-rotations) {
		l.Append(charged, 1_800_000_000_000+l.Size())
		if n := l.Size(); n < int64(records-rotations) && (n&(n-1) == 0 || n%5000 == 0 || n == int64(records-rotations-1)) {
			signed, err := l.Note()
			must(err)
			seen[n] = &witnessed{Keys: []string{first}, Note: signed}
			must(seen[n].open())
		}
	}
	for range rotations {
		must(l.Rotate(true))
	}
	for size, w := range seen {
		shown, err := l.Show(uint64(size))
		must(err)
		reservation, err := l.Reservation(size) // the first that the device has not seen
		must(err)
		answer, err := proto.Marshal(&undertonev1.PollResponse{Index: 1, Ledger: shown, Work: []*undertonev1.Work{{
			Job: "taste", Round: 1, Attempt: 1, SpecDigest: parsed.digest[:], StateDigest: state[:], Reservation: reservation,
		}}})
		must(err)
		out = append(out, check{w, parsed, answer, proto.Size(shown) + proto.Size(reservation)})
	}
	return out, l
}

// run is what a device does with an answer before it takes part.
func (c *check) run(tb testing.TB) {
	answer := new(undertonev1.PollResponse)
	if err := proto.Unmarshal(c.answer, answer); err != nil {
		tb.Fatal(err)
	}
	next, err := c.seen.follow(answer.GetLedger(), "", "server")
	if err != nil {
		tb.Fatal(err)
	}
	work := answer.GetWork()[0]
	if err := next.reserves(work, c.spec, c.spec.Releases[0].Charge); err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkCheck is what following a ledger of 100,000 records costs a device for each
// answer: the messages beside the work itself, and the processor's time. What is
// witnessed is then written to disk, which is not measured here.
func BenchmarkCheck(b *testing.B) {
	for name, rotations := range map[string]int{"same key": 0, "after 3 rotations": 3} {
		b.Run(name, func(b *testing.B) {
			all, _ := checks(b, largestLedger, rotations)
			largest := 0
			for _, c := range all {
				largest = max(largest, c.bytes)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				all[i%len(all)].run(b)
			}
			b.ReportMetric(float64(largest), "bytes/check")
		})
	}
}

// TestCheckIsSmall: a check of a ledger of 100,000 records is at most 10 KB.
func TestCheckIsSmall(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a large ledger")
	}
	all, _ := checks(t, largestLedger, 3)
	for _, c := range all {
		c.run(t)
		if c.bytes > 10_000 {
			t.Errorf("%d bytes", c.bytes)
		}
	}
}

// FuzzAnswer: whatever a server without the ledger's key answers, what a device accepts is
// the ledger: its checkpoint, and of it the record that reserves. It is fuzzed with
// -fuzzminimizetime 1x: signatures take different ways through the code each time.
func FuzzAnswer(f *testing.F) {
	all, l := checks(f, 60, 0)
	for i := range all {
		f.Add(uint8(i), all[i].answer)
	}
	f.Fuzz(func(t *testing.T, i uint8, data []byte) {
		c := all[int(i)%len(all)]
		answer := new(undertonev1.PollResponse)
		if proto.Unmarshal(data, answer) != nil {
			return
		}
		next, err := c.seen.follow(answer.GetLedger(), "", "server")
		if err != nil {
			return
		}
		if root, err := l.Root(next.size()); err != nil || next.size() < c.seen.size() || next.checkpoint.Root != root {
			t.Fatalf("%+v, %v", next.checkpoint, err)
		}
		for _, w := range answer.GetWork() {
			if w.GetRound() != 1 || len(w.GetStateDigest()) != len(digest{}) {
				continue // is refused before
			}
			r := w.GetReservation()
			if next.reserves(w, c.spec, 0) == nil && !bytes.Equal(l.Records()[r.GetIndex()], r.GetRecord()) {
				t.Fatalf("%v", r)
			}
		}
	})
}
