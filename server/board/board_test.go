package board_test

import (
	"context"
	"testing"
	"time"

	"github.com/undertone-fl/undertone/aggregation"
	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/server/board"
	"github.com/undertone-fl/undertone/server/internal/solo"
)

// Contributions make no edition; rounds do.
func TestEditions(t *testing.T) {
	n := solo.New()
	spec := n.Create(t, solo.Parameters(), solo.Terms("movies"))
	b := board.New(n)
	index := func() (index uint64) {
		n.View(func(_ *rounds.Machine, i uint64) { index = i })
		return index
	}
	first, asOf := b.At(index())
	if asOf != index() || len(first.Jobs) != 1 || first.Jobs[0].Collecting() || first.Job("movies") != &first.Jobs[0] || first.Job("books") != nil {
		t.Fatalf("%+v as of %d", first, asOf)
	}
	n.Do(t, rounds.OpenRound{Job: spec.Job, Round: 1, Attempt: 1})
	open, _ := b.At(index())
	if open == first || !open.Jobs[0].Collecting() || first.Jobs[0].Collecting() {
		t.Fatal("a round that opens is no new edition")
	}
	select {
	case <-first.Next:
	default:
		t.Error("those who wait for the next edition do not wake")
	}
	if left := open.Jobs[0].Remaining(open.Jobs[0].Since.Add(time.Minute)); left != time.Hour-time.Minute {
		t.Errorf("%v left of an hour after a minute", left)
	}
	if left := open.Jobs[0].Remaining(open.Jobs[0].Since.Add(2 * time.Hour)); left <= 0 {
		t.Errorf("%v left after the deadline: 0 is for what is not known", left)
	}

	n.Do(t, rounds.Collect{Job: spec.Job, Round: 1, Attempt: 1, Members: []rounds.ClientID{rounds.ClientOf("ann")},
		Sum: rounds.BlobOf(aggregation.Pack(nil, make([]int64, spec.Releases[0].Length), spec.Width()))})
	same, asOf := b.At(index())
	if same != open || asOf != index() {
		t.Error("a contribution makes an edition")
	}

	// Who begins to lead measures from then on.
	time.Sleep(time.Millisecond)
	n.Lead(true)
	b2, _ := b.At(index() + 1) // beyond what is applied: reads again
	if b2 == open || !b2.Jobs[0].Since.After(open.Jobs[0].Since) {
		t.Error("a new leader goes on with an old measurement")
	}
}

// Run announces what the node does not: that it is ready, or no longer.
func TestReadiness(t *testing.T) {
	n := solo.New()
	b := board.New(n)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { b.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	edition, _ := b.At(0)
	n.SetNotReady("no leader")
	select {
	case <-edition.Next:
	case <-time.After(30 * time.Second):
		t.Fatal("nobody is told")
	}
	if edition, _ := b.At(0); len(edition.NotReady) != 1 {
		t.Errorf("%v", edition.NotReady)
	}
}
