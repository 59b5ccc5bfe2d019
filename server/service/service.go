// Package service answers clients, operators and auditors over grpc.
//
// Who calls is known from the certificate: a client can only act as itself, and
// every method names the roles that may call it (guard.go). Whatever is refused
// is refused with a reason (package refusal) and counted by it.
//
// # What a hostile client costs
//
// Its requests are limited by a rate, its connections and streams by a number,
// its messages by a size, its uploads by a time; memory is reserved for bytes
// that have arrived, never for bytes that were announced; a panic ends a request
// and not the server. All limits are per identity, so the others notice nothing.
package service

import (
	"context"
	"io"
	"log/slog"
	"net"
	"time"

	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	rpc "github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server/board"
	"github.com/undertone-fl/undertone/server/ingest"
	"github.com/undertone-fl/undertone/server/internal/quota"
	"github.com/undertone-fl/undertone/server/metrics"
	"github.com/undertone-fl/undertone/server/notary"
	"github.com/undertone-fl/undertone/server/replication"
)

// Node is the replica that answers come from and changes go through.
type Node interface {
	ingest.Node
	Barrier(ctx context.Context) (index uint64, err error)
	Members(ctx context.Context) ([]replication.Member, error)
	RemoveNode(ctx context.Context, name string) error
	PromoteNode(ctx context.Context, name string) error
	TransferLeadership(ctx context.Context, to string) error
	Backup(ctx context.Context, w io.Writer) error
}

// Config of a Service.
type Config struct {
	Name        string                           // of this node
	Credentials credentials.TransportCredentials // TLS that verifies certificates
	ClientRate  float64                          // requests a second of one caller
	ClientBurst int
	// Connections is how many there may be, of everybody; 0: 32,768.
	Connections int
	// UploadTime is how long an upload may take, beside what its size takes at
	// 64 KiB a second; 0: 30 seconds.
	UploadTime time.Duration
	// Links are to this node's pages, nil if it serves none.
	Links   Links
	Logger  *slog.Logger
	Metrics *metrics.Metrics
	Options []grpc.ServerOption // further ones, for traces
}

// Service is the grpc server.
type Service struct {
	config Config
	node   Node
	board  *board.Board
	ingest *ingest.Ingest
	notary *notary.Notary
	server *grpc.Server

	stopping chan struct{} // closed by Stop: those who wait for work go
}

const (
	// maxMessage bounds a request: a small contribution, a piece of a large one,
	// or a job's specification.
	maxMessage = 512 << 10
	// pieceSize of what is streamed to a caller.
	pieceSize = 256 << 10
	// maxStreams is how many requests a connection may have open.
	maxStreams = 32
	// MaxConnections is how many connections there may be at the most, of everybody.
	MaxConnections = 1 << 15
	// maxHandshakes is how many of them may have shown no certificate, and
	// handshakeTime what each may take for that.
	maxHandshakes = 1024
	handshakeTime = 10 * time.Second
	// window is what a stream, and a connection, may send ahead: some pieces.
	streamWindow, connectionWindow = 1 << 20, 2 << 20
)

// New returns a service; see Serve.
func New(n Node, b *board.Board, in *ingest.Ingest, ledger *notary.Notary, c Config) *Service {
	if c.UploadTime == 0 {
		c.UploadTime = 30 * time.Second
	}
	if c.Connections == 0 {
		c.Connections = MaxConnections
	}
	s := &Service{config: c, node: n, board: b, ingest: in, notary: ledger, stopping: make(chan struct{})}
	s.server = grpc.NewServer(append([]grpc.ServerOption{
		grpc.Creds(newGate(c)),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.ForceServerCodecV2(s.codec()),
		grpc.StatsHandler(oversized{s}),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.ConnectionTimeout(handshakeTime),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connectionWindow),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle:     10 * time.Minute,
			MaxConnectionAge:      2 * time.Hour, // so that a certificate is shown again, and half a message waits no longer
			MaxConnectionAgeGrace: 5 * time.Minute,
			Time:                  time.Minute,
			Timeout:               20 * time.Second,
		}),
		grpc.WaitForHandlers(true),
	}, c.Options...)...)
	rpc.RegisterParticipantServiceServer(s.server, &participant{Service: s, polls: atATime{quota.New(mostWaiting), "polls waiting"}})
	rpc.RegisterOperatorServiceServer(s.server, &operator{Service: s})
	rpc.RegisterLedgerServiceServer(s.server, &bookkeeper{Service: s, downloads: atATime{quota.New(mostDownloads), "downloads of the ledger"}})
	return s
}

// Serve answers on a listener until Stop.
func (s *Service) Serve(l net.Listener) error {
	return s.server.Serve(netutil.LimitListener(l, s.config.Connections))
}

// Stop ends what waits, lets what is being answered finish until ctx is done,
// and closes every connection. It is called once.
func (s *Service) Stop(ctx context.Context) {
	close(s.stopping)
	stop := context.AfterFunc(ctx, s.server.Stop)
	defer stop()
	s.server.GracefulStop()
}

// view looks at a job as applied.
func (s *Service) view(name string, f func(m *rounds.Machine, job *rounds.JobView, index uint64)) error {
	found := false
	s.node.View(func(m *rounds.Machine, index uint64) {
		var job rounds.JobView
		if job, found = m.Job(name); found {
			f(m, &job, index)
		}
	})
	if !found {
		return unknownJob(name)
	}
	return nil
}
