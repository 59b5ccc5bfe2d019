package replication

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestIdleStrangers has strangers open more connections than there may be
// handshakes, and say nothing: a node comes in all the same, and at once.
func TestIdleStrangers(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	a := c.place("a").start(expect(1))
	for range 2 * maxHandshakes {
		stranger, err := net.Dial("tcp", a.address)
		if err != nil {
			t.Fatal(err)
		}
		defer stranger.Close()
	}
	// The strangers' own time is over only after two turns of handshakeTimeout.
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	conn, err := a.port.connect(ctx, "a", a.address)
	if err != nil {
		t.Fatalf("a node's connection: %v", err)
	}
	conn.Close()
}

func TestStrangersAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := newStrangers(slog.New(slog.NewTextHandler(&log, nil)))
		for range 100 {
			s.refuse(address("10.0.0.1:1"), errors.New("no certificate"))
		}
		time.Sleep(time.Second)
		s.refuse(address("10.0.0.2:2"), errors.New("no certificate"))
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], "count=1 ") || !strings.Contains(lines[1], "count=100 last=10.0.0.2:2") {
			t.Errorf("101 refusals in two seconds are logged as\n%s", log.String())
		}
	})
}
