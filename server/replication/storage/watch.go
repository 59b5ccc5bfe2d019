package storage

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Op is a kind of access to the disk.
type Op string

// Kinds of access.
const (
	Append   Op = "append to the log"
	Truncate Op = "truncate the log"
	Read     Op = "read the log"
	Stable   Op = "store the term and the vote"
	Snapshot Op = "write a snapshot"
)

// Fault stands before every write to the disk. An error that it returns is the
// write's; it may also wait. It is how a test makes a disk full, broken or slow;
// nil in production.
type Fault func(Op) error

// guard runs every access to the disk, and ends the node when one fails or does
// not come back: a node that can neither write nor say so elects nobody, and
// hashicorp/raft meets most such errors with a panic.
type guard struct {
	abandoned atomic.Bool // by Directory.Abandon
	fault     Fault
	fatal     func(error)

	mu   sync.Mutex
	busy map[*access]struct{}
	done chan struct{}
	stop sync.Once
}

type access struct {
	op    Op
	ticks int
}

// ticks is how many times in a row the watch must find an access under way.
// Counting, rather than asking the time, tells a disk that hangs from a process
// that was stopped and woken.
const ticks = 20

func newGuard(fault Fault, patience time.Duration, fatal func(error)) *guard {
	g := &guard{fault: fault, fatal: fatal, busy: map[*access]struct{}{}, done: make(chan struct{})}
	go g.watch(patience)
	return g
}

func (g *guard) watch(patience time.Duration) {
	t := time.NewTicker(patience / ticks)
	defer t.Stop()
	for {
		select {
		case <-g.done:
			return
		case <-t.C:
		}
		if op, hung := g.hung(); hung {
			g.fatal(fmt.Errorf("disk hangs: to %s takes more than %v", op, patience))
			return
		}
	}
}

func (g *guard) hung() (Op, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for a := range g.busy {
		if a.ticks++; a.ticks > ticks {
			return a.op, true
		}
	}
	return "", false
}

func (g *guard) close() { g.stop.Do(func() { close(g.done) }) }

// do runs an access. An error, or a panic of the store, is fatal unless it is
// one of those allowed.
func (g *guard) do(op Op, f func() error, allowed ...error) (err error) {
	a := &access{op: op}
	g.mu.Lock()
	g.busy[a] = struct{}{}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.busy, a)
		g.mu.Unlock()
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
		if err == nil {
			return
		}
		if g.abandoned.Load() {
			// What is left of raft would panic at an error: it stands still, as
			// in a crash.
			select {}
		}
		for _, ok := range allowed {
			if errors.Is(err, ok) {
				return
			}
		}
		err = fmt.Errorf("disk: to %s: %w", op, err)
		g.fatal(err)
	}()
	if g.fault != nil && op != Read {
		if err := g.fault(op); err != nil {
			return err
		}
	}
	return f()
}
