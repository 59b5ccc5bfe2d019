// Package handshake bounds the connections that have shown no certificate yet.
//
// Anybody may open those, and say nothing. A port that waits when it has too many
// of them can be kept shut by whoever opens them. So nobody waits here: the one
// that has taken the longest makes room for the next. An honest handshake is over
// before so many others have begun.
package handshake

import (
	"container/list"
	"net"
	"sync"
)

// Bound is a bound on handshakes under way.
type Bound struct {
	most int

	mu       sync.Mutex
	underWay list.List // of net.Conn, the oldest first
}

// NewBound returns a bound of so many, at least one.
func NewBound(most int) *Bound { return &Bound{most: max(most, 1)} }

// Begin counts a connection until done is called, which may be called again. If
// there are too many, it closes the oldest one, whose handshake fails.
func (b *Bound) Begin(c net.Conn) (done func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.underWay.Len() >= b.most {
		oldest := b.underWay.Remove(b.underWay.Front()).(net.Conn)
		oldest.Close()
	}
	e := b.underWay.PushBack(c)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.underWay.Remove(e) // if it is still there
	}
}
