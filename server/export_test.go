package server

import "github.com/undertone-fl/undertone/server/replication"

// Replica is what stands between the parts of a server and its node.
type Replica = replica

// NewAround is New for a server whose parts see its node through wrap.
func NewAround(c Config, wrap func(*replication.Node) Replica) (*Server, error) {
	s, err := New(c)
	if err == nil {
		s.assemble(wrap(s.node))
	}
	return s, err
}
