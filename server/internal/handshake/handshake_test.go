package handshake_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/server/internal/handshake"
)

func TestOldestMakesRoom(t *testing.T) {
	b := handshake.NewBound(2)
	var conns [4]net.Conn
	var done [4]func()
	for i := range conns {
		conns[i], _ = net.Pipe()
		if i == 2 {
			done[0]() // it has shown its certificate: nobody may close it
		}
		done[i] = b.Begin(conns[i])
	}
	for i, want := range [4]bool{false, true, false, false} {
		if got := closed(conns[i]); got != want {
			t.Errorf("connection %d is closed: %v, want %v", i, got, want)
		}
		done[i]()
		done[i]()
	}
}

// closed reports whether an end of a pipe is closed here.
func closed(c net.Conn) bool { return errors.Is(c.SetDeadline(time.Time{}), io.ErrClosedPipe) }
