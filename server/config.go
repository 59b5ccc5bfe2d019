package server

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server/notary"
)

// Config of a node; the zero value of a field is its default. The JSON names
// are those of the configuration file, with underscores for the dashes of flags.
type Config struct {
	Name    string `json:"name"`    // the certificate's name, which is the default
	Cluster string `json:"cluster"` // "undertone"
	Dir     string `json:"data_dir"`

	API       string `json:"api"`        // listen address for clients, operators, auditors: ":7300"
	Node      string `json:"node"`       // listen address for other nodes: ":7301"
	HTTP      string `json:"http"`       // listen address of /livez, /readyz, /metrics: "127.0.0.1:7302"; "off"
	Pages     string `json:"pages"`      // listen address of the web pages: "127.0.0.1:7303"; "off"
	Advertise string `json:"advertise"`  // host:port where other nodes reach Node
	APIHost   string `json:"api_host"`   // host:port where clients reach API, for others to be told
	PagesHost string `json:"pages_host"` // host:port where browsers reach Pages, for links

	Identity identity.Files `json:"identity"`
	// LedgerKeys are files of secret keys of the cluster's ledger, see notary.LoadKeys:
	// the same on every node; ledger.key beside the certificate, if it is there. With
	// the first a new cluster begins its ledger.
	LedgerKeys []string `json:"ledger_keys"`

	Expect  int      `json:"bootstrap_expect"` // form a new cluster of so many nodes; 0: join one
	Peers   []string `json:"peers"`            // node addresses to form a cluster with, or to join
	Learner bool     `json:"learner"`          // join without a vote

	Heartbeat time.Duration `json:"-"` // failover takes a few of them; 0: what measured best, see replication.Config
	// ClientRate is the most requests a second of one client, 100, ClientBurst how
	// many at once, 200; Inflight the bytes of contributions that wait to be
	// committed, 256 MiB.
	ClientRate  float64 `json:"client_rate"`
	ClientBurst int     `json:"client_burst"`
	Inflight    int64   `json:"inflight_bytes"`
	// Traces is where OpenTelemetry traces go, an OTLP gRPC endpoint: host:port,
	// or https://host:port over TLS; empty: nowhere.
	Traces string `json:"traces"`

	Version string       `json:"-"`
	Logger  *slog.Logger `json:"-"`
	// Fatal is told why the node may not go on, and does not return; nil: one
	// line on stderr and exit status 1.
	Fatal func(error) `json:"-"`
}

// Off as an address is no listener.
const Off = "off"

// Defaults.
const (
	defaultCluster     = "undertone"
	defaultAPI         = ":7300"
	defaultNode        = ":7301"
	defaultHTTP        = "127.0.0.1:7302"
	defaultPages       = "127.0.0.1:7303"
	defaultClientRate  = 100
	defaultClientBurst = 200
	defaultInflight    = 256 << 20
	leastInflight      = 1 << 20
)

// ConfigError is a mistake in a Config; Field is its JSON name.
type ConfigError struct{ Field, Problem string }

func (e *ConfigError) Error() string { return e.Field + ": " + e.Problem }

// complete puts defaults in and checks what needs nothing opened.
func (c *Config) complete() error {
	fill(&c.Cluster, defaultCluster)
	fill(&c.API, defaultAPI)
	fill(&c.Node, defaultNode)
	fill(&c.HTTP, defaultHTTP)
	fill(&c.Pages, defaultPages)
	fill(&c.ClientRate, defaultClientRate)
	fill(&c.ClientBurst, defaultClientBurst)
	fill(&c.Inflight, defaultInflight)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}

	wrong := func(field, format string, args ...any) error {
		return &ConfigError{field, fmt.Sprintf(format, args...)}
	}
	switch {
	case c.Dir == "":
		return wrong("data_dir", "missing")
	case c.Identity.Certificate == "" || c.Identity.Key == "" || c.Identity.Authority == "":
		return wrong("identity", "a certificate, a key and an authority are needed")
	case c.Expect < 0:
		return wrong("bootstrap_expect", "%d is negative", c.Expect)
	case c.Expect > 1 && len(c.Peers) == 0:
		return wrong("peers", "missing: %d nodes cannot find each other", c.Expect)
	case c.Learner && c.Expect > 0:
		return wrong("learner", "a learner joins a cluster, and cannot form one (bootstrap_expect)")
	case c.Heartbeat != 0 && (c.Heartbeat < 20*time.Millisecond || c.Heartbeat > time.Minute):
		return wrong("heartbeat", "%v is not between 20ms and 1m", c.Heartbeat)
	case !(c.ClientRate > 0): // NaN too
		return wrong("client_rate", "%v is not above 0", c.ClientRate)
	case c.ClientBurst < 1:
		return wrong("client_burst", "%d is not above 0", c.ClientBurst)
	case c.Inflight < leastInflight:
		return wrong("inflight_bytes", "%d is below %d", c.Inflight, leastInflight)
	}
	if beside := c.besideCertificate(); len(c.LedgerKeys) == 0 && isThere(beside) {
		c.LedgerKeys = []string{beside}
	}
	addresses := []struct{ field, address string }{{"api", c.API}, {"node", c.Node}}
	if c.HTTP != Off {
		addresses = append(addresses, struct{ field, address string }{"http", c.HTTP})
	}
	if c.Pages != Off {
		addresses = append(addresses, struct{ field, address string }{"pages", c.Pages})
	}
	for _, a := range addresses {
		if _, _, err := net.SplitHostPort(a.address); err != nil {
			return wrong(a.field, "%q is not host:port", a.address)
		}
	}
	reached := []struct{ field, address string }{{"advertise", c.Advertise}, {"api_host", c.APIHost}, {"pages_host", c.PagesHost}}
	for _, p := range c.Peers {
		reached = append(reached, struct{ field, address string }{"peers", p})
	}
	for _, a := range reached {
		if a.address == "" && a.field != "peers" {
			continue
		}
		if host, port, err := net.SplitHostPort(a.address); err != nil || host == "" || port == "" {
			return wrong(a.field, "%q is not host:port", a.address)
		}
	}
	return nil
}

// besideCertificate is where the ledger's key is, unless LedgerKeys say otherwise.
func (c *Config) besideCertificate() string {
	return filepath.Join(filepath.Dir(c.Identity.Certificate), notary.SecretFile)
}

func isThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// nameAfter takes the name that the certificate gives.
func (c *Config) nameAfter(who identity.Identity) error {
	if who.Role != identity.Node {
		return &ConfigError{"identity", fmt.Sprintf("the certificate is that of %v, and a server needs one of a node", who)}
	}
	fill(&c.Name, who.Name)
	if c.Name != who.Name {
		return &ConfigError{"name", fmt.Sprintf("%q is not %q, the name in the certificate", c.Name, who.Name)}
	}
	return nil
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
