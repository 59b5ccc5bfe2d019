// Package server is one node of a cluster: it takes clients' contributions, runs
// jobs round by round, and keeps its six promises with the other nodes. To be
// documented with what is built.
package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/undertone-fl/undertone/proto/identity"
)

// Config of a node; the zero value of a field is its default. The JSON names
// are those of the configuration file, with underscores for the dashes of flags.
type Config struct {
	Name    string `json:"name"`    // the certificate's name by default
	Cluster string `json:"cluster"` // "undertone"
	Dir     string `json:"data_dir"`

	API       string `json:"api"`       // listen address for clients, operators, auditors: ":7300"
	Node      string `json:"node"`      // listen address for other nodes: ":7301"
	HTTP      string `json:"http"`      // listen address of /livez, /readyz, /metrics: "127.0.0.1:7302"; "off"
	Advertise string `json:"advertise"` // host:port where other nodes reach Node
	APIHost   string `json:"api_host"`  // host:port where clients reach API, for others to be told

	Identity identity.Files `json:"identity"`

	Expect  int      `json:"bootstrap_expect"` // form a new cluster of so many nodes; 0: join one
	Peers   []string `json:"peers"`            // node addresses to form a cluster with, or to join
	Learner bool     `json:"learner"`          // join without a vote

	Heartbeat time.Duration `json:"-"` // default 200ms; failover takes a few of them
	// ClientRate is the most requests a second of one client, ClientBurst how
	// many at once; Inflight the bytes of contributions that wait to be committed.
	ClientRate  float64 `json:"client_rate"`
	ClientBurst int     `json:"client_burst"`
	Inflight    int64   `json:"inflight_bytes"`
	// Traces is where OpenTelemetry traces go, an OTLP gRPC endpoint; empty: nowhere.
	Traces string `json:"traces"`

	Version string       `json:"-"`
	Logger  *slog.Logger `json:"-"`
	// Fatal is told why the node may not go on, and does not return; nil: one
	// line on stderr and exit status 1.
	Fatal func(error) `json:"-"`
}

// Server is a node.
type Server struct{}

// New opens the data directory and the listeners, so that what is wrong with
// them is said at once: a directory of a newer version, a port in use, a
// certificate of another role, a full disk. A mistake in Config is a *ConfigError.
func New(c Config) (*Server, error) { panic("server: to be built") }

// ConfigError is a mistake in a Config; Field is its JSON name.
type ConfigError struct{ Field, Problem string }

func (e *ConfigError) Error() string { return e.Field + ": " + e.Problem }

// Run serves until ctx is done; then it hands leadership on, finishes what it has
// begun, and returns nil.
func (s *Server) Run(ctx context.Context) error { panic("server: to be built") }

// Addresses are where it listens, with the ports that were chosen for ":0".
func (s *Server) Addresses() (api, node, http string) { panic("server: to be built") }

// NotReady says, part by part, why the node cannot serve; nil if it can.
func (s *Server) NotReady() []string { panic("server: to be built") }
