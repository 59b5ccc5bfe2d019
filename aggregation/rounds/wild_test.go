package rounds_test

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/ledger"
	"pgregory.net/rapid"
)

// Commands with anything in them are performed or refused, change nothing if
// refused, and leave a state that can be restored.
func TestWildCommands(t *testing.T) { rapid.Check(t, wildCommands) }

func FuzzCommands(f *testing.F) { f.Fuzz(rapid.MakeFuzz(wildCommands)) }

func wildCommands(t *rapid.T) {
	m := rounds.NewMachine()
	when := rapid.IntRange(0, 2).Draw(t, "ledger")
	if when == 1 {
		m.Apply(beginLedger(t))
	}
	enrich(t, m)
	if when == 2 {
		m.Apply(beginLedger(t))
	}
	for range rapid.IntRange(1, 10).Draw(t, "commands") {
		c := wildCommand(t)
		before := snapshot(m)
		_, err := m.Apply(c)
		if err == nil {
			continue
		}
		var refusal *rounds.Refusal
		if !errors.As(err, &refusal) || refusal.Reason < rounds.Malformed || refusal.Reason > rounds.WrongDigest {
			t.Fatalf("%+v: %v is no refusal", c, err)
		}
		if !reflect.DeepEqual(before, snapshot(m)) {
			t.Fatalf("%+v: refused (%v), and changed the state", c, err)
		}
	}
	if m.Ledger() != nil {
		signer, _ := ledgerKey(t, 0) // it is never handed on
		audit(t, m, signer, ledger.Checkpoint{})
	}
	restored, err := rounds.Restore(m.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(snapshot(restored), snapshot(m)) {
		t.Fatal("the snapshot of the restored machine differs")
	}
}

// richMachine has a job in every phase, and blobs that are being staged: films
// collects after an attempt that failed, songs is closed, books is released.
func richMachine(t interface {
	Fatal(...any)
	Fatalf(string, ...any)
}) *rounds.Machine {
	m := rounds.NewMachine()
	enrich(t, m)
	return m
}

// enrich makes an empty machine, but for its ledger, a rich one.
func enrich(t interface {
	Fatal(...any)
	Fatalf(string, ...any)
}, m *rounds.Machine) {
	do := func(c rounds.Command) {
		if _, err := m.Apply(c); err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
	}
	ann, bob, cat := rounds.ClientOf("ann"), rounds.ClientOf("bob"), rounds.ClientOf("cat")
	for _, name := range []string{"films", "songs", "books"} {
		spec := honest(newSpec(name, 3, 2, 10, 60))
		do(rounds.CreateJob{Spec: encode(t, spec), State: rounds.BlobOf([]byte("U0"))})
		do(rounds.Run{Job: name})
		do(rounds.OpenRound{Job: name, Round: 1, Attempt: 1})
		do(rounds.Collect{Job: name, Round: 1, Attempt: 1, Members: []rounds.ClientID{ann, bob}, Sum: pack(spec, 7, -7)})
	}
	do(rounds.FailRound{Job: "films", Round: 1, Attempt: 1, Why: "given up"})
	do(rounds.OpenRound{Job: "films", Round: 1, Attempt: 2})
	films := newSpec("films", 3, 2, 10, 60)
	do(rounds.Collect{Job: "films", Round: 1, Attempt: 2, Members: []rounds.ClientID{cat}, Sum: pack(films, 1, 2)})
	sum := pack(films, 3, 4)
	do(rounds.Stage{Job: "films", Round: 1, Attempt: 2, Digest: sum.Digest, Size: sum.Size, Piece: sum.Bytes[:3]})
	do(rounds.CloseRound{Job: "songs", Round: 1, Attempt: 1})
	do(rounds.CloseRound{Job: "books", Round: 1, Attempt: 1})
	do(rounds.ReleaseRound{Job: "books", Round: 1, Attempt: 1, State: rounds.BlobOf([]byte("U1"))})
	state := rounds.BlobOf([]byte("V0"))
	do(rounds.Stage{Job: "games", Digest: state.Digest, Size: state.Size, Piece: state.Bytes[:1]})
}

// wildCommand draws a command whose fields are each right or wild.
func wildCommand(t *rapid.T) rounds.Command {
	job := rapid.SampledFrom([]string{"films", "songs", "books", "games", "", "No job"}).Draw(t, "job")
	number := rapid.OneOf(rapid.IntRange(0, 3), rapid.SampledFrom([]int{-1, math.MinInt, math.MaxInt}))
	round, attempt := number.Draw(t, "round"), number.Draw(t, "attempt")
	text := rapid.SampledFrom([]string{"", "why", "two\nlines", "\xff", origin, beginLedger(t).Key})
	switch rapid.IntRange(0, 12).Draw(t, "command") {
	case 0:
		spec := encode(t, honest(newSpec("games", 1, 1, 10, 10)))
		if rapid.Bool().Draw(t, "spoilt") {
			spec[rapid.IntRange(0, len(spec)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
		}
		return rounds.CreateJob{Spec: spec, State: wildBlob(t)}
	case 1:
		return rounds.Run{Job: job, Until: rapid.SampledFrom([]int{round, rounds.NoRound}).Draw(t, "until")}
	case 2:
		return rounds.OpenRound{Job: job, Round: round, Attempt: attempt}
	case 3:
		size := rapid.SampledFrom([]int64{1, 2, 4, 1 << 20, 0, -1, math.MinInt64, math.MaxInt64})
		return rounds.Stage{
			Job: job, Round: round, Attempt: attempt, Digest: wildBlob(t).Digest,
			Size: size.Draw(t, "size"), Offset: size.Draw(t, "offset"), Piece: rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "piece"),
		}
	case 4:
		var members []rounds.ClientID
		for _, name := range rapid.SliceOfN(rapid.SampledFrom([]string{"ann", "cat", "dan", "eve"}), 0, 5).Draw(t, "members") {
			members = append(members, rounds.ClientOf(name))
		}
		return rounds.Collect{Job: job, Round: round, Attempt: attempt, Members: members, Sum: wildBlob(t)}
	case 5:
		return rounds.CloseRound{Job: job, Round: round, Attempt: attempt}
	case 6:
		return rounds.ReleaseRound{Job: job, Round: round, Attempt: attempt, State: wildBlob(t)}
	case 7:
		return rounds.BeginLedger{Origin: text.Draw(t, "origin"), Key: text.Draw(t, "key")}
	case 8:
		return rounds.RotateKey{Key: text.Draw(t, "key"), Endorsement: text.Draw(t, "endorsement")}
	case 9:
		return rounds.CloseJob{Job: job}
	case 10:
		number := rapid.SampledFrom([]uint64{0, 1, 999_999, 1_000_000, math.MaxUint64})
		return rounds.RecordCanary{Measured: ledger.CanaryMeasured{
			Stamp: ledger.Stamp{Kind: "release", Time: -1}, Job: job, By: text.Draw(t, "by"),
			How: text.Draw(t, "how"), Claimed: number.Draw(t, "claimed"), Lower: number.Draw(t, "lower"), Upper: number.Draw(t, "upper"), Confidence: number.Draw(t, "confidence"), Trials: number.Draw(t, "trials"),
			Delta: rapid.SampledFrom([]string{"1e-06", "0.5", "1", "", "NaN", "0x1p-2", "why"}).Draw(t, "delta"),
		}}
	case 11:
		return rounds.Dated{At: int64(number.Draw(t, "at")), Command: wildCommand(t)}
	}
	return rounds.FailRound{Job: job, Round: round, Attempt: attempt, Why: rapid.SampledFrom([]string{"why", "", "two\nlines", "\xff"}).Draw(t, "why")}
}

func wildBlob(t *rapid.T) rounds.Blob {
	b := rounds.BlobOf(rapid.SliceOfN(rapid.ByteRange(0, 1), 0, 5).Draw(t, "bytes"))
	switch rapid.IntRange(0, 5).Draw(t, "blob") {
	case 0:
		b.Bytes = nil
	case 1:
		b.Digest[0]++
	case 2:
		b.Size = rapid.SampledFrom([]int64{-1, 0, 3, math.MaxInt64}).Draw(t, "size")
	}
	return b
}

// Commands that are malformed whatever the state is, or that do not fit the job.
func TestMalformed(t *testing.T) {
	m := richMachine(t)
	spec := newSpec("films", 3, 2, 10, 60)
	sum := pack(spec, 1, 1)
	dan, eve := rounds.ClientOf("dan"), rounds.ClientOf("eve")
	collect := func(sum rounds.Blob, members ...rounds.ClientID) rounds.Command {
		return rounds.Collect{Job: "films", Round: 1, Attempt: 2, Members: members, Sum: sum}
	}
	stage := func(size, offset int64, piece []byte) rounds.Command {
		return rounds.Stage{Job: "songs", Round: 1, Attempt: 1, Size: size, Offset: offset, Piece: piece}
	}
	for name, c := range map[string]rounds.Command{
		"no specification":         rounds.CreateJob{State: sum},
		"empty state":              rounds.CreateJob{Spec: encode(t, newSpec("games", 1, 1, 1, 1))},
		"state of another size":    rounds.CreateJob{Spec: encode(t, newSpec("games", 1, 1, 1, 1)), State: rounds.Blob{Digest: sum.Digest, Size: 3, Bytes: sum.Bytes}},
		"negative until":           rounds.Run{Job: "films", Until: -1},
		"until too many":           rounds.Run{Job: "films", Until: 4},
		"round 0":                  rounds.OpenRound{Job: "books"},
		"negative attempt":         rounds.OpenRound{Job: "books", Round: 2, Attempt: -1},
		"no members":               collect(sum),
		"a member twice":           collect(sum, dan, eve, dan),
		"a sum of another length":  collect(rounds.BlobOf(sum.Bytes[1:]), dan),
		"a sum of no length":       collect(rounds.Blob{}, dan),
		"no piece":                 stage(5, 0, nil),
		"piece before the blob":    stage(5, -1, []byte{1}),
		"piece behind the blob":    stage(5, 5, []byte{1}),
		"piece over the blob":      stage(5, 4, []byte{1, 2}),
		"piece at the end of time": stage(5, math.MaxInt64, []byte{1}),
		"blob too large":           stage(1<<40, 0, []byte{1}),
		"blob of negative size":    stage(-1, -2, []byte{1}),
		"staged for no name":       rounds.Stage{Size: 1, Piece: []byte{1}},
		"staged state too large":   rounds.Stage{Job: "games", Size: 1 << 40, Piece: []byte{1}},
		"staged for attempt 0":     rounds.Stage{Job: "films", Round: 1, Size: 1, Piece: []byte{1}},
		"no reason":                rounds.FailRound{Job: "films", Round: 1, Attempt: 2},
		"reason of two lines":      rounds.FailRound{Job: "films", Round: 1, Attempt: 2, Why: "a\nb"},
		"reason not UTF-8":         rounds.FailRound{Job: "films", Round: 1, Attempt: 2, Why: "\xff"},
		"reason too long":          rounds.FailRound{Job: "films", Round: 1, Attempt: 2, Why: strings.Repeat("a", 1025)},
	} {
		before := snapshot(m)
		_, err := m.Apply(c)
		var refusal *rounds.Refusal
		if !errors.As(err, &refusal) || refusal.Reason != rounds.Malformed {
			t.Errorf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(before, snapshot(m)) {
			t.Errorf("%s: refused, and changed the state", name)
		}
	}
}

func TestNoCommand(t *testing.T) {
	m := rounds.NewMachine()
	for _, c := range []rounds.Command{nil, &rounds.Run{Job: "films"}} {
		var refusal *rounds.Refusal
		if _, err := m.Apply(c); !errors.As(err, &refusal) || refusal.Reason != rounds.Malformed {
			t.Errorf("%v: %v", c, err)
		}
	}
}
