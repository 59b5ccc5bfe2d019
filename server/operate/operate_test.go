package operate_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/grpc"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"

	"github.com/undertone-fl/undertone/server/metrics"
	"github.com/undertone-fl/undertone/server/operate"
)

func TestReadiness(t *testing.T) {
	var why []string
	s := operate.NewServer(func() []string { return why }, metrics.New().Registry, slog.New(slog.DiscardHandler))
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		s.Handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	if code, body := get("/readyz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("ready: %d %q", code, body)
	}
	why = []string{"no leader", "log is being replayed"}
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || body != "no leader\nlog is being replayed\n" {
		t.Errorf("not ready: %d %q", code, body)
	}
	if code, _ := get("/livez"); code != http.StatusOK {
		t.Errorf("alive: %d", code)
	}
	if code, _ := get("/"); code != http.StatusNotFound {
		t.Errorf("elsewhere: %d", code)
	}
}

func TestEndpoints(t *testing.T) {
	for endpoint, ok := range map[string]bool{
		"localhost:4317": true, "http://localhost:4317": true, "https://otel.example:4317": true,
		"localhost": false, ":4317": false, "ftp://localhost:4317": false, "http://localhost:4317/v1/traces": false, "http://%": false,
	} {
		traces, err := operate.NewTraces(t.Context(), endpoint, "node-0", "test")
		if ok != (err == nil) || err != nil && !errors.Is(err, operate.ErrEndpoint) {
			t.Errorf("%s: %v", endpoint, err)
		}
		if err == nil {
			_ = traces.Stop(t.Context())
		}
	}
}

// received is a collector of traces.
type received struct {
	collector.UnimplementedTraceServiceServer
	spans chan string
}

func (r received) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	for _, resource := range req.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, span := range scope.Spans {
				r.spans <- span.Name
			}
		}
	}
	return new(collector.ExportTraceServiceResponse), nil
}

func TestTraces(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	r := received{spans: make(chan string, 1)}
	collector.RegisterTraceServiceServer(s, r)
	go func() { _ = s.Serve(l) }() // until Stop
	defer s.Stop()

	traces, err := operate.NewTraces(t.Context(), l.Addr().String(), "node-0", "test")
	if err != nil {
		t.Fatal(err)
	}
	_, span := traces.Provider.Tracer("test").Start(t.Context(), "commit batch")
	span.End()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := traces.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if name := <-r.spans; name != "commit batch" {
		t.Errorf("the collector got %q", name)
	}
}
