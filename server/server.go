// Package server is one node of a cluster: it takes clients' contributions, runs
// jobs round by round, and keeps its promises with the other nodes.
//
// It puts the parts together, and has no other idea. They are
//
//	replication  the state machine of package rounds, the same on every node
//	ingest       contributions, added up and committed in batches
//	driver       what the leader does: open, close, advance, release
//	notary       the ledger under signed checkpoints
//	service      grpc for clients, operators and auditors
//	board        what is open, for all who wait for it
//	pages        what people look at, in a browser
//	operate      /livez, /readyz, /metrics, traces
//	refusal      every no, with its reason
//
// and DESIGN.md follows one contribution through them. Embed a server with New
// and Run; the undertone command does no more.
package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	"github.com/undertone-fl/undertone/server/board"
	"github.com/undertone-fl/undertone/server/driver"
	"github.com/undertone-fl/undertone/server/ingest"
	"github.com/undertone-fl/undertone/server/metrics"
	"github.com/undertone-fl/undertone/server/notary"
	"github.com/undertone-fl/undertone/server/operate"
	"github.com/undertone-fl/undertone/server/pages"
	"github.com/undertone-fl/undertone/server/replication"
	"github.com/undertone-fl/undertone/server/service"
)

// Server is a node.
type Server struct {
	config Config
	log    *slog.Logger
	bearer *identity.Bearer
	keys   *notary.Keys

	api, http, web net.Listener // http and web, which pages are on, are nil if they are off
	nodeAddr       string

	connections int // of clients, at the most

	node    *replication.Node
	older   func() []string
	board   *board.Board
	ingest  *ingest.Ingest
	driver  *driver.Driver
	notary  *notary.Notary
	pages   *pages.Pages // nil if they are off
	service *service.Service
	metrics *metrics.Metrics
	traces  operate.Traces

	assembled, stopping atomic.Bool
}

// New opens the data directory and the listeners, so that what is wrong with
// them is said at once: a directory of a newer version, a port in use, a
// certificate of another role, a full disk. A mistake in Config is a *ConfigError.
func New(c Config) (_ *Server, err error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	bearer, err := identity.LoadWithLogger(c.Identity, c.Logger)
	if err != nil {
		return nil, &ConfigError{"identity", err.Error()}
	}
	if err := c.nameAfter(bearer.Identity()); err != nil {
		return nil, err
	}
	keys, err := notary.LoadKeys(c.LedgerKeys)
	switch {
	case errors.Is(err, notary.ErrNoFile):
		return nil, &ConfigError{"ledger_keys", fmt.Sprintf("%v: put it at %s", err, c.besideCertificate())}
	case err != nil:
		return nil, &ConfigError{"ledger_keys", err.Error()}
	}
	most, err := connections(openFiles())
	if err != nil {
		return nil, &ConfigError{"api", err.Error()}
	}
	if c.Fatal == nil {
		c.Fatal = func(err error) {
			fmt.Fprintln(os.Stderr, "undertone:", err)
			os.Exit(1)
		}
	}
	s := &Server{config: c, log: c.Logger.With("node", c.Name), bearer: bearer, keys: keys, connections: most, traces: operate.NoTraces()}
	if c.Traces != "" {
		if s.traces, err = operate.NewTraces(context.Background(), c.Traces, c.Name, c.Version); err != nil {
			return nil, &ConfigError{"traces", err.Error()}
		}
	}

	var opened []net.Listener
	defer func() {
		if err != nil {
			for _, l := range opened {
				l.Close()
			}
		}
	}()
	listen := func(field, address string) net.Listener {
		if err != nil {
			return nil
		}
		var l net.Listener
		if l, err = net.Listen("tcp", address); err != nil {
			err = &ConfigError{field, listenProblem(address, err)}
			return nil
		}
		opened = append(opened, l)
		return l
	}
	node := listen("node", c.Node)
	s.api = listen("api", c.API)
	if c.HTTP != Off {
		s.http = listen("http", c.HTTP)
	}
	if c.Pages != Off {
		s.web = listen("pages", c.Pages)
	}
	if err != nil {
		return nil, err
	}
	s.nodeAddr = node.Addr().String()

	apiHost := c.APIHost
	if apiHost == "" {
		apiHost = reachable(s.api.Addr(), c.Advertise)
	}
	s.node, err = replication.Open(replication.Config{
		Name:       c.Name,
		Cluster:    c.Cluster,
		Dir:        c.Dir,
		Listener:   node,
		Advertise:  c.Advertise,
		APIAddress: apiHost,
		Version:    c.Version,
		Bearer:     bearer,
		Expect:     c.Expect,
		Peers:      c.Peers,
		Learner:    c.Learner,
		Heartbeat:  c.Heartbeat,
		Logger:     s.log,
		NotReady:   s.ownNotReady,
		Fatal:      c.Fatal,
	})
	if err != nil {
		return nil, err
	}

	s.assemble(s.node)
	s.assembled.Store(true)
	return s, nil
}

// replica is what the parts need of the node.
type replica interface {
	service.Node
	board.Node
	Older() []string
}

// assemble puts the parts on a replica.
func (s *Server) assemble(n replica) {
	c := &s.config
	s.older = n.Older
	s.metrics = metrics.New()
	s.metrics.Watch(n)
	s.metrics.WatchLog(s.node.Stats)
	tracer := s.traces.Provider.Tracer("github.com/undertone-fl/undertone/server")
	s.board = board.New(n)
	s.notary = notary.New(n, s.keys)
	s.metrics.WatchLedger(s.notary)
	s.ingest = ingest.New(n, ingest.Config{Limit: c.Inflight, Logger: s.log, Metrics: s.metrics, Tracer: tracer})
	first := s.keys.First()
	s.driver = driver.New(n, s.board, driver.Config{
		Logger: s.log, Metrics: s.metrics, Tracer: tracer,
		Ledger: driver.Ledger{Origin: first.Origin, Key: first.Public},
		Signs:  s.signs,
	})
	var options []grpc.ServerOption
	if c.Traces != "" {
		options = append(options, grpc.StatsHandler(otelgrpc.NewServerHandler(
			otelgrpc.WithTracerProvider(s.traces.Provider), otelgrpc.WithPropagators(propagation.TraceContext{}))))
	}
	var links service.Links
	if s.web != nil {
		host := c.PagesHost
		if host == "" {
			host = reachable(s.web.Addr(), c.Advertise)
		}
		s.pages = pages.New(pages.Config{
			Name: c.Name, Host: host, Bearer: s.bearer,
			Node: n, Board: s.board, Ledger: s.notary, Stats: s.node.Stats, NotReady: s.NotReady, Older: n.Older,
			Disk:     func() (int64, error) { return diskUsed(c.Dir) },
			Panicked: s.metrics.Panics.Inc,
			Logger:   s.log,
		})
		links = s.pages.Links()
	}
	s.service = service.New(n, s.board, s.ingest, s.notary, service.Config{
		Name:        c.Name,
		Credentials: grpctls.Server(s.bearer, identity.Client, identity.Operator, identity.Auditor),
		ClientRate:  c.ClientRate,
		ClientBurst: c.ClientBurst,
		Connections: s.connections,
		Links:       links,
		Logger:      s.log,
		Metrics:     s.metrics,
		Options:     options,
	})
}

// diskUsed is the size of the files in a directory. Those that go while it looks do not
// count.
func diskUsed(dir string) (bytes int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = e.Info(); err == nil {
				bytes += info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return bytes, err
}

// listenProblem says in a few words why an address cannot be listened on.
func listenProblem(address string, err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Sprintf("%s is in use by another process", address)
	case errors.Is(err, syscall.EACCES):
		return fmt.Sprintf("%s may not be listened on by this user", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Sprintf("%s is no address of this machine", address)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	return fmt.Sprintf("%s: %v", address, err)
}

// reachable is where others reach a listener: at its own address or, if it
// listens on all of them, at the host that is advertised or this machine's name.
func reachable(l net.Addr, advertised string) string {
	host, port, err := net.SplitHostPort(l.String())
	if err != nil {
		return l.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		if host, _, err = net.SplitHostPort(advertised); err != nil || host == "" {
			if host, err = os.Hostname(); err != nil {
				host = "localhost"
			}
		}
	}
	return net.JoinHostPort(host, port)
}

// How long an end may take: contributions that wait are committed, then requests
// are answered, then leadership is handed on.
const (
	drainTime  = 5 * time.Second
	answerTime = 5 * time.Second
	closeTime  = 10 * time.Second
)

// Run serves until ctx is done; then it hands leadership on, finishes what it has
// begun, and returns nil. It is called once.
func (s *Server) Run(ctx context.Context) error {
	s.log.Info("serving", "api", s.api.Addr().String(), "peers", s.nodeAddr)
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var inner errgroup.Group // the parts that follow the node
	inner.Go(func() error { s.board.Run(running); return nil })
	inner.Go(func() error { s.driver.Run(running); return nil })
	inner.Go(func() error { s.tell(running); return nil })

	outer, failed := errgroup.WithContext(ctx)
	outer.Go(func() error { return s.service.Serve(s.api) })
	if s.http != nil {
		web := operate.NewServer(s.NotReady, s.metrics.Registry, s.log)
		outer.Go(func() error {
			if err := web.Serve(netutil.LimitListener(s.http, httpConnections)); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		defer web.Close()
	}

	if s.pages != nil {
		inner.Go(func() error { s.pages.Run(running); return nil })
		outer.Go(func() error { return s.pages.Serve(s.web) })
	}

	<-failed.Done() // ctx is done, or a listener broke
	s.stopping.Store(true)
	s.log.Info("stopping")
	within(drainTime, s.ingest.Drain)
	within(answerTime, s.service.Stop)
	if s.pages != nil {
		within(answerTime, s.pages.Close)
	}
	cancel()
	_ = inner.Wait()
	var closed error
	within(closeTime, func(ctx context.Context) { closed = s.node.Close(ctx) })
	within(drainTime, func(ctx context.Context) {
		if err := s.traces.Stop(ctx); err != nil {
			s.log.Warn("traces are lost", "err", err)
		}
	})
	if ctx.Err() == nil {
		return outer.Wait() // what broke
	}
	return closed
}

func within(d time.Duration, f func(context.Context)) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	f(ctx)
}

// Addresses are where it listens, with the ports that were chosen for ":0".
func (s *Server) Addresses() (api, node, http string) {
	if s.http != nil {
		http = s.http.Addr().String()
	}
	return s.api.Addr().String(), s.nodeAddr, http
}

// PagesAddress is where it serves the pages, empty if they are off.
func (s *Server) PagesAddress() string {
	if s.web == nil {
		return ""
	}
	return s.web.Addr().String()
}

// NotReady says, part by part, why the node cannot serve; nil if it can.
func (s *Server) NotReady() []string {
	return append(s.node.NotReady(), s.ownNotReady()...)
}

func (s *Server) ownNotReady() []string {
	switch {
	case s.stopping.Load():
		return []string{"server: stopping"}
	case !s.assembled.Load(): // others ask as soon as the node is open
		return []string{"server: starting"}
	case s.waitsForUpgrades() != nil:
		return nil // as ready as the release that the others run
	}
	return s.notary.NotReady()
}

// signs says why the node cannot sign the ledger.
func (s *Server) signs() error {
	_, err := s.notary.Head()
	return err
}

// waitsForUpgrades names the members for whose sake there is no ledger yet, nil if there
// is one, or nobody stands in its way. In the middle of a rolling upgrade that is how it
// has to be: a node that were not ready for it would keep the next one from its turn.
func (s *Server) waitsForUpgrades() []string {
	if errors.Is(s.signs(), notary.ErrNoLedger) {
		return s.older()
	}
	return nil
}

// tellPause is how often a node looks whether there is something to tell of itself.
const tellPause = time.Second

// tell logs, once for each change, what the node is not ready for, and whom its ledger
// waits for.
func (s *Server) tell(ctx context.Context) {
	tick := time.NewTicker(tellPause)
	defer tick.Stop()
	var notReady, older []string
	for first := true; !s.stopping.Load(); first = false {
		if now := s.NotReady(); first || !slices.Equal(now, notReady) {
			if notReady = now; len(now) == 0 {
				s.log.Info("ready")
			} else {
				s.log.Warn("not ready", "why", strings.Join(now, "; "))
			}
		}
		if now := s.waitsForUpgrades(); !slices.Equal(now, older) {
			if older = now; len(now) > 0 {
				s.log.Info("there is no ledger until all members read one: upgrade them", "older", strings.Join(now, ", "))
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
