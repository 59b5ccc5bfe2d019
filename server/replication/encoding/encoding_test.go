package encoding

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/accounting"
	"github.com/undertone-fl/undertone/dp/ledger"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// write makes the files of testdata anew. They are what a version is, so that is
// for a new version only.
var write = flag.Bool("write", false, "write testdata")

func commands() []rounds.Command {
	id := rounds.ClientID{1, 2, 3}
	blob := rounds.BlobOf([]byte("bytes"))
	staged := rounds.Blob{Digest: blob.Digest, Size: 1 << 30}
	return []rounds.Command{
		rounds.CreateJob{Spec: []byte("{}"), State: blob},
		rounds.Run{Job: "job", Until: 3},
		rounds.OpenRound{Job: "job", Round: 1, Attempt: 2},
		rounds.Stage{Job: "job", Round: 1, Attempt: 2, Digest: blob.Digest, Size: 1 << 30, Offset: 256, Piece: []byte("piece")},
		rounds.Collect{Job: "job", Round: 1, Attempt: 2, Members: []rounds.ClientID{id, {4}}, Sum: blob},
		rounds.Collect{Job: "job", Round: 1, Attempt: 2, Members: []rounds.ClientID{id}, Sum: staged},
		rounds.CloseRound{Job: "job", Round: 1, Attempt: 2},
		rounds.ReleaseRound{Job: "job", Round: 1, Attempt: 2, State: staged},
		rounds.FailRound{Job: "job", Round: 1, Attempt: 2, Why: "why"},
	}
}

// dated are the commands of version 2.
func dated() []rounds.Command {
	return []rounds.Command{
		rounds.BeginLedger{Origin: "origin", Key: "key"},
		rounds.Dated{At: 1_767_225_600_123, Command: rounds.RotateKey{Key: "key", Endorsement: "endorsement"}},
		rounds.Dated{At: 1, Command: rounds.CloseJob{Job: "job"}},
		rounds.RecordCanary{Measured: ledger.CanaryMeasured{Job: "job", By: "auditor eve", Claimed: 2_000_000, Lower: 1_900_000, Upper: 2_100_000, How: "test jobs of this cluster",
			Delta: "1e-06", Confidence: 950_000, Trials: 100_000, Passed: true, Measured: 1_767_225_600_000}},
		rounds.Dated{At: -1, Command: rounds.OpenRound{Job: "job", Round: 1, Attempt: 2}},
	}
}

func golden(t testing.TB, name string, got []byte) []byte {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *write {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return want
}

func TestCommands(t *testing.T) {
	for version, commands := range map[int][]rounds.Command{1: commands(), 2: dated()} {
		for i, c := range commands {
			b, err := MarshalCommand(c)
			if err != nil {
				t.Fatal(err)
			}
			old := golden(t, fmt.Sprintf("command-v%d-%d", version, i), b)
			if !bytes.Equal(b, old) {
				t.Errorf("%T is written as %x, was %x", c, b, old)
			}
			got, err := UnmarshalCommand(old)
			if err != nil || !reflect.DeepEqual(got, c) {
				t.Errorf("%+v came back as %+v, %v", c, got, err)
			}
			// What is new is nothing that the version before could have written.
			if b[0] != 0x08 || b[1] != byte(version) {
				t.Errorf("%T begins with %x, not with version %d", c, b[:2], version)
			}
			b[1]--
			if got, err := UnmarshalCommand(b); !errors.Is(err, ErrMalformed) {
				t.Errorf("%T as version %d came back as %+v, %v", c, version-1, got, err)
			}
		}
	}
}

// A date of zero is none, and a date of a date is no command.
func TestDates(t *testing.T) {
	run := rounds.Run{Job: "job"}
	want, err := MarshalCommand(run)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := MarshalCommand(rounds.Dated{Command: run}); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, %v, want %x", got, err, want)
	}
	if got, err := MarshalCommand(rounds.Dated{At: 1, Command: rounds.Dated{At: 1, Command: run}}); err == nil {
		t.Errorf("a date of a date is %x", got)
	}
}

func TestCommandsThatAreRefused(t *testing.T) {
	run, err := MarshalCommand(rounds.Run{Job: "job"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		b    []byte
		want error
	}{
		{"nothing", nil, ErrMalformed},
		{"no version", run[2:], ErrMalformed},
		{"a newer version", append([]byte{0x08, 3}, run[2:]...), ErrNewer},
		{"a newer version's command", []byte{0x08, 3, 0xa2, 0x06, 0}, ErrNewer},
		{"a command that is not known", []byte{0x08, 1, 0xa2, 0x06, 0}, ErrMalformed},
		{"a field that is not known", append(bytes.Clone(run), 0xa2, 0x06, 0), ErrMalformed},
		{"half a command", run[:len(run)-1], ErrMalformed},
		{"no digest", []byte{0x08, 1, 0x12, 0}, ErrMalformed},
	} {
		if got, err := UnmarshalCommand(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v, want %v", c.what, got, err, c.want)
		}
	}
}

func TestRefusal(t *testing.T) {
	want := &rounds.Refusal{Reason: rounds.Full, Detail: "detail", Counted: []int{0, 3}, Room: 7}
	if got := FromRefusal(Refusal(want)); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v came back as %+v", want, got)
	}
}

func state(large int) *State {
	blob := rounds.BlobOf(bytes.Repeat([]byte("b"), large))
	s := &State{Index: 7, Hash: rounds.Digest{7}, Snapshot: &rounds.Snapshot{
		Jobs: []rounds.JobSnapshot{
			{Spec: []byte("{}"), State: rounds.Paused, Latest: rounds.BlobOf([]byte("state"))},
			{
				Spec: []byte(`{"job":"two"}`), State: rounds.Running, Until: 3, Latest: blob,
				Attempts: []rounds.Attempt{
					{Round: 1, Attempt: 1, Phase: rounds.Failed, Members: 1, Charge: accounting.NanoRho(5), Why: "why"},
					{Round: 1, Attempt: 2, Phase: rounds.Closed, Members: 2, Charge: accounting.NanoRho(5), Sum: rounds.Digest{1}},
				},
				Sum: []int64{-1, 0, 1 << 40}, Members: []byte("members"), Before: []byte("before"),
			},
		},
		Staged: []rounds.StagedBlob{
			{Job: "two", Round: 1, Attempt: 2, Digest: blob.Digest, Size: 1 << 30, Bytes: blob.Bytes},
			{Job: "three", Digest: rounds.Digest{3}, Size: 5, Bytes: []byte("ab")},
		},
	}}
	for i := range large {
		s.Snapshot.Clients = append(s.Snapshot.Clients, rounds.ClientID{byte(i), byte(i >> 8), byte(i >> 16)})
	}
	return s
}

// recorded is a state with a ledger, and a job that was closed.
func recorded(records int) *State {
	s := state(10)
	s.Snapshot.Jobs[0].State = rounds.JobClosed
	for i := range records {
		s.Snapshot.Ledger = append(s.Snapshot.Ledger, fmt.Appendf(nil, "record %d", i))
	}
	return s
}

func TestSnapshot(t *testing.T) {
	for name, s := range map[string]*State{
		"small": state(10), "large": state(piece + 1), "empty": {Snapshot: &rounds.Snapshot{}}, "restored": {Snapshot: &rounds.Snapshot{Era: 2}},
		"recorded": recorded(3), "long ledger": recorded(100_000), "closed": recorded(0),
	} {
		var b bytes.Buffer
		if err := WriteSnapshot(&b, s); err != nil {
			t.Fatal(err)
		}
		got, err := ReadSnapshot(bytes.NewReader(b.Bytes()))
		if err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%s: came back otherwise, %v", name, err)
		}
		if version, kept := map[string]int{"small": 1, "recorded": 2}[name]; kept {
			old := golden(t, fmt.Sprintf("snapshot-v%d", version), b.Bytes())
			if !bytes.Equal(b.Bytes(), old) {
				t.Errorf("a snapshot of version %d is written otherwise", version)
			}
			if got, err := ReadSnapshot(bytes.NewReader(old)); err != nil || !reflect.DeepEqual(got, s) {
				t.Errorf("an old snapshot reads otherwise: %v", err)
			}
		}
	}
}

// No program of version 1 wrote a ledger, or a job that is closed.
func TestSnapshotOfAnotherVersion(t *testing.T) {
	for records := range 2 {
		s := recorded(records)
		var b bytes.Buffer
		if err := WriteSnapshot(&b, s); err != nil {
			t.Fatal(err)
		}
		const version = 4 // after lengths and tags
		if b.Bytes()[version] != 2 {
			t.Fatalf("no version at %d of %x", version, b.Bytes()[:8])
		}
		b.Bytes()[version] = 1
		const trailer = 1 + 2 + 2 + 32
		body := b.Bytes()[:b.Len()-trailer]
		sum := sha256.Sum256(body)
		copy(b.Bytes()[b.Len()-len(sum):], sum[:])
		if _, err := ReadSnapshot(&b); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "version 2") {
			t.Errorf("%d records: %v", records, err)
		}
	}
}

// The most attempts that a job can have, with the longest reasons, are read again;
// what would not be read is not written.
func TestLargestRecord(t *testing.T) {
	failed := rounds.Attempt{Round: 4096, Phase: rounds.Failed, Members: 1 << 24, Charge: 1 << 62,
		Sum: rounds.Digest{1}, Why: strings.Repeat("y", rounds.MaxWhy)}
	written := func(attempts int) (*bytes.Buffer, error) {
		job := rounds.JobSnapshot{Spec: make([]byte, rounds.MaxSpec), Latest: rounds.BlobOf([]byte("state")),
			Members: make([]byte, 2<<20), Before: make([]byte, 2<<20), Attempts: make([]rounds.Attempt, attempts)}
		for i := range job.Attempts {
			job.Attempts[i] = failed
			job.Attempts[i].Attempt = 2_000_000_000 + i
		}
		var out bytes.Buffer
		return &out, WriteSnapshot(&out, &State{Snapshot: &rounds.Snapshot{Jobs: []rounds.JobSnapshot{job}}})
	}
	out, err := written(1 << 15)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := ReadSnapshot(out); err != nil || len(s.Snapshot.Jobs[0].Attempts) != 1<<15 {
		t.Errorf("not read again: %v", err)
	}
	if _, err := written(1 << 16); err == nil {
		t.Error("a record was written that nobody reads")
	}
}

func TestDamagedSnapshots(t *testing.T) {
	var b bytes.Buffer
	if err := WriteSnapshot(&b, state(10)); err != nil {
		t.Fatal(err)
	}
	for at := range b.Len() {
		bad := bytes.Clone(b.Bytes())
		bad[at] ^= 1
		if _, err := ReadSnapshot(bytes.NewReader(bad)); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("byte %d flipped: %v", at, err)
		}
		if _, err := ReadSnapshot(bytes.NewReader(b.Bytes()[:at])); !errors.Is(err, ErrMalformed) {
			t.Errorf("cut at byte %d: %v", at, err)
		}
	}
	if _, err := ReadSnapshot(bytes.NewReader(append(b.Bytes(), 0))); !errors.Is(err, ErrMalformed) {
		t.Errorf("a byte too many: %v", err)
	}
}

func FuzzCommand(f *testing.F) {
	for _, c := range append(commands(), dated()...) {
		b, err := MarshalCommand(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := UnmarshalCommand(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrNewer) {
				t.Fatal(err)
			}
			return
		}
		again, err := MarshalCommand(c)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := UnmarshalCommand(again); err != nil || !reflect.DeepEqual(got, c) {
			t.Fatalf("%+v came back as %+v, %v", c, got, err)
		}
	})
}

// FuzzSnapshot gives every input a trailer that fits: what is behind the digest
// has to be read with care too.
func FuzzSnapshot(f *testing.F) {
	const trailer = 1 + 2 + 2 + 32 // length, record, digest
	for _, s := range []*State{state(0), state(10), recorded(3)} {
		var b bytes.Buffer
		if err := WriteSnapshot(&b, s); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes()[:b.Len()-trailer])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		sum := sha256.Sum256(b)
		var in bytes.Buffer
		in.Write(b)
		if _, err := protodelim.MarshalTo(&in, &undertonev1.SnapshotRecord{Record: &undertonev1.SnapshotRecord_Trailer{
			Trailer: &undertonev1.SnapshotTrailer{Digest: sum[:]},
		}}); err != nil {
			t.Fatal(err)
		}
		s, err := ReadSnapshot(&in)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrNewer) {
				t.Fatal(err)
			}
			return
		}
		var again bytes.Buffer
		if err := WriteSnapshot(&again, s); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadSnapshot(&again); err != nil || !reflect.DeepEqual(got, s) {
			t.Fatalf("came back otherwise: %v", err)
		}
	})
}
