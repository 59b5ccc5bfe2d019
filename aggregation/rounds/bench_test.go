package rounds_test

import (
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp"
)

const million = 1_000_000

// collecting is a machine with an open round that takes a million members.
type collecting struct {
	t       testing.TB
	m       *rounds.Machine
	sum     rounds.Blob
	attempt int
	clients int // that took part in the attempt
	batch   []rounds.ClientID
}

func newCollecting(t testing.TB, length, batch int) *collecting {
	spec := newSpec("films", 1, length, 1, 1<<40)
	spec.RoundSize = million + batch
	spec.Lattice = dp.Lattice{ScaleBits: 24, ModulusBits: 40}
	c := &collecting{
		t: t, m: rounds.NewMachine(), batch: make([]rounds.ClientID, batch),
		sum: rounds.BlobOf(aggregation.Pack(nil, make([]int64, length), spec.Width())),
	}
	apply(t, c.m, rounds.CreateJob{Spec: encode(t, spec), State: rounds.BlobOf([]byte("U0"))})
	apply(t, c.m, rounds.Run{Job: "films"})
	c.open()
	return c
}

func (c *collecting) open() {
	c.attempt++
	c.clients = 0
	apply(c.t, c.m, rounds.OpenRound{Job: "films", Round: 1, Attempt: c.attempt})
}

// collect adds the next batch of members.
func (c *collecting) collect() {
	for i := range c.batch {
		c.clients++
		// Spread, as the digests are that they stand for.
		binary.LittleEndian.PutUint64(c.batch[i][:], uint64(c.clients)*0x9e3779b97f4a7c15)
	}
	apply(c.t, c.m, rounds.Collect{Job: "films", Round: 1, Attempt: c.attempt, Members: c.batch, Sum: c.sum})
}

// BenchmarkCollect adds batches of 512 members with 150 coordinates of five
// bytes: members that take part for the first time, or that are registered.
func BenchmarkCollect(b *testing.B) {
	b.Run("new", func(b *testing.B) {
		c := newCollecting(b, 150, 512)
		benchmarkCollect(b, func() { c = newCollecting(b, 150, 512) }, func() { c.collect() })
	})
	b.Run("registered", func(b *testing.B) {
		c := newCollecting(b, 150, 512)
		again := func() {
			apply(b, c.m, rounds.FailRound{Job: "films", Round: 1, Attempt: c.attempt, Why: "again"})
			c.open()
		}
		for c.clients < million {
			c.collect()
		}
		again()
		benchmarkCollect(b, again, c.collect)
	})
}

// benchmarkCollect calls again before the round is full.
func benchmarkCollect(b *testing.B, again, collect func()) {
	batches := 0
	b.ReportAllocs()
	for b.Loop() {
		if batches++; batches%(million/512) == 0 {
			b.StopTimer()
			again()
			b.StartTimer()
		}
		collect()
	}
	b.ReportMetric(float64(b.N*512)/b.Elapsed().Seconds(), "members/s")
}

// TestMillionMembers holds the memory of a machine with a million clients that
// are all members of the open round, and of a snapshot of it.
func TestMillionMembers(t *testing.T) {
	if testing.Short() {
		t.Skip("registers a million clients")
	}
	empty := heap()
	c := newCollecting(t, 150, 500)
	for c.clients < million {
		c.collect()
	}
	full := heap()
	s := c.m.Snapshot()
	withSnapshot := heap()
	t.Logf("machine: %d KiB, its snapshot: %d KiB more, members: %d KiB", (full-empty)>>10, (withSnapshot-full)>>10, len(s.Jobs[0].Members)>>10)
	if used := full - empty; used > 100<<20 {
		t.Errorf("the machine takes %d bytes", used)
	}
	if len(s.Jobs[0].Members) > 140_000 {
		t.Errorf("the members take %d bytes", len(s.Jobs[0].Members))
	}
	if more := withSnapshot - full; more > 1<<20 {
		t.Errorf("the snapshot takes %d bytes more", more)
	}
	if c.m.Clients() != million || len(s.Clients) != million {
		t.Errorf("%d clients, %d in the snapshot", c.m.Clients(), len(s.Clients))
	}
	runtime.KeepAlive(c)
}

// heap is the memory in use, in bytes.
func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// BenchmarkParseSpec reads a specification of a thousand rounds.
func BenchmarkParseSpec(b *testing.B) {
	spec := encode(b, newSpec("films", 1000, 150, 1, 1000))
	b.SetBytes(int64(len(spec)))
	for b.Loop() {
		if _, err := rounds.ParseSpec(spec); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkClose collects and closes a round of 10 MiB: what it collects is
// hashed and added, and the sum is reduced and hashed.
func BenchmarkClose(b *testing.B) {
	const length = 10 << 20 / 5
	c := newCollecting(b, length, 2)
	b.SetBytes(length * 5)
	b.ReportAllocs()
	for b.Loop() {
		c.collect()
		apply(b, c.m, rounds.CloseRound{Job: "films", Round: 1, Attempt: c.attempt})
		b.StopTimer()
		apply(b, c.m, rounds.FailRound{Job: "films", Round: 1, Attempt: c.attempt, Why: "again"})
		c.open()
		b.StartTimer()
	}
}
