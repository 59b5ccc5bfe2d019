package server_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/proto/identity"
	"github.com/undertone-fl/undertone/proto/identity/grpctls"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	rpc "github.com/undertone-fl/undertone/proto/undertone/v1/undertonev1grpc"
	"github.com/undertone-fl/undertone/server"
	"github.com/undertone-fl/undertone/server/internal/solo"
)

// bare is the reference: a grpc server of the same kind that does nothing.
type bare struct {
	rpc.UnimplementedParticipantServiceServer
}

func (bare) GetSpec(context.Context, *undertonev1.GetSpecRequest) (*undertonev1.GetSpecResponse, error) {
	return new(undertonev1.GetSpecResponse), nil
}

func (bare) SubmitLarge(stream grpc.ClientStreamingServer[undertonev1.SubmitLargeRequest, undertonev1.SubmitLargeResponse]) error {
	for {
		switch _, err := stream.Recv(); {
		case errors.Is(err, io.EOF):
			return stream.SendAndClose(new(undertonev1.SubmitLargeResponse))
		case err != nil:
			return err
		}
	}
}

// bareVariable makes the test binary the reference: it names the directory of a
// node's identity, and the address.
const (
	bareVariable    = "UNDERTONE_TEST_BARE"
	addressVariable = "UNDERTONE_TEST_ADDRESS"
)

func serveBare(files identity.Files, address string) error {
	bearer, err := identity.Load(files)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	s := grpc.NewServer(grpc.Creds(grpctls.Server(bearer, identity.Client)), grpc.MaxConcurrentStreams(32))
	rpc.RegisterParticipantServiceServer(s, bare{})
	return s.Serve(l)
}

// BenchmarkUpdates prints how many contributions of 1.2 KB are acknowledged in a
// second, beside the empty calls that the same connections make to a server that
// does nothing: client load and servers on the same processors, mTLS.
//
//	go test -run '^$' -bench Updates -benchtime 1x ./server
func BenchmarkUpdates(b *testing.B) {
	for _, nodes := range []int{3, 1} {
		b.Run(fmt.Sprint("nodes=", nodes), func(b *testing.B) { benchmarkUpdates(b, nodes) })
	}
}

func benchmarkUpdates(b *testing.B, nodes int) {
	const (
		clients     = 96
		outstanding = 4 // of each
		jobs        = 240
	)
	c := startCluster(b, nodes, func(s *server.Config) { s.ClientRate, s.ClientBurst = 1e6, 1e6 })
	p := solo.Parameters()
	p.Dim = 13
	terms := solo.Terms("bench")
	terms.RoundSize = 1 << 20
	spec := c.openJobs(b, jobs, func(i int) (*rounds.Spec, []byte) {
		terms.Job = fmt.Sprint("job-", i)
		return solo.Spec(b, p, terms)
	})
	payload := pack(spec[0], contribution(spec[0], 1, 1))
	checksum := crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli))
	address := c.startBare(b)
	works := c.open(b, len(spec))

	var servers, references []rpc.ParticipantServiceClient
	for k := range clients {
		bearer, err := c.authority.Bearer(identity.Client, fmt.Sprint("client-", k))
		must(b, err)
		servers = append(servers, rpc.NewParticipantServiceClient(c.connect(k%nodes, bearer)))
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(grpctls.Client(bearer)))
		must(b, err)
		b.Cleanup(func() { conn.Close() })
		references = append(references, rpc.NewParticipantServiceClient(conn))
	}
	for k := range clients {
		_, err := references[k].GetSpec(b.Context(), new(undertonev1.GetSpecRequest))
		must(b, err)
		_, err = servers[k].Poll(b.Context(), new(undertonev1.PollRequest))
		must(b, err)
	}
	for range b.N {
		calls := measure(clients, outstanding, 3*time.Second, func(k, _ int) bool {
			_, err := references[k].GetSpec(b.Context(), new(undertonev1.GetSpecRequest))
			return err == nil
		})
		updates := measure(clients, outstanding, 10*time.Second, func(k, i int) bool {
			if i >= len(works) {
				return false
			}
			w := works[i]
			_, err := servers[k].Submit(b.Context(), &undertonev1.SubmitRequest{Payload: payload, Header: &undertonev1.SubmitHeader{
				Job: w.Job, Round: w.Round, Attempt: w.Attempt, StateDigest: w.StateDigest, Checksum: checksum,
			}})
			if err != nil {
				b.Error(err)
			}
			return err == nil
		})
		b.ReportMetric(calls, "calls/s")
		b.ReportMetric(updates, "updates/s")
		b.ReportMetric(updates/calls, "updates/call")
		for i := range c.nodes {
			b.Logf("node-%d: %.0f contributions a batch, %.1f ms a commit", i,
				c.metric(i, "undertone_batch_members_sum")/c.metric(i, "undertone_batch_members_count"),
				1000*c.metric(i, "undertone_batch_commit_seconds_sum")/c.metric(i, "undertone_batch_commit_seconds_count"))
		}
	}
}

// BenchmarkLargeUpdates prints how many bytes of contributions of 10 MiB one
// node acknowledges in a second, beside a grpc stream to a server that throws
// them away.
//
//	go test -run '^$' -bench LargeUpdates -benchtime 1x ./server
func BenchmarkLargeUpdates(b *testing.B) {
	const clients = 4
	c := startCluster(b, 1, func(s *server.Config) { s.ClientRate, s.ClientBurst = 1e6, 1e6 })
	p := solo.Parameters()
	p.Dim, p.Sketch = 109_227, 2
	terms := solo.Terms("bench")
	terms.RoundSize = 1 << 20
	spec := c.openJobs(b, 12, func(i int) (*rounds.Spec, []byte) {
		terms.Job = fmt.Sprint("job-", i)
		return solo.Spec(b, p, terms)
	})
	payload := pack(spec[0], contribution(spec[0], 1, 1))
	checksum := crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli))
	address := c.startBare(b)
	works := c.open(b, len(spec))

	var servers, references []rpc.ParticipantServiceClient
	for k := range clients {
		bearer, err := c.authority.Bearer(identity.Client, fmt.Sprint("client-", k))
		must(b, err)
		servers = append(servers, rpc.NewParticipantServiceClient(c.connect(0, bearer)))
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(grpctls.Client(bearer)))
		must(b, err)
		b.Cleanup(func() { conn.Close() })
		references = append(references, rpc.NewParticipantServiceClient(conn))
	}
	send := func(s rpc.ParticipantServiceClient, w *undertonev1.Work) error {
		stream, err := s.SubmitLarge(b.Context())
		if err != nil {
			return err
		}
		_ = stream.Send(&undertonev1.SubmitLargeRequest{Part: &undertonev1.SubmitLargeRequest_Header{Header: &undertonev1.SubmitHeader{
			Job: w.Job, Round: w.Round, Attempt: w.Attempt, StateDigest: w.StateDigest, Checksum: checksum,
		}}})
		for at := 0; at < len(payload); at += 256 << 10 {
			if stream.Send(&undertonev1.SubmitLargeRequest{Part: &undertonev1.SubmitLargeRequest_Piece{Piece: payload[at:min(at+256<<10, len(payload))]}}) != nil {
				break // CloseAndRecv says why
			}
		}
		_, err = stream.CloseAndRecv()
		return err
	}
	for range b.N {
		reference := measure(clients, 1, 3*time.Second, func(k, _ int) bool {
			return send(references[k], works[0]) == nil
		})
		updates := measure(clients, 1, 10*time.Second, func(k, i int) bool {
			if i >= len(works) {
				return false
			}
			err := send(servers[k], works[i])
			if err != nil {
				b.Error(err)
			}
			return err == nil
		})
		b.ReportMetric(reference*float64(len(payload))/1e6, "reference-MB/s")
		b.ReportMetric(updates*float64(len(payload))/1e6, "updates-MB/s")
		b.ReportMetric(updates/reference, "updates/stream")
	}
}

// measure runs call from several goroutines of each of several clients until it
// returns false or the time is over, and returns how often a second it returned
// true. A client's calls are numbered.
func measure(clients, outstanding int, d time.Duration, call func(client, number int) bool) float64 {
	var (
		wg    sync.WaitGroup
		done  atomic.Int64
		start = time.Now()
	)
	for k := range clients {
		var next atomic.Int64
		for range outstanding {
			wg.Go(func() {
				for time.Since(start) < d && call(k, int(next.Add(1)-1)) {
					done.Add(1)
				}
			})
		}
	}
	wg.Wait()
	return float64(done.Load()) / time.Since(start).Seconds()
}

// openJobs makes jobs and lets them run.
func (c *cluster) openJobs(b *testing.B, n int, job func(i int) (*rounds.Spec, []byte)) []*rounds.Spec {
	b.Helper()
	operator := c.operator(c.leader())
	specs := make([]*rounds.Spec, n)
	var wg sync.WaitGroup
	for i := range n {
		spec, raw := job(i)
		specs[i] = spec
		wg.Go(func() {
			if _, err := operator.CreateJob(b.Context(), &undertonev1.CreateJobRequest{Spec: raw}); err != nil {
				b.Error(err)
			}
			if _, err := operator.OpenJob(b.Context(), &undertonev1.OpenJobRequest{Job: spec.Job, Rounds: 1}); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	return specs
}

// open waits until n rounds are open, and returns them.
func (c *cluster) open(b *testing.B, n int) (works []*undertonev1.Work) {
	b.Helper()
	for i := range c.nodes {
		s := rpc.NewParticipantServiceClient(c.dial(i, identity.Client, "looks"))
		eventually(b, "all rounds are open", func() bool {
			resp, err := s.Poll(b.Context(), new(undertonev1.PollRequest))
			works = resp.GetWork()
			return err == nil && len(works) == n
		})
	}
	return works
}

// startBare starts the reference, with the identity of node 0.
func (c *cluster) startBare(b *testing.B) (address string) {
	b.Helper()
	address = fmt.Sprintf("127.0.0.1:%d", freePorts(b, 1)[0])
	env := append(os.Environ(), bareVariable+"="+c.dir+"/node-0-tls", addressVariable+"="+address)
	p := start(b, env, nil)
	b.Cleanup(p.kill)
	eventually(b, "the reference listens", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return address
}
