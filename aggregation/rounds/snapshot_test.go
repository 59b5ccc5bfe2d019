package rounds_test

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp/ledger"
	"pgregory.net/rapid"
)

// A snapshot of which anything was changed is refused, or is that of a machine
// in just that state.
func TestRestoreOfChangedSnapshots(t *testing.T) { rapid.Check(t, changedSnapshot) }

func FuzzRestore(f *testing.F) { f.Fuzz(rapid.MakeFuzz(changedSnapshot)) }

func changedSnapshot(t *rapid.T) {
	machine := richMachine(t)
	if rapid.Bool().Draw(t, "ledger") {
		machine = recordedMachine(t)
	}
	s := deepCopy(reflect.ValueOf(snapshot(machine))).Interface().(*rounds.Snapshot)
	if _, err := rounds.Restore(s); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	var leaves []reflect.Value
	collectLeaves(reflect.ValueOf(s).Elem(), &leaves)
	for range rapid.IntRange(1, 3).Draw(t, "changes") {
		change(t, leaves[rapid.IntRange(0, len(leaves)-1).Draw(t, "leaf")])
	}
	want := deepCopy(reflect.ValueOf(s)).Interface().(*rounds.Snapshot)
	m, err := rounds.Restore(s)
	if err != nil {
		return
	}
	// A job by another name has another place.
	slices.SortFunc(want.Jobs, func(a, b rounds.JobSnapshot) int { return bytes.Compare(a.Spec, b.Spec) })
	if len(want.Ledger) == 0 {
		want.Ledger = nil // how none is written does not matter
	}
	if !reflect.DeepEqual(snapshot(m), want) {
		t.Fatal("restored, and its snapshot differs")
	}
}

// Snapshots of states in which no machine can have been. Jobs are books,
// released; films, collecting after an attempt that failed; songs, closed.
func TestRestoreRefuses(t *testing.T) {
	for name, spoil := range map[string]func(s *rounds.Snapshot){
		"a client has two numbers": func(s *rounds.Snapshot) { s.Clients[1] = s.Clients[0] },
		"two jobs films":           func(s *rounds.Snapshot) { s.Jobs = append(s.Jobs, s.Jobs[1]) },
		"specification: ":          func(s *rounds.Snapshot) { s.Jobs[0].Spec = s.Jobs[0].Spec[1:] },
		"until round 4 of 3":       func(s *rounds.Snapshot) { s.Jobs[0].Until = 4 },
		"job books: is paused, and should be running": func(s *rounds.Snapshot) {
			s.Jobs[0].Until, s.Jobs[0].State = 2, rounds.Paused
		},
		"job songs: the latest state has another digest": func(s *rounds.Snapshot) { s.Jobs[2].Latest.Bytes[0]++ },
		"job films: the latest state has another digest": func(s *rounds.Snapshot) { s.Jobs[1].Latest.Size++ },
		"job books: the latest state is not the one released": func(s *rounds.Snapshot) {
			s.Jobs[0].Latest = rounds.BlobOf([]byte("V1"))
		},

		"attempt 1 of round 2: attempt 1 of round 1 comes next": func(s *rounds.Snapshot) { s.Jobs[0].Attempts[0].Round = 2 },
		"attempt 1 of round 1: attempt 2 of round 1 comes next": func(s *rounds.Snapshot) { s.Jobs[1].Attempts[1].Attempt = 1 },
		"with a charge of 10": func(s *rounds.Snapshot) { s.Jobs[0].Attempts[0].Charge = 9 },
		"another attempt is open": func(s *rounds.Snapshot) {
			s.Jobs[2].Attempts = append(s.Jobs[2].Attempts, s.Jobs[2].Attempts[0])
		},
		"a charge of 0.000000010 rho does not fit": func(s *rounds.Snapshot) {
			failed := s.Jobs[1].Attempts[0]
			s.Jobs[1].Attempts = s.Jobs[1].Attempts[:1]
			for i := 2; i <= 7; i++ {
				failed.Attempt = i
				s.Jobs[1].Attempts = append(s.Jobs[1].Attempts, failed)
			}
		},
		"attempt 1 of round 1: cannot be released with 1":   func(s *rounds.Snapshot) { s.Jobs[0].Attempts[0].Members = 1 },
		"attempt 1 of round 1: cannot be closed with 1":     func(s *rounds.Snapshot) { s.Jobs[2].Attempts[0].Members = 1 },
		"attempt 2 of round 1: cannot be collecting with 4": func(s *rounds.Snapshot) { s.Jobs[1].Attempts[1].Members = 4 },
		"attempt 1 of round 1: cannot be Phase(5)":          func(s *rounds.Snapshot) { s.Jobs[0].Attempts[0].Phase = 5 },
		"attempt 1 of round 1: cannot be failed":            func(s *rounds.Snapshot) { s.Jobs[1].Attempts[0].Why = "" },

		"a sum of no attempt":                                         func(s *rounds.Snapshot) { s.Jobs[0].Sum = []int64{1, 2} },
		"a sum of 1 coordinates, want 2":                              func(s *rounds.Snapshot) { s.Jobs[1].Sum = s.Jobs[1].Sum[:1] },
		"job songs: attempt 1 of round 1: the sum has another digest": func(s *rounds.Snapshot) { s.Jobs[2].Sum[0]++ },
		"attempt 1 of round 1: the sum has another digest":            func(s *rounds.Snapshot) { s.Jobs[2].Sum[1] += 1 << 16 },

		"members of no attempt": func(s *rounds.Snapshot) { s.Jobs[2].Before = s.Jobs[1].Before },
		"members of attempt 1 of round 1: not as they are written": func(s *rounds.Snapshot) {
			s.Jobs[0].Members = append(s.Jobs[0].Members, 0)
		},
		"members of attempt 2 of round 1: 2 of 3 clients, want 1": func(s *rounds.Snapshot) { s.Jobs[1].Members = s.Jobs[1].Before },
		"members of attempt 2 of round 1: 1 of 2 clients, want 1": func(s *rounds.Snapshot) { s.Clients = s.Clients[:2] },
		"members of attempt 1 of round 1: error":                  func(s *rounds.Snapshot) { s.Jobs[0].Members = nil },

		`staged for "films": malformed`:        func(s *rounds.Snapshot) { s.Staged[1].Bytes = nil },
		`staged for "songs": malformed`:        func(s *rounds.Snapshot) { s.Staged[1].Job = "songs"; s.Staged[1].Attempt = 1; s.Staged[1].Size = 1 },
		`staged for "books": already released`: func(s *rounds.Snapshot) { s.Staged[1].Job = "books"; s.Staged[1].Attempt = 1 },
		"3 staged blobs, of which 2 can be":    func(s *rounds.Snapshot) { s.Staged = append(s.Staged, s.Staged[1]) },
	} {
		s := deepCopy(reflect.ValueOf(snapshot(richMachine(t)))).Interface().(*rounds.Snapshot)
		spoil(s)
		if _, err := rounds.Restore(s); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// recordedMachine is a rich one with a ledger, a key that was rotated, an era, a
// measurement and a job that is closed.
func recordedMachine(t interface {
	Fatal(...any)
	Fatalf(string, ...any)
}) *rounds.Machine {
	m := rounds.NewMachine()
	do := func(c rounds.Command) {
		if _, err := m.Apply(c); err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
	}
	do(rounds.Dated{At: 1000, Command: beginLedger(t)})
	enrich(t, m)
	do(rounds.CloseJob{Job: "songs"})
	do(measured("books"))
	s, err := rounds.Anew(snapshot(m), 2000, nil)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = rounds.Restore(s); err != nil {
		t.Fatal(err)
	}
	do(rotation(t, 0, 1))
	do(rounds.Run{Job: "books"})
	do(rounds.OpenRound{Job: "books", Round: 2, Attempt: 1_000_001})
	return m
}

// A ledger that says what the state does not, or leaves out what the state says.
func TestRestoreRefusesLedgers(t *testing.T) {
	edit := func(kind, old, new string) func(s *rounds.Snapshot) {
		return func(s *rounds.Snapshot) {
			for i, record := range s.Ledger {
				if bytes.HasPrefix(record, []byte(`{"record":"`+kind+`"`)) {
					if !bytes.Contains(record, []byte(old)) {
						t.Fatalf("%s has no %s", record, old)
					}
					s.Ledger[i] = bytes.Replace(record, []byte(old), []byte(new), 1)
					return
				}
			}
			t.Fatalf("no %s", kind)
		}
	}
	last := func(s *rounds.Snapshot) int { return len(s.Ledger) - 1 }
	for name, c := range map[string]struct {
		spoil func(s *rounds.Snapshot)
		want  string
	}{
		"the last record is missing":      {func(s *rounds.Snapshot) { s.Ledger = s.Ledger[:last(s)] }, "job books: records are missing"},
		"the first record is missing":     {func(s *rounds.Snapshot) { s.Ledger = s.Ledger[1:] }, "record 0: a ledger begins once"},
		"the first record is there twice": {func(s *rounds.Snapshot) { s.Ledger = append(s.Ledger, s.Ledger[0]) }, "a ledger begins once"},
		"the last record is there twice":  {func(s *rounds.Snapshot) { s.Ledger = append(s.Ledger, s.Ledger[last(s)]) }, "nothing of it happened"},
		"a record of no job":              {edit("attempt", `"job":"films"`, `"job":"games"`), "nothing of it happened to job"},
		"a job twice":                     {func(s *rounds.Snapshot) { s.Ledger = slices.Insert(s.Ledger, 2, s.Ledger[1]) }, "is not there, or twice"},
		"a charge understated":            {edit("attempt", `"charge_nano_rho":"10"`, `"charge_nano_rho":"9"`), `should be {"record":"attempt"`},
		"spent understated":               {edit("attempt", `"spent_nano_rho":"10"`, `"spent_nano_rho":"9"`), "should be"},
		"another state released":          {edit("release", `"state":"`, `"state":"00`), "record 9"},
		"more members":                    {edit("release", `"members":2`, `"members":3`), "should be"},
		"another reason":                  {edit("failure", "given up", "given in"), "should be"},
		"a budget raised":                 {edit("job", `"budget_nano_rho":"60"`, `"budget_nano_rho":"61"`), "should be"},
		"a format of its own":             {edit("ledger", `"format":1`, `"format":2`), "no ledger begins so"},
		"an era skipped":                  {edit("restored", `"era":1`, `"era":2`), "era 2, after 0 and up to 1"},
		"an era missing":                  {func(s *rounds.Snapshot) { s.Era = 2 }, "of era 1, and the state of 2"},
		"a key nobody endorsed":           {edit("key", `next key`, `next keY`), "no next key"},
		"a measurement before its job":    {func(s *rounds.Snapshot) { s.Ledger[1], s.Ledger[12] = s.Ledger[12], s.Ledger[1] }, "record 1"},
		"a measurement without trials":    {edit("canary", `"trials":100000`, `"trials":0`), "no such measurement"},
		"a key that signed before": {func(s *rounds.Snapshot) {
			back := rotation(t, 1, 0)
			s.Ledger = append(s.Ledger, ledger.Encode(&ledger.KeyRotated{Stamp: ledger.Stamp{Time: 2000}, Key: back.Key, Endorsement: back.Endorsement}))
		}, "no next key"},
		"a beginning without an end": {edit("ledger", `"history":0`, `"history":1000`), "no such measurement is recorded"},
		"a beginning that is longer": {edit("ledger", `"history":0`, `"history":-1`), "no ledger begins so"},
		"a first state that is hidden": {func(s *rounds.Snapshot) {
			known := ledger.Digest(rounds.BlobOf([]byte("U0")).Digest).String()
			for i, record := range s.Ledger {
				if bytes.Contains(record, []byte(`"job":"books"`)) {
					s.Ledger[i] = bytes.ReplaceAll(record, []byte(known), []byte(ledger.Digest{}.String()))
				}
			}
		}, "job \"books\" has no state"},
		"the time runs backwards": {edit("key", `"time_ms":2000`, `"time_ms":1999`), "should be"},
		"a record in other words": {edit("closed", `"job":`, `"job": `), "not written as a record is"},
	} {
		s := deepCopy(reflect.ValueOf(snapshot(recordedMachine(t)))).Interface().(*rounds.Snapshot)
		c.spoil(s)
		_, err := rounds.Restore(s)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// collectLeaves finds what change can change: numbers, strings, and slices,
// whose length can be.
func collectLeaves(v reflect.Value, leaves *[]reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			collectLeaves(v.Field(i), leaves)
		}
	case reflect.Slice:
		*leaves = append(*leaves, v)
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			collectLeaves(v.Index(i), leaves)
		}
	default:
		*leaves = append(*leaves, v)
	}
}

func change(t *rapid.T, v reflect.Value) {
	switch {
	case v.CanInt():
		v.SetInt(v.Int() + rapid.Int64Range(-2, 2).Draw(t, "by"))
	case v.CanUint():
		v.SetUint(v.Uint() ^ 1<<rapid.IntRange(0, 7).Draw(t, "bit"))
	case v.Kind() == reflect.String:
		v.SetString(v.String() + "x")
	case v.Len() > 0 && rapid.Bool().Draw(t, "shorter"):
		v.Set(v.Slice(0, v.Len()-1))
	case v.Len() > 0:
		v.Set(reflect.Append(v, v.Index(v.Len()-1)))
	default:
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
	}
}

func deepCopy(v reflect.Value) reflect.Value {
	dst := reflect.New(v.Type()).Elem()
	switch v.Kind() {
	case reflect.Pointer:
		dst.Set(reflect.New(v.Type().Elem()))
		dst.Elem().Set(deepCopy(v.Elem()))
	case reflect.Struct:
		for i := range v.NumField() {
			dst.Field(i).Set(deepCopy(v.Field(i)))
		}
	case reflect.Slice:
		if !v.IsNil() {
			dst.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
			for i := range v.Len() {
				dst.Index(i).Set(deepCopy(v.Index(i)))
			}
		}
	default:
		dst.Set(v)
	}
	return dst
}

// A snapshot stays as it was while the machine that it was taken of goes on.
func TestSnapshotStays(t *testing.T) {
	m := richMachine(t)
	taken := m.Snapshot()
	before := deepCopy(reflect.ValueOf(taken)).Interface().(*rounds.Snapshot)
	films := newSpec("films", 3, 2, 10, 60)
	sum := pack(films, 3, 4)
	dan, eve := rounds.ClientOf("dan"), rounds.ClientOf("eve")
	for _, c := range []rounds.Command{
		// Over the piece that is there, behind it, and to the sum and the members.
		rounds.Stage{Job: "films", Round: 1, Attempt: 2, Digest: sum.Digest, Size: 4, Piece: []byte{9, 9}},
		rounds.Stage{Job: "films", Round: 1, Attempt: 2, Digest: sum.Digest, Size: 4, Piece: sum.Bytes},
		rounds.Collect{Job: "films", Round: 1, Attempt: 2, Members: []rounds.ClientID{dan}, Sum: rounds.Blob{Digest: sum.Digest, Size: 4}},
		rounds.Collect{Job: "films", Round: 1, Attempt: 2, Members: []rounds.ClientID{eve}, Sum: pack(films, 5, 5)},
		rounds.CloseRound{Job: "films", Round: 1, Attempt: 2},
		rounds.ReleaseRound{Job: "films", Round: 1, Attempt: 2, State: rounds.BlobOf([]byte("U1"))},
		rounds.FailRound{Job: "songs", Round: 1, Attempt: 1, Why: "given up"},
		rounds.OpenRound{Job: "books", Round: 2, Attempt: 1},
	} {
		apply(t, m, c)
		if !reflect.DeepEqual(taken, before) {
			t.Fatalf("%+v changed a snapshot", c)
		}
	}
	restored, err := rounds.Restore(taken)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, restored, rounds.Collect{Job: "films", Round: 1, Attempt: 2, Members: []rounds.ClientID{eve}, Sum: pack(films, 5, 5)})
	if !reflect.DeepEqual(taken, before) {
		t.Fatal("a restored machine changed its snapshot")
	}
	if n, _ := m.Job("films"); n.Released != 1 {
		t.Fatalf("%d released", n.Released)
	}
}

// What is staged is bounded; the oldest blob makes room.
func TestStagingIsBounded(t *testing.T) {
	stage := func(m *rounds.Machine, i int, size int64) rounds.Digest {
		whole := rounds.BlobOf(fmt.Appendf(nil, "state %d", i))
		apply(t, m, rounds.Stage{Job: "games", Digest: whole.Digest, Size: size, Piece: whole.Bytes[:1]})
		return whole.Digest
	}
	t.Run("number", func(t *testing.T) {
		m := rounds.NewMachine()
		stage(m, 0, 8)
		second := stage(m, 1, 8)
		for i := 2; i <= 64; i++ {
			stage(m, i, 8)
		}
		if staged := m.Snapshot().Staged; len(staged) != 64 || staged[0].Digest != second {
			t.Errorf("%d staged, the oldest %x", len(staged), staged[0].Digest)
		}
	})
	t.Run("bytes", func(t *testing.T) {
		m := rounds.NewMachine()
		stage(m, 0, 200<<20)
		second := stage(m, 1, 200<<20)
		stage(m, 2, 200<<20)
		if staged := m.Snapshot().Staged; len(staged) != 2 || staged[0].Digest != second {
			t.Errorf("%d staged", len(staged))
		}
	})
}
