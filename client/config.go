package client

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
	"github.com/undertone-fl/undertone/dp/noise"
	"github.com/undertone-fl/undertone/proto/identity"
)

// Config of a Device. Dir is needed, and for syncing Servers, Samples and an
// identity.
type Config struct {
	// Dir is the device's folder, made where there is none. It holds what may
	// neither leak nor be forgotten.
	Dir string
	// Servers are the nodes of one cluster, host:port each; any of them will do.
	Servers []string
	// Identity is the files of the client's certificate, or Bearer what was made
	// of them.
	Identity identity.Files
	Bearer   *identity.Bearer

	// Samples are the user's own.
	Samples Samples

	// Jobs are the names of the jobs to take part in; empty: all that are open.
	// The models of those named are kept up to date also where this device took
	// part in none of their rounds.
	Jobs []string
	// Trust are the trust modes of the jobs to take part in; jobs of another one are
	// declined, and what waits to be sent to them stays. Empty is DefaultTrust.
	Trust []rounds.Trust
	// Accept declines a job by an error, after its claims were found to hold; nil
	// accepts all.
	Accept func(*rounds.Spec) error

	// LedgerKey is the public key of the servers' ledger, as text, or one that has
	// handed on to it since. Empty: the first that is shown is trusted, and kept.
	//
	// A key of another origin than that of the ledger on record is its owner's decision
	// to follow another ledger from now on, such as a cluster begins that was restored
	// from a backup older than what was seen. What was seen of the former one stays on
	// record, as do all charges.
	LedgerKey string

	// Cap bounds what the device discloses, over all jobs and for ever; zero is
	// DefaultCap.
	Cap Cap

	// Library shares specifications and models among the devices of one process;
	// nil: the device keeps its own, in Dir.
	Library *Library
	// Patience is how long Sync goes on trying while no server answers. Default a
	// minute.
	Patience time.Duration
	// Wait is how long Run lets a server wait for something to be open, at most a
	// minute. Default 50 s.
	Wait time.Duration
	// Report is told of every Sync that Run makes.
	Report func(*Summary)
	Logger *slog.Logger // nil: none

	// Offline opens the folder to predict and look only, also while another
	// Device has it open.
	Offline bool

	// Seeded makes the noise repeatable, which protects nobody: for simulations.
	// nil, as on any real device, draws it from the operating system.
	Seeded func(job string, round, attempt int) *noise.Seeded

	// before is the tests' way to fail or die at a step of files.
	before func(step, path string) error
}

// DefaultTrust is every mode in which noise is added before a contribution leaves the
// device. With rounds.TrustCentral none is: the servers see it as it is.
func DefaultTrust() []rounds.Trust {
	return []rounds.Trust{rounds.TrustDistributed, rounds.TrustLocal}
}

// Cap is an amount of privacy loss: (Epsilon, Delta)-DP towards everyone who sees
// what servers release, each job under its own adjacency.
type Cap struct {
	Epsilon float64 `json:"epsilon"`
	Delta   float64 `json:"delta"`
}

// DefaultCap is what a device discloses at most if it is not told otherwise.
var DefaultCap = Cap{Epsilon: 8, Delta: 1e-6}

// budget is the cap as Gaussian releases are charged to it.
func (c Cap) budget() (accounting.NanoRho, error) {
	b, err := accounting.GaussianBudget(c.Epsilon, c.Delta)
	if err != nil {
		return 0, &ConfigError{"cap", fmt.Sprintf("epsilon %v, delta %v: %v", c.Epsilon, c.Delta, err)}
	}
	return b, nil
}

const (
	defaultPatience = time.Minute
	defaultWait     = 50 * time.Second
)

// withDefaults fails with a *ConfigError.
func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" {
		return c, &ConfigError{"dir", "no folder is named"}
	}
	if c.Cap == (Cap{}) {
		c.Cap = DefaultCap
	}
	if c.Patience == 0 {
		c.Patience = defaultPatience
	}
	if c.Wait == 0 {
		c.Wait = defaultWait
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Report == nil {
		c.Report = func(*Summary) {}
	}
	if c.Accept == nil {
		c.Accept = func(*rounds.Spec) error { return nil }
	}
	if len(c.Trust) == 0 {
		c.Trust = DefaultTrust()
	}
	for _, mode := range c.Trust {
		if !slices.Contains([]rounds.Trust{rounds.TrustDistributed, rounds.TrustCentral, rounds.TrustLocal}, mode) {
			return c, &ConfigError{"trust", fmt.Sprintf("there is no mode %q", mode)}
		}
	}
	if c.LedgerKey = strings.TrimSpace(c.LedgerKey); c.LedgerKey != "" {
		if _, err := ledger.ParseKey(c.LedgerKey); err != nil {
			return c, &ConfigError{"ledger key", err.Error()}
		}
	}
	if c.Wait < 0 || c.Wait > time.Minute {
		return c, &ConfigError{"wait", fmt.Sprintf("%v is not from 0 to a minute", c.Wait)}
	}
	if c.Patience < 0 {
		return c, &ConfigError{"patience", fmt.Sprintf("%v is negative", c.Patience)}
	}
	if c.Offline {
		return c, nil
	}
	if err := checkAddresses(c.Servers); err != nil {
		return c, err
	}
	if c.Samples == nil {
		return c, &ConfigError{"samples", "there are none; a device without any has empty ones"}
	}
	if c.Bearer == nil {
		b, err := identity.LoadWithLogger(c.Identity, c.Logger)
		if err != nil {
			return c, err
		}
		c.Bearer = b
	}
	if id := c.Bearer.Identity(); id.Role != identity.Client {
		return c, fmt.Errorf("%w: it is that of %v", ErrForbidden, id)
	}
	return c, nil
}
