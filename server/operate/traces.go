package operate

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Traces is where spans go.
type Traces struct {
	Provider trace.TracerProvider
	// Stop sends what is left.
	Stop func(context.Context) error
}

// NoTraces go nowhere, and cost next to nothing.
func NoTraces() Traces {
	return Traces{noop.NewTracerProvider(), func(context.Context) error { return nil }}
}

// ErrEndpoint says that a trace endpoint has not the form that NewTraces reads.
var ErrEndpoint = errors.New("not host:port, http://host:port or https://host:port")

// NewTraces sends spans to an OTLP endpoint by grpc: host:port or
// http://host:port in the clear, https://host:port over TLS. An endpoint that
// does not answer loses spans and nothing else. Fails with ErrEndpoint.
func NewTraces(ctx context.Context, endpoint, node, version string) (Traces, error) {
	if !strings.Contains(endpoint, "://") {
		endpoint = "http://" + endpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Path != "" || u.Scheme != "http" && u.Scheme != "https" {
		return Traces{}, ErrEndpoint
	}
	if host, port, err := net.SplitHostPort(u.Host); err != nil || host == "" || port == "" {
		return Traces{}, ErrEndpoint
	}
	exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(endpoint))
	if err != nil {
		return Traces{}, err
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "undertone"),
			attribute.String("service.instance.id", node),
			attribute.String("service.version", version),
		)),
	)
	return Traces{provider, provider.Shutdown}, nil
}
