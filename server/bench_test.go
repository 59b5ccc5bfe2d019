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
		clients = 600
		jobs    = 80
		atATime = 3
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
	// A client contributes to a round once, so there are many rounds; they are
	// contributed to a few at a time, as rounds are.
	contributed := make([]atomic.Int64, jobs)
	full := make([]chan struct{}, jobs)
	for i := range full {
		full[i] = make(chan struct{})
	}
	var used int
	for range b.N {
		var calls, updates rate
		for used < jobs {
			calls.measure(clients, time.Second, func(k, _ int) bool {
				_, err := references[k].GetSpec(b.Context(), new(undertonev1.GetSpecRequest))
				return err == nil
			})
			first := used
			used = min(used+10, jobs)
			updates.measure(clients, time.Minute, func(k, i int) bool {
				i += first
				if i >= used {
					return false
				}
				if i >= atATime {
					<-full[i-atATime]
				}
				w := works[i]
				_, err := servers[k].Submit(b.Context(), &undertonev1.SubmitRequest{Payload: payload, Header: &undertonev1.SubmitHeader{
					Job: w.Job, Round: w.Round, Attempt: w.Attempt, StateDigest: w.StateDigest, Checksum: checksum,
				}})
				if err != nil {
					b.Error(err)
				}
				if contributed[i].Add(1) == clients {
					close(full[i])
				}
				return true
			})
		}
		b.ReportMetric(calls.perSecond(), "calls/s")
		b.ReportMetric(updates.perSecond(), "updates/s")
		b.ReportMetric(updates.perSecond()/calls.perSecond(), "updates/call")
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
	const clients = 16
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
		var streams, updates rate
		for first := 0; first < len(works); first += 4 {
			streams.measure(clients, time.Second, func(k, _ int) bool {
				return send(references[k], works[0]) == nil
			})
			updates.measure(clients, time.Minute, func(k, i int) bool {
				if i == 4 {
					return false
				}
				err := send(servers[k], works[first+i])
				if err != nil {
					b.Error(err)
				}
				return err == nil
			})
		}
		size := float64(len(payload)) / 1e6
		b.ReportMetric(streams.perSecond()*size, "stream-MB/s")
		b.ReportMetric(updates.perSecond()*size, "updates-MB/s")
		b.ReportMetric(updates.perSecond()/streams.perSecond(), "updates/stream")
	}
}

// rate is how often something happened in how long, over several measurements.
type rate struct {
	done  atomic.Int64
	taken time.Duration
}

func (r *rate) perSecond() float64 { return float64(r.done.Load()) / r.taken.Seconds() }

// measure has every client call, one call after the other, until a call returns
// false or the time is over. A client's calls are numbered from 0.
func (r *rate) measure(clients int, d time.Duration, call func(client, number int) bool) {
	var wg sync.WaitGroup
	start := time.Now()
	for k := range clients {
		wg.Go(func() {
			for i := 0; time.Since(start) < d && call(k, i); i++ {
				r.done.Add(1)
			}
		})
	}
	wg.Wait()
	r.taken += time.Since(start)
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
	address = freeAddresses(b, 1)[0]
	env := append(os.Environ(), bareVariable+"="+c.dir+"/node-0-tls", addressVariable+"="+address)
	p := start(b, os.Args[0], env, nil)
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
