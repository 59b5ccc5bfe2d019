package pages

import (
	"net"
	"net/http"
	"slices"
	"sync"

	"github.com/undertone-fl/undertone/proto/identity"
)

// guarded counts connections as strangers' until somebody is let in over them, and from
// then on as theirs.
type guarded struct {
	net.Listener
	pages *Pages
}

func (g *guarded) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	s := &seat{Conn: c, seats: g.pages.seats}
	s.admit = g.pages.strange.Begin(c)
	return s, nil
}

// seat is a connection that counts.
type seat struct {
	net.Conn
	admit func() // no stranger's any more; may be called again
	seats *seats

	who    identity.Identity // whose it is; seats.mu
	closed bool
}

func (s *seat) Close() error {
	s.admit()
	s.seats.leave(s)
	return s.Conn.Close()
}

// seats bounds the connections of everyone who was let in, so that nobody takes all: one
// more closes their oldest.
type seats struct {
	mu sync.Mutex
	of map[identity.Identity][]*seat // the oldest first
}

// take makes a connection somebody's, unless it is somebody's already.
func (t *seats) take(s *seat, who identity.Identity) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.closed || s.who != (identity.Identity{}) {
		return
	}
	s.who = who
	theirs := append(t.of[who], s)
	if len(theirs) > maxOfOne {
		theirs[0].Conn.Close() // whoever reads from it closes the seat
		theirs = theirs[1:]
	}
	t.of[who] = theirs
}

func (t *seats) leave(s *seat) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.closed = true
	theirs := slices.DeleteFunc(t.of[s.who], func(x *seat) bool { return x == s })
	if t.of[s.who] = theirs; len(theirs) == 0 {
		delete(t.of, s.who)
	}
}

type seatKey struct{}

// admitted says that somebody was let in over a request's connection.
func (p *Pages) admitted(r *http.Request, who identity.Identity) {
	c, _ := r.Context().Value(seatKey{}).(net.Conn)
	if over, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		c = over.NetConn()
	}
	if s, ok := c.(*seat); ok {
		s.admit()
		p.seats.take(s, who)
	}
}
