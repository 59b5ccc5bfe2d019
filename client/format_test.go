package client

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/undertone-fl/undertone/client/local"
	undertonev1 "github.com/undertone-fl/undertone/proto/undertone/v1"
)

// write makes the files of a new version; those of an old one never change.
var write = flag.Bool("write", false, "write testdata that is not there yet")

func filled(b byte) (d digest) {
	for i := range d {
		d[i] = b + byte(i)
	}
	return d
}

// Everything that a file can hold, once.
var (
	exampleRecord = &record{
		Name: "ann", Index: 1 << 60,
		Jobs: map[string]*jobRecord{
			"taste": {
				Spec: filled(1), Delta: 1e-6, Rounds: 8, Released: 2, State: filled(2),
				Attempts: []disclosure{
					{Round: 1, Attempt: 1, State: filled(3), Charge: 12_345_678, Outcome: Over},
					{Round: 1, Attempt: 2, State: filled(3), Charge: 12_345_678, Outcome: Contributed},
					{Round: 3, Attempt: 1, State: filled(2), Charge: 1 << 60},
				},
			},
			"weather": {Spec: filled(4), Delta: 1e-9, Rounds: 1, Released: 0, State: filled(5), Conflict: "model 0 is 1, and was 2"},
		},
	}
	exampleUpdate   = newUpdate(attemptKey{"taste", 3, 1}, filled(2), []byte("\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a"))
	examplePersonal = &personal{Spec: filled(1), Version: 2, State: filled(2), Samples: 20, Own: encodedOwn()}
)

func encodedOwn() []byte {
	own := local.Personal{W: []float64{1.5, -2}, B: []local.Entry{{Feature: 4, Value: 0.25}}}
	data, err := own.MarshalBinary()
	if err != nil {
		panic(err)
	}
	return data
}

// formats of the private files: what reads one, and writes it again.
var formats = map[string]struct {
	encode func() ([]byte, error)
	decode func(data []byte) (value any, again []byte, err error)
	want   any
}{
	"record-v1": {
		func() ([]byte, error) { return exampleRecord.encode(), nil },
		func(data []byte) (any, []byte, error) {
			r, err := decodeRecord(data)
			if err != nil {
				return nil, nil, err
			}
			return r, r.encode(), nil
		}, exampleRecord,
	},
	"update-v1": {
		func() ([]byte, error) { return encodeUpdate(exampleUpdate) },
		func(data []byte) (any, []byte, error) {
			r, err := decodeUpdate(data)
			if err != nil {
				return nil, nil, err
			}
			again, err := encodeUpdate(r)
			return r, again, err
		}, exampleUpdate,
	},
	"personal-v1": {
		func() ([]byte, error) { return examplePersonal.encode(), nil },
		func(data []byte) (any, []byte, error) {
			p, _, err := decodePersonal(data)
			if err != nil {
				return nil, nil, err
			}
			return p, p.encode(), nil
		}, examplePersonal,
	},
}

func golden(name string) string { return filepath.Join("testdata", name+".bin") }

// TestOldBytes: what an earlier version wrote is read, to the same values.
func TestOldBytes(t *testing.T) {
	for name, f := range formats {
		data, err := os.ReadFile(golden(name))
		if errors.Is(err, os.ErrNotExist) && *write {
			if data, err = f.encode(); err == nil {
				err = os.WriteFile(golden(name), data, 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		got, again, err := f.decode(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		same := reflect.DeepEqual(got, f.want)
		if m, ok := got.(*undertonev1.SubmitRequest); ok {
			same = proto.Equal(m, exampleUpdate)
		}
		if !same {
			t.Errorf("%s: %+v, want %+v", name, got, f.want)
		}
		if !bytes.Equal(again, data) {
			t.Errorf("%s: written again it has other bytes", name)
		}
	}
}

// TestDamage: every flipped bit and every cut of a file is found.
func TestDamage(t *testing.T) {
	for name, f := range formats {
		data, err := f.encode()
		if err != nil {
			t.Fatal(err)
		}
		for i := range data {
			for bit := range 8 {
				data[i] ^= 1 << bit
				if _, _, err := f.decode(data); !errors.Is(err, ErrCorrupt) {
					t.Fatalf("%s: bit %d of byte %d: %v", name, bit, i, err)
				}
				data[i] ^= 1 << bit
			}
			if _, _, err := f.decode(data[:i]); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s: cut to %d bytes: %v", name, i, err)
			}
		}
		body, err := unseal(string(data[:4]), 1, data)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := f.decode(seal(string(data[:4]), 2, body)); !errors.Is(err, ErrVersion) {
			t.Errorf("%s: a later version: %v", name, err)
		}
	}
}

// fuzz holds that a decoder takes anything, and that what it accepts it writes in a
// form that it accepts as the same. The frame's checksum is made to fit: it would
// keep the fuzzer out.
func fuzz(f *testing.F, name, magic string) {
	format := formats[name]
	data, err := os.ReadFile(golden(name))
	if err != nil {
		f.Fatal(err)
	}
	body, err := unseal(magic, 1, data)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Fuzz(func(t *testing.T, body []byte) {
		_, again, err := format.decode(seal(magic, 1, body))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		_, third, err := format.decode(again)
		if err != nil || !bytes.Equal(again, third) {
			t.Fatalf("written again it is another: %v", err)
		}
	})
}

func FuzzRecord(f *testing.F)   { fuzz(f, "record-v1", recordMagic) }
func FuzzUpdate(f *testing.F)   { fuzz(f, "update-v1", updateMagic) }
func FuzzPersonal(f *testing.F) { fuzz(f, "personal-v1", personalMagic) }

func FuzzFrame(f *testing.F) {
	f.Add(seal(recordMagic, recordVersion, []byte("{}")))
	f.Fuzz(func(t *testing.T, data []byte) {
		body, err := unseal(recordMagic, recordVersion, data)
		if err == nil && !bytes.Equal(seal(recordMagic, recordVersion, body), data) {
			t.Fatal("another frame of the same body was accepted")
		}
	})
}
