package ledger_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/undertone-fl/undertone/dp/ledger"
)

func FuzzDecode(f *testing.F) {
	for _, record := range ordinary(f).log.Records() {
		f.Add(record)
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		e, err := ledger.Decode(record)
		if err != nil {
			if !errors.Is(err, ledger.ErrEntry) {
				t.Fatal(err)
			}
			return
		}
		if again := ledger.Encode(e); !bytes.Equal(again, record) {
			t.Fatalf("%q is read, and written as %q", record, again)
		}
	})
}

func FuzzOpenCheckpoint(f *testing.F) {
	a := ordinary(f)
	genuine := a.bundle(f).Checkpoint
	key, err := ledger.ParseKey(a.public)
	if err != nil {
		f.Fatal(err)
	}
	want, err := ledger.OpenCheckpoint(genuine, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(genuine)
	f.Add(bytes.Replace(genuine, []byte("\n28\n"), []byte("\n029\n"), 1))
	f.Fuzz(func(t *testing.T, signed []byte) {
		switch c, err := ledger.OpenCheckpoint(signed, key); {
		case err == nil && c != want:
			t.Fatalf("%q was never signed: %+v", signed, c)
		case err != nil && !errors.Is(err, ledger.ErrSignature) && !errors.Is(err, ledger.ErrCheckpoint):
			t.Fatal(err)
		}
	})
}

// Whatever a file holds, it is a bundle that can be written and read again, or refused,
// and what Verify says of it is a Fault.
func FuzzReadBundle(f *testing.F) {
	a := ordinary(f)
	f.Add(written(f, a.bundle(f)))
	f.Add(written(f, new(ledger.Bundle)))
	f.Fuzz(func(t *testing.T, file []byte) {
		b, err := read(file)
		if err != nil {
			if !errors.Is(err, ledger.ErrBundle) {
				t.Fatal(err)
			}
			return
		}
		back, err := read(written(t, b))
		if err != nil || !sameBundle(b, back) {
			t.Fatalf("written and read again: %v", err)
		}
		if _, err := ledger.Verify(b, a.first, ledger.Checkpoint{}); err != nil && !errors.As(err, new(*ledger.Fault)) {
			t.Fatal(err)
		}
	})
}

// Whatever a specification says, reading it ends with its cost or an error.
func FuzzSpecification(f *testing.F) {
	a := ordinary(f)
	for _, raw := range a.specs {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		a := newAuthor(t)
		digest := digestOf("%s", raw)
		a.specs[digest] = raw
		a.append(&ledger.JobCreated{Job: "films", Specification: digest, State: digest, Budget: 39062540})
		a.append(&ledger.AttemptCharged{Job: "films", Round: 1, Attempt: 1, Specification: digest, State: digest, Charge: 7812508, Spent: 7812508})
		if _, err := ledger.Verify(a.bundle(t), a.first, ledger.Checkpoint{}); err != nil && !errors.As(err, new(*ledger.Fault)) {
			t.Fatal(err)
		}
	})
}
