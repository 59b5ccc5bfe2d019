package replication

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/server/replication/encoding"
)

// BenchmarkPropose measures commands of 256 bytes on three nodes in one process,
// over TLS and with a log each on one disk, from 64 proposers on the leader.
func BenchmarkPropose(b *testing.B) {
	c := newCluster(b)
	c.form(3)
	l := c.leader()
	l.begin()
	_, term := l.Leading()
	const proposers = 64
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	start := time.Now()
	for range proposers {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > b.N {
					return
				}
				if _, err := l.propose(padded(i)); err != nil && !isRefused(err, rounds.WrongRound) {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/took.Seconds(), "entries/s")
	if _, now := l.Leading(); now != term {
		b.Logf("the leader changed: term %d, was %d", now, term)
	}
}

// padded is a command whose entry has 256 bytes. The machine refuses it, so that
// raft is what is measured.
func padded(i int) rounds.Command {
	c := rounds.FailRound{Job: "job", Round: 2, Attempt: i}
	if b, err := encoding.MarshalCommand(c); err == nil {
		c.Why = strings.Repeat("x", 256-len(b)-3)
	}
	return c
}

// BenchmarkProposeForwarded is one command at a time through a follower: the
// latency of a commit, and of its way back.
func BenchmarkProposeForwarded(b *testing.B) {
	c := newCluster(b)
	c.form(3)
	c.leader().begin()
	f := c.follower()
	for i := 0; b.Loop(); i++ {
		f.must(contribution("job", 1, 1, i))
	}
}
