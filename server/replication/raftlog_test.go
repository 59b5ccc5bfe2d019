package replication

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// raft prints whole messages when it meets one that it does not expect; what
// clients sent stays out of the log all the same.
func TestRaftLogHasNoPayload(t *testing.T) {
	var out bytes.Buffer
	l := newRaftLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	request := &raft.AppendEntriesRequest{Entries: []*raft.Log{{Data: []byte("secret")}}}
	l.Error("got unexpected command", "command", hclog.Fmt("%#v", request))
	l.With("request", request).Named("net").Warn("expected heartbeat", "got", request, "entry", *request.Entries[0], "data", []byte("secret"))
	l.Info("updating configuration", "servers", hclog.Fmt("%+v", []raft.Server{{ID: "a", Address: "host:1"}}), "peer", raft.Server{ID: "b"})
	l.Trace("too fine")
	got := out.String()
	if strings.Contains(got, "secret") || strings.Contains(got, "115 101") || strings.Contains(got, "0x73") {
		t.Errorf("a payload in the log:\n%s", got)
	}
	for _, want := range []string{"level=ERROR", "level=WARN", "level=INFO", "host:1", "AppendEntriesRequest"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in the log:\n%s", want, got)
		}
	}
	if strings.Contains(got, "too fine") {
		t.Errorf("trace lines at level debug:\n%s", got)
	}
}
