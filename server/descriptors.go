package server

import (
	"fmt"

	"github.com/undertone-fl/undertone/server/service"
)

const (
	// reservedFiles is what a node keeps for itself of the files that it may have
	// open: the log, snapshots, other nodes, 256 handshakes of theirs, and HTTP. A
	// log that cannot be opened ends the node, so clients' connections must leave
	// it that many.
	reservedFiles = 512
	// leastConnections is what serving is worth the name for.
	leastConnections = 64
	// httpConnections is how many there may be to /metrics and the others.
	httpConnections = 64
)

// connections is how many connections of clients a process may have that may
// have so many files open.
func connections(files uint64) (int, error) {
	if files < reservedFiles+leastConnections {
		return 0, fmt.Errorf("the process may have %d files open (ulimit -n): a server needs %d", files, reservedFiles+leastConnections)
	}
	return int(min(files-reservedFiles, service.MaxConnections)), nil
}
