// Package pages is what a node shows to people: the auditor's page, the operator's, and
// one for each job, over HTTPS on a port of their own. Nothing can be done there but
// read.
//
// # Who gets in
//
// Operators and auditors, who see the same: with the certificate that they also call the
// node with, or with a link that they had made with it (Links). Everybody else gets one
// page that says how to get in, whatever they ask for.
//
// # Policy
//
// A page works without scripts, and asks for nothing but what this node serves; every
// table on it is there as CSV and JSON, all of its rows (FORMAT.md has the addresses).
// What a page says of privacy is the report of the ledger that this node would hand out,
// verified anew; it is the node's word all the same, so the page begins with how to
// verify it elsewhere.
package pages

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/server/board"
	"github.com/undertone-fl/undertone/server/internal/handshake"
	"github.com/undertone-fl/undertone/server/internal/quota"
	"github.com/undertone-fl/undertone/server/replication"
)

// Node is the replica that is shown.
type Node interface {
	View(func(m *rounds.Machine, index uint64))
	Barrier(ctx context.Context) (index uint64, err error)
	Members(ctx context.Context) ([]replication.Member, error)
}

// Config of Pages. All fields are needed.
type Config struct {
	Name   string // of the node
	Host   string // host:port by which browsers reach the pages
	Bearer *identity.Bearer
	Node   Node
	Board  *board.Board
	Ledger Ledger
	Stats  func() replication.Stats
	// NotReady says why the node cannot serve, part by part.
	NotReady func() []string
	// Older names members of an older release, for whose sake there may be no ledger yet.
	Older func() []string
	// Disk is the size of the data directory, in bytes.
	Disk func() (int64, error)
	// Panicked is told of a request that ended in a panic.
	Panicked func()
	Logger   *slog.Logger
}

// Pages are a node's. See Serve.
type Pages struct {
	config    Config
	links     *Links
	books     *books
	meter     *meter
	server    *http.Server
	strange   *handshake.Bound // connections of those who may see nothing
	seats     *seats           // of those who may
	downloads *quota.Quota     // of the whole ledger
	handler   http.Handler
	now       func() time.Time
}

const (
	// maxStrangers is how many connections there may be of those who were not let in,
	// and maxOfOne of each who was: the oldest makes room for the next. maxConnections
	// is how many of everybody.
	maxStrangers   = 48
	maxOfOne       = 8
	maxConnections = 96
	// maxDownloads is how many of the whole ledger one identity may have at a time.
	maxDownloads = 2
)

// New returns a node's pages.
func New(c Config) *Pages {
	p := &Pages{
		config:    c,
		links:     newLinks(c.Host),
		books:     &books{ledger: c.Ledger},
		meter:     newMeter(c.Node, c.Stats, c.NotReady),
		strange:   handshake.NewBound(maxStrangers),
		seats:     &seats{of: make(map[identity.Identity][]*seat)},
		downloads: quota.New(maxDownloads),
		now:       time.Now,
	}
	p.handler = p.routes()
	p.server = &http.Server{
		Handler:           p,
		TLSConfig:         c.Bearer.WebTLS(),
		ErrorLog:          slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, seatKey{}, c)
		},
	}
	return p
}

// Links makes links to these pages.
func (p *Pages) Links() *Links { return p.links }

// Run measures what pages show of the time that has passed, until ctx is done.
func (p *Pages) Run(ctx context.Context) { p.meter.run(ctx) }

// Serve answers on a listener until Close.
func (p *Pages) Serve(l net.Listener) error {
	err := p.server.ServeTLS(&guarded{netutil.LimitListener(l, maxConnections), p}, "", "")
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close lets what is being answered finish until ctx is done.
func (p *Pages) Close(ctx context.Context) {
	if p.server.Shutdown(ctx) != nil {
		p.server.Close()
	}
}
