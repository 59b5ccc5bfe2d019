package benchmark

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	"github.com/undertone-fl/undertone/simulations/cluster"
)

// reference is what gRPC itself does here: a server that does nothing, with a
// node's certificate and in a process of its own as a node is, and as many
// clients.
type reference struct {
	server *exec.Cmd
	conns  []*grpc.ClientConn
}

const (
	emptyMethod = "/undertone.benchmark.Reference/Empty"
	sinkMethod  = "/undertone.benchmark.Reference/Sink"
)

var sinkDesc = grpc.StreamDesc{StreamName: "Sink", ClientStreams: true, Handler: sink}

func sink(_ any, stream grpc.ServerStream) error {
	var m wrapperspb.BytesValue
	for {
		if err := stream.RecvMsg(&m); errors.Is(err, io.EOF) {
			return stream.SendMsg(&emptypb.Empty{})
		} else if err != nil {
			return err
		}
	}
}

// ServeReference is the reference's process. It prints its address, and serves
// until it is killed.
func ServeReference(identityDir string, out io.Writer) error {
	bearer, err := identity.Load(identity.In(identityDir))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, l.Addr()); err != nil {
		return err
	}
	server := grpc.NewServer(grpc.Creds(grpctls.Server(bearer, identity.Client)))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "undertone.benchmark.Reference", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Empty", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(emptypb.Empty)
			return in, decode(in)
		}}},
		Streams: []grpc.StreamDesc{sinkDesc},
	}, nil)
	return server.Serve(l)
}

func newReference(c *cluster.Cluster, command []string, clients int) (*reference, error) {
	dir, err := c.Place(identity.Node, "reference", "127.0.0.1")
	if err != nil {
		return nil, err
	}
	r := &reference{server: exec.Command(command[0], append(command[1:len(command):len(command)], dir)...)}
	out, err := r.server.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := r.server.Start(); err != nil {
		return nil, err
	}
	var address string
	if _, err := fmt.Fscanln(out, &address); err != nil {
		return nil, fmt.Errorf("the reference does not start: %w", err)
	}
	for i := range clients {
		b, err := c.Bearer(identity.Client, fmt.Sprintf("client-%d", i))
		if err != nil {
			return nil, err
		}
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(grpctls.Client(b)))
		if err != nil {
			return nil, err
		}
		r.conns = append(r.conns, conn)
	}
	// Handshakes are no part of what is measured.
	var g errgroup.Group
	for _, conn := range r.conns {
		g.Go(func() error {
			return conn.Invoke(context.Background(), emptyMethod, &emptypb.Empty{}, new(emptypb.Empty))
		})
	}
	return r, g.Wait()
}

func (r *reference) close() {
	for _, conn := range r.conns {
		conn.Close()
	}
	r.server.Process.Kill()
	r.server.Wait()
}

// calls returns the rate of empty calls, every client calling in a loop.
func (r *reference) calls(ctx context.Context, d time.Duration) (perSecond float64, err error) {
	var total atomic.Int64
	var stop atomic.Bool
	var wait sync.WaitGroup
	var failed atomic.Pointer[error]
	begin := time.Now()
	for _, conn := range r.conns {
		wait.Go(func() {
			in, out := &emptypb.Empty{}, new(emptypb.Empty)
			for !stop.Load() {
				if err := conn.Invoke(ctx, emptyMethod, in, out); err != nil {
					failed.Store(&err)
					return
				}
				total.Add(1)
			}
		})
	}
	time.Sleep(d)
	stop.Store(true)
	wait.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(total.Load()) / seconds(time.Since(begin)), nil
}

// stream returns the bytes a second of one stream a client, size bytes each in
// pieces.
func (r *reference) stream(ctx context.Context, size int) (perSecond float64, err error) {
	var g errgroup.Group
	begin := time.Now()
	for _, conn := range r.conns {
		g.Go(func() error {
			stream, err := conn.NewStream(ctx, &sinkDesc, sinkMethod)
			if err != nil {
				return err
			}
			m := &wrapperspb.BytesValue{}
			chunk := make([]byte, piece)
			for left := size; left > 0; left -= len(m.Value) {
				m.Value = chunk[:min(left, piece)]
				if err := stream.SendMsg(m); err != nil {
					return err
				}
			}
			if err := stream.CloseSend(); err != nil {
				return err
			}
			return stream.RecvMsg(new(emptypb.Empty))
		})
	}
	err = g.Wait()
	return float64(size) * float64(len(r.conns)) / seconds(time.Since(begin)), err
}
