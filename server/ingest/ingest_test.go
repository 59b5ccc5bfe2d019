package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace/noop"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/jobs"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
	"github.com/undertone-fl/undertone/server/ingest"
	"github.com/undertone-fl/undertone/server/internal/solo"
	"github.com/undertone-fl/undertone/server/metrics"
	"github.com/undertone-fl/undertone/server/refusal"
	"github.com/undertone-fl/undertone/server/replication"
)

const job = "movies"

// newIngest returns an Ingest over a node; limit 0 is plenty.
func newIngest(n ingest.Node, limit int64) *ingest.Ingest {
	if limit == 0 {
		limit = 1 << 30
	}
	return ingest.New(n, ingest.Config{
		Limit: limit, Logger: slog.New(slog.DiscardHandler), Metrics: metrics.New(),
		Tracer: noop.NewTracerProvider().Tracer(""),
	})
}

// openRound makes a job with a round that collects.
func openRound(t testing.TB, p jobs.Parameters, terms jobs.Terms) (*solo.Node, *rounds.Spec) {
	t.Helper()
	n := solo.New()
	spec := n.Create(t, p, terms)
	n.Do(t, rounds.OpenRound{Job: spec.Job, Round: 1, Attempt: 1})
	return n, spec
}

func smallRound(t testing.TB, size int) (*solo.Node, *rounds.Spec) {
	terms := solo.Terms(job)
	terms.RoundSize = size
	return openRound(t, solo.Parameters(), terms)
}

// vector is what a client contributes: its own numbers, within the bound.
func vector(spec *rounds.Spec, client int) []int64 {
	r := spec.Releases[0]
	x := make([]int64, r.Length)
	rng := rand.New(rand.NewPCG(uint64(client), 1))
	limit := int64(r.Bound) / int64(r.Length)
	for i := range x {
		x[i] = rng.Int64N(2*limit+1) - limit
	}
	return x
}

func width(spec *rounds.Spec) int { return int(spec.Lattice.ModulusBits / 8) }

func pack(spec *rounds.Spec, x []int64) []byte { return aggregation.Pack(nil, x, width(spec)) }

func header(n *solo.Node, client int, payload []byte) ingest.Header {
	return ingest.Header{
		Key:      ingest.Key{Job: job, Round: 1, Attempt: 1},
		Client:   rounds.ClientOf(fmt.Sprint("client-", client)),
		State:    n.Latest(job),
		Checksum: crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)),
	}
}

func submit(ctx context.Context, in *ingest.Ingest, n *solo.Node, spec *rounds.Spec, client int) (ingest.Receipt, error) {
	payload := pack(spec, vector(spec, client))
	return in.Submit(ctx, header(n, client, payload), payload)
}

// sumOf adds up what clients contribute.
func sumOf(spec *rounds.Spec, clients ...int) []int64 {
	sum := make([]int64, spec.Releases[0].Length)
	for _, c := range clients {
		for i, v := range vector(spec, c) {
			sum[i] += v
		}
	}
	return sum
}

// closed closes the round, if it still collects, and returns its sum and the
// number of its members.
func closed(t *testing.T, n *solo.Node) (sum []int64, members int) {
	t.Helper()
	n.View(func(m *rounds.Machine, _ uint64) {
		j, _ := m.Job(job)
		if j.Attempts[0].Phase == rounds.Collecting {
			if _, err := m.Apply(rounds.CloseRound{Job: job, Round: 1, Attempt: 1}); err != nil {
				t.Error(err)
			}
			j, _ = m.Job(job)
		}
		members, sum = j.Attempts[0].Members, slices.Clone(m.Sum(job))
	})
	return sum, members
}

func reasonOf(err error) undertonev1.Reason {
	if e, ok := errors.AsType[*refusal.Error](refusal.From(err)); ok {
		return e.Reason
	}
	return undertonev1.Reason_REASON_UNSPECIFIED
}

func seq(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

// While one batch is committed the contributions that arrive make up the next.
func TestGroupCommit(t *testing.T) {
	const clients = 200
	n, spec := smallRound(t, clients+1)
	in := newIngest(n, 0)
	first, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	n.Around = func(_ rounds.Command, apply func() (uint64, error)) (uint64, error) {
		once.Do(func() { close(first); <-gate })
		return apply()
	}
	errs := make(chan error, clients)
	send := func(client int) {
		r, err := submit(t.Context(), in, n, spec, client)
		if err == nil && (r.Duplicate || r.Index == 0) {
			err = fmt.Errorf("client %d: %+v", client, r)
		}
		errs <- err
	}
	go send(0)
	<-first
	for c := 1; c < clients; c++ {
		go send(c)
	}
	for in.Queued(header(n, 0, nil).Key) < clients-1 { // all the others wait
		time.Sleep(time.Millisecond)
	}
	close(gate)
	for range clients {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if got := in.Inflight(); got != 0 {
		t.Errorf("%d bytes are still accounted for", got)
	}
	batches := 0
	for _, c := range n.Applied() {
		if _, ok := c.(rounds.Collect); ok {
			batches++
		}
	}
	if batches != 2 {
		t.Errorf("%d entries for %d contributions, want 2", batches, clients)
	}
	if sum, members := closed(t, n); members != clients || !slices.Equal(sum, sumOf(spec, seq(clients)...)) {
		t.Errorf("sum of %d members is wrong", members)
	}
}

// Promise 3: whatever is unknown, retried and re-routed, an acknowledged
// contribution is in the sum exactly once.
func TestExactlyOnce(t *testing.T) {
	const clients = 60
	n, spec := smallRound(t, clients+1)
	rng := rand.New(rand.NewPCG(3, 1))
	var mu sync.Mutex
	n.Around = func(_ rounds.Command, apply func() (uint64, error)) (uint64, error) {
		mu.Lock()
		luck := rng.IntN(4)
		mu.Unlock()
		switch luck {
		case 0:
			return 0, replication.ErrNoLeader
		case 1:
			return 0, replication.ErrIndeterminate // and it did not happen
		case 2:
			_, _ = apply()
			return 0, replication.ErrIndeterminate // and it did
		}
		return apply()
	}
	servers := []*ingest.Ingest{newIngest(n, 0), newIngest(n, 0), newIngest(n, 0)}
	var wg sync.WaitGroup
	for c := range clients {
		for k := range servers { // every client sends to all of them at once
			wg.Go(func() {
				if _, err := submit(t.Context(), servers[k], n, spec, c); err != nil {
					t.Errorf("client %d: %v", c, err)
				}
			})
		}
	}
	wg.Wait()
	n.Around = nil
	sum, members := closed(t, n)
	if members != clients {
		t.Fatalf("%d members, want %d", members, clients)
	}
	if !slices.Equal(sum, sumOf(spec, seq(clients)...)) {
		t.Fatal("the sum is not that of every contribution once")
	}
}

// A round takes as many as it has room for, and the others are told.
func TestMoreThanFit(t *testing.T) {
	const room, clients = 25, 40
	n, spec := smallRound(t, room)
	servers := []*ingest.Ingest{newIngest(n, 0), newIngest(n, 0)}
	var (
		mu  sync.Mutex
		got []int
		wg  sync.WaitGroup
	)
	for c := range clients {
		wg.Go(func() {
			_, err := submit(t.Context(), servers[c%2], n, spec, c)
			if err == nil {
				mu.Lock()
				got = append(got, c)
				mu.Unlock()
				return
			}
			e, _ := errors.AsType[*refusal.Error](err)
			if e == nil || e.Reason != undertonev1.Reason_REASON_NOT_OPEN || e.Counted == nil || *e.Counted {
				t.Errorf("client %d: %v", c, err)
			}
		})
	}
	wg.Wait()
	sum, members := closed(t, n)
	if len(got) != room || members != room || !slices.Equal(sum, sumOf(spec, got...)) {
		t.Errorf("%d acknowledged, %d members, want %d, and their sum", len(got), members, room)
	}
}

func TestRefusals(t *testing.T) {
	n, spec := smallRound(t, 10)
	in := newIngest(n, 0)
	if _, err := submit(t.Context(), in, n, spec, 0); err != nil {
		t.Fatal(err)
	}
	good := pack(spec, vector(spec, 1))
	largest := int64(spec.Releases[0].Largest)
	outside := pack(spec, append([]int64{largest + 1}, vector(spec, 1)[1:]...))
	edge := pack(spec, append([]int64{-largest}, vector(spec, 1)[1:]...))

	for _, c := range []struct {
		name    string
		payload []byte
		change  func(*ingest.Header)
		want    undertonev1.Reason
	}{
		{"unknown job", good, func(h *ingest.Header) { h.Job = "books" }, undertonev1.Reason_REASON_UNKNOWN_JOB},
		{"round to come", good, func(h *ingest.Header) { h.Round = 2 }, undertonev1.Reason_REASON_WRONG_ROUND},
		{"attempt to come", good, func(h *ingest.Header) { h.Attempt = 2 }, undertonev1.Reason_REASON_WRONG_ROUND},
		{"round 0", good, func(h *ingest.Header) { h.Round = 0 }, undertonev1.Reason_REASON_WRONG_ROUND},
		{"another state", good, func(h *ingest.Header) { h.State[0]++ }, undertonev1.Reason_REASON_WRONG_DIGEST},
		{"a bit flipped", good, func(h *ingest.Header) { h.Checksum ^= 1 }, undertonev1.Reason_REASON_CORRUPT},
		{"too short", good[:len(good)-1], nil, undertonev1.Reason_REASON_MALFORMED},
		{"empty", nil, nil, undertonev1.Reason_REASON_MALFORMED},
		{"too long", append(slices.Clone(good), 0), nil, undertonev1.Reason_REASON_TOO_LARGE},
		{"out of range", outside, nil, undertonev1.Reason_REASON_OUT_OF_RANGE},
		{"not seen yet", good, func(h *ingest.Header) { h.MinIndex = 1 << 60 }, undertonev1.Reason_REASON_BEHIND},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := header(n, 1, c.payload)
			if c.change != nil {
				c.change(&h)
			}
			payload := slices.Clone(c.payload)
			if _, err := in.Submit(t.Context(), h, payload); reasonOf(err) != c.want {
				t.Errorf("Submit: %v, want %v", err, c.want)
			}
			if err := upload(t.Context(), in, h, payload, 7); reasonOf(err) != c.want {
				t.Errorf("upload: %v, want %v", err, c.want)
			}
		})
	}
	if _, members := counted(n); members != 1 {
		t.Fatalf("%d members, want 1", members)
	}
	if _, err := in.Submit(t.Context(), header(n, 1, edge), edge); err != nil {
		t.Errorf("the largest coordinate there may be: %v", err)
	}
	if in.Inflight() != 0 {
		t.Errorf("%d bytes are still accounted for", in.Inflight())
	}
}

func counted(n *solo.Node) (phase rounds.Phase, members int) {
	n.View(func(m *rounds.Machine, _ uint64) {
		j, _ := m.Job(job)
		phase, members = j.Attempts[0].Phase, j.Attempts[0].Members
	})
	return phase, members
}

// upload sends a contribution in pieces of a size.
func upload(ctx context.Context, in *ingest.Ingest, h ingest.Header, payload []byte, size int) error {
	u, got, err := in.Begin(ctx, h)
	if err != nil || got != nil {
		return err
	}
	for piece := range slices.Chunk(payload, size) {
		if err := u.Write(piece); err != nil {
			u.Abort()
			return err
		}
	}
	_, err = u.Commit(ctx)
	return err
}

// What comes in pieces, of whatever size, is what comes at once.
func TestUpload(t *testing.T) {
	p, terms := solo.Parameters(), solo.Terms(job)
	p.Dim, p.Rank, p.Rounds = 60_000, 2, 1
	p.Sketch = 2
	terms.RoundSize = 10
	n, spec := openRound(t, p, terms)
	in := newIngest(n, 0)
	payload := pack(spec, vector(spec, 0))
	sizes := []int{256 << 10, 100_003, 1 << 20, len(payload), len(payload) - 1}
	for c, size := range sizes {
		payload := pack(spec, vector(spec, c))
		if err := upload(t.Context(), in, header(n, c, payload), payload, size); err != nil {
			t.Fatalf("pieces of %d: %v", size, err)
		}
	}
	if len(payload) < 3*(256<<10) {
		t.Fatalf("%d bytes are no test of several buffers", len(payload))
	}
	// Out of range, in the middle and at the very end.
	for _, at := range []int{spec.Releases[0].Length / 2, spec.Releases[0].Length - 1} {
		x := vector(spec, 20)
		x[at] = int64(spec.Releases[0].Largest) + 1
		payload := pack(spec, x)
		if err := upload(t.Context(), in, header(n, 20, payload), payload, 256<<10); reasonOf(err) != undertonev1.Reason_REASON_OUT_OF_RANGE {
			t.Errorf("coordinate %d out of range: %v", at, err)
		}
	}
	if in.Inflight() != 0 {
		t.Errorf("%d bytes are still accounted for", in.Inflight())
	}
	if sum, members := closed(t, n); members != len(sizes) || !slices.Equal(sum, sumOf(spec, seq(len(sizes))...)) {
		t.Errorf("the sum of %d members is wrong", members)
	}
}

// A retry of what still waits joins it, and after the round's end is told
// whether it was counted.
func TestRetries(t *testing.T) {
	n, spec := smallRound(t, 10)
	in := newIngest(n, 0)
	first, gate := make(chan struct{}), make(chan struct{})
	n.Around = func(_ rounds.Command, apply func() (uint64, error)) (uint64, error) {
		close(first)
		<-gate
		n.Around = nil
		return apply()
	}
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := submit(ctx, in, n, spec, 0)
		gone <- err
	}()
	<-first
	cancel() // the client goes away, its contribution does not
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	type answer struct {
		r   ingest.Receipt
		err error
	}
	again := make(chan answer, 2)
	go func() {
		r, err := submit(t.Context(), in, n, spec, 0)
		again <- answer{r, err}
	}()
	payload := pack(spec, vector(spec, 0))
	go func() {
		_, r, err := in.Begin(t.Context(), header(n, 0, payload))
		if r == nil {
			r = new(ingest.Receipt)
		}
		again <- answer{*r, err}
	}()
	close(gate)
	for range 2 {
		if a := <-again; a.err != nil || !a.r.Duplicate {
			t.Errorf("a retry: %+v", a)
		}
	}
	if r, err := submit(t.Context(), in, n, spec, 0); err != nil || !r.Duplicate {
		t.Errorf("a late retry: %+v, %v", r, err)
	}
	if _, err := submit(t.Context(), in, n, spec, 1); err != nil {
		t.Fatal(err)
	}
	sum, members := closed(t, n)
	if members != 2 || !slices.Equal(sum, sumOf(spec, 0, 1)) {
		t.Errorf("%d members", members)
	}
	for client, want := range map[int]bool{0: true, 5: false} {
		_, err := submit(t.Context(), in, n, spec, client)
		e, _ := errors.AsType[*refusal.Error](err)
		if e == nil || e.Reason != undertonev1.Reason_REASON_NOT_OPEN || e.Counted == nil || *e.Counted != want {
			t.Errorf("client %d after the end: %v, want NOT_OPEN, counted %v", client, err, want)
		}
	}
}

// A contribution in a batch whose outcome stayed unknown until the round was
// over is acknowledged if it is in the sum, and refused if it is not.
func TestOverBeforeKnown(t *testing.T) {
	for _, applied := range []bool{true, false} {
		n, spec := smallRound(t, 3)
		in := newIngest(n, 0)
		n.Around = func(_ rounds.Command, apply func() (uint64, error)) (uint64, error) {
			n.Around = nil
			if applied {
				_, _ = apply()
			}
			for _, c := range []int{7, 8} {
				n.Do(t, rounds.Collect{Job: job, Round: 1, Attempt: 1, Members: []rounds.ClientID{rounds.ClientOf(fmt.Sprint(c))},
					Sum: rounds.BlobOf(pack(spec, vector(spec, c)))})
			}
			if !applied {
				n.Do(t, rounds.CloseRound{Job: job, Round: 1, Attempt: 1})
			}
			return 0, replication.ErrIndeterminate
		}
		_, err := submit(t.Context(), in, n, spec, 0)
		if applied && err != nil {
			t.Errorf("counted: %v", err)
		}
		if !applied && reasonOf(err) != undertonev1.Reason_REASON_NOT_OPEN {
			t.Errorf("not counted: %v", err)
		}
	}
}

func TestOverload(t *testing.T) {
	n, spec := smallRound(t, 10)
	size := int64(len(pack(spec, vector(spec, 0))))
	in := newIngest(n, 2*size)
	first, gate := make(chan struct{}, 2), make(chan struct{})
	n.Around = func(_ rounds.Command, apply func() (uint64, error)) (uint64, error) {
		first <- struct{}{}
		<-gate
		return apply()
	}
	errs := make(chan error, 2)
	for c := range 2 {
		go func() {
			_, err := submit(t.Context(), in, n, spec, c)
			errs <- err
		}()
	}
	<-first
	for in.Inflight() < 2*size {
		time.Sleep(time.Millisecond)
	}
	_, err := submit(t.Context(), in, n, spec, 2)
	e, _ := errors.AsType[*refusal.Error](err)
	if e == nil || e.Reason != undertonev1.Reason_REASON_OVERLOADED || e.RetryAfter == 0 {
		t.Errorf("beyond the limit: %v", err)
	}
	close(gate)
	for range 2 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if _, err := submit(t.Context(), in, n, spec, 2); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
}

// Drain finishes what waits and takes nothing more.
func TestDrain(t *testing.T) {
	n, spec := smallRound(t, 10)
	in := newIngest(n, 0)
	first, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	n.Around = func(_ rounds.Command, apply func() (uint64, error)) (uint64, error) {
		once.Do(func() { close(first) })
		<-gate
		return apply()
	}
	got := make(chan error)
	go func() {
		_, err := submit(t.Context(), in, n, spec, 0)
		got <- err
	}()
	<-first
	drained := make(chan struct{})
	go func() {
		in.Drain(context.Background())
		close(drained)
	}()
	hurried, cancel := context.WithCancel(t.Context())
	cancel()
	for { // what comes before it drains waits with the first one
		if _, err := submit(hurried, in, n, spec, 1); errors.Is(err, replication.ErrStopped) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(gate)
	if err := <-got; err != nil {
		t.Error(err)
	}
	<-drained
}

// With trust central the server adds one share of the contribution's noise,
// whatever is retried, and holds the client to its bound.
func TestCentralNoise(t *testing.T) {
	const clients = 40
	p, terms := solo.Parameters(), solo.Terms(job)
	terms.Trust, terms.RoundSize = rounds.TrustCentral, clients
	n, spec := openRound(t, p, terms)
	servers := []*ingest.Ingest{newIngest(n, 0), newIngest(n, 0)}
	beyond := make([]int64, spec.Releases[0].Length)
	beyond[0], beyond[1] = int64(spec.Releases[0].Bound), 1 // each in range, together beyond the norm
	payload := pack(spec, beyond)
	if _, err := servers[0].Submit(t.Context(), header(n, clients, payload), payload); reasonOf(err) != undertonev1.Reason_REASON_OUT_OF_RANGE {
		t.Errorf("a contribution beyond its bound: %v", err)
	}
	var wg sync.WaitGroup
	for c := range clients {
		for _, in := range servers {
			wg.Go(func() {
				payload := pack(spec, vector(spec, c))
				if err := upload(t.Context(), in, header(n, c, payload), payload, 100); err != nil {
					if _, members := counted(n); members < clients {
						t.Errorf("client %d: %v", c, err)
					}
				}
			})
		}
	}
	wg.Wait()

	sum, members := closed(t, n)
	if members != clients {
		t.Fatalf("%d members, want %d", members, clients)
	}
	// The noise's sample variance, over m coordinates of a sum of clients shares,
	// has a relative standard deviation of sqrt(2/m). Eight of them are passed by
	// chance in fewer than one of 1e10 runs; two shares instead of one, or none,
	// are farther away than that.
	var squares float64
	for i, v := range sumOf(spec, seq(clients)...) {
		d := float64(sum[i] - v)
		squares += d * d
	}
	m := float64(len(sum))
	sigma := spec.Releases[0].Sigma.Float64()
	ratio := squares / m / (clients * sigma * sigma)
	if tolerance := 8 * math.Sqrt(2/m); math.Abs(ratio-1) > tolerance || tolerance > 0.8 {
		t.Errorf("the noise's variance is %.3f of what it is to be, +-%.3f", ratio, tolerance)
	}
}

// TestOneClientsUploads has one client begin upload after upload: each ends the
// one before, and what is reserved follows what arrived.
func TestOneClientsUploads(t *testing.T) {
	n, spec := smallRound(t, 4)
	in := newIngest(n, 1<<20)
	payload := pack(spec, vector(spec, 1))
	h := header(n, 1, payload)
	var before *ingest.Upload
	for range 20 {
		u, _, err := in.Begin(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		if before != nil {
			if err := before.Write(payload[:1]); err == nil {
				t.Error("an upload goes on that another one has ended")
			}
			before.Abort()
		}
		if err := u.Write(payload[:1]); err != nil {
			t.Fatal(err)
		}
		if got := in.Inflight(); got > 4<<10 {
			t.Errorf("%d bytes are reserved for one that arrived", got)
		}
		before = u
	}
	if err := before.Write(payload[1:]); err != nil {
		t.Fatal(err)
	}
	if r, err := before.Commit(t.Context()); err != nil || r.Duplicate {
		t.Errorf("the last upload: %+v, %v", r, err)
	}
	if got := in.Inflight(); got != 0 {
		t.Errorf("%d bytes stay reserved", got)
	}
}

func TestOneClientsShareOfMemory(t *testing.T) {
	in := newIngest(solo.New(), 800)
	mallory, ann := rounds.ClientOf("mallory"), rounds.ClientOf("ann")
	for _, test := range []struct {
		client   rounds.ClientID
		n, least int64
		ok       bool
	}{
		{mallory, 100, 0, true}, {mallory, 1, 0, false}, {mallory, 1, 101, true}, // one contribution always may
		{ann, 100, 0, true}, {ann, 600, 700, false}, // beyond the limit of all
	} {
		if err := in.Reserve(test.client, test.n, test.least); (err == nil) != test.ok {
			t.Errorf("%+v: %v", test, err)
		}
	}
}
