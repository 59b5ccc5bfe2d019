package rounds_test

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"pgregory.net/rapid"
)

// A snapshot of which anything was changed is refused, or is that of a machine
// in just that state.
func TestRestoreOfChangedSnapshots(t *testing.T) { rapid.Check(t, changedSnapshot) }

func FuzzRestore(f *testing.F) { f.Fuzz(rapid.MakeFuzz(changedSnapshot)) }

func changedSnapshot(t *rapid.T) {
	s := deepCopy(reflect.ValueOf(snapshot(richMachine(t)))).Interface().(*rounds.Snapshot)
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
	if !reflect.DeepEqual(snapshot(m), want) {
		t.Fatal("restored, and its snapshot differs")
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
