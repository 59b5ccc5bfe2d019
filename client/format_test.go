package client

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/proto"

	"github.com/undertone-fl/undertone/client/local"
	"github.com/undertone-fl/undertone/dp/ledger"
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
	// exampleWitness is the same record as its next version has it, of a device that saw
	// a fork, and followed another ledger before.
	exampleWitness = func() *record {
		r := exampleRecord.clone()
		r.Ledger = &witnessed{
			Keys: []string{otherKey, publicKey}, Pinned: true, Note: signedNote(secretKey, 9, filled(6)),
			Fork: &fork{Server: "node-1:7300", Key: publicKey, Note: signedNote(secretKey, 12, filled(7)), Proof: ledger.Proof{ledger.Digest(filled(8))}},
		}
		r.Former = []*witnessed{{Keys: []string{formerPublic}, Note: signedNote(formerSecret, 20, filled(9))}}
		r.job("taste").Attempts[2].Reserved = 9
		for _, w := range []*witnessed{r.Ledger, r.Former[0]} {
			if err := w.open(); err != nil {
				panic(err)
			}
		}
		return r
	}()
	exampleUpdate   = newUpdate(attemptKey{"taste", 3, 1}, filled(2), []byte("\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a"))
	examplePersonal = &personal{Spec: filled(1), Version: 2, State: filled(2), Samples: 20, Own: encodedOwn()}
)

// Two ledgers' keys, which protect nothing.
const (
	secretKey = "PRIVATE+KEY+example.com/ledger+33c09b0a+AWpGjgZpm3Okq8Jty/4y02+7JOPTtbVkYlaITra4toxq"
	publicKey = "example.com/ledger+33c09b0a+Aa+Pppl/NhLXb+cR0u1JaFle51ggxQO1NaeVjT2dAV8X"
	otherKey  = "example.com/ledger+e87d2961+AWwuSple3Vq2WmxSkO4A7ABC0ooG1SEPmU16/SzuzW8b"

	formerSecret = "PRIVATE+KEY+former.example/ledger+75d8287c+ARQMWTnsW1U2BNMtRZP0GIpU0/YTHm5R9oFT39V1Jd7m"
	formerPublic = "former.example/ledger+75d8287c+AU8JymCkyjc/ZfrW+OuHnB19C5/5KZRjV3sgCaB7e/xr"
)

func signedNote(secret string, size int64, root digest) []byte {
	signer, err := note.NewSigner(secret)
	if err != nil {
		panic(err)
	}
	signed, err := ledger.Checkpoint{Origin: signer.Name(), Size: size, Root: ledger.Digest(root)}.Sign(signer)
	if err != nil {
		panic(err)
	}
	return signed
}

func encodedOwn() []byte {
	own := local.Personal{W: []float64{1.5, -2}, B: []local.Entry{{Feature: 4, Value: 0.25}}}
	data, err := own.MarshalBinary()
	if err != nil {
		panic(err)
	}
	return data
}

// format is a version of a private file: what writes one, and what reads it and writes
// it again. One that is not written any more has no encode.
type format struct {
	magic   string
	version uint16
	encode  func() ([]byte, error)
	decode  func(data []byte) (value any, again []byte, err error)
	want    any
}

func readAndWriteRecord(data []byte) (any, []byte, error) {
	r, err := decodeRecord(data)
	if err != nil {
		return nil, nil, err
	}
	return r, r.encode(), nil
}

var formats = map[string]format{
	"record-v1": {recordMagic, 1, nil, readAndWriteRecord, exampleRecord},
	"record-v2": {recordMagic, 2, func() ([]byte, error) { return exampleWitness.encode(), nil }, readAndWriteRecord, exampleWitness},
	"update-v1": {
		updateMagic, 1,
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
		personalMagic, 1,
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
		if errors.Is(err, os.ErrNotExist) && *write && f.encode != nil {
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
		if f.encode != nil && !bytes.Equal(again, data) {
			t.Errorf("%s: written again it has other bytes", name)
		}
	}
}

// TestDamage: every flipped bit and every cut of a file is found.
func TestDamage(t *testing.T) {
	for name, f := range formats {
		data, err := os.ReadFile(golden(name))
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
		version, body, err := unseal(f.magic, f.version, data)
		if err != nil || version != f.version {
			t.Fatal(version, err)
		}
		for _, unknown := range []uint16{0, 3} {
			if _, _, err := f.decode(seal(f.magic, unknown, body)); !errors.Is(err, ErrVersion) {
				t.Errorf("%s: version %d: %v", name, unknown, err)
			}
		}
	}
}

// fuzz holds that a decoder takes anything, and that what it accepts it writes in a
// form that it accepts as the same. The frame's checksum is made to fit: it would
// keep the fuzzer out.
func fuzz(f *testing.F, name string) {
	format := formats[name]
	data, err := os.ReadFile(golden(name))
	if err != nil {
		f.Fatal(err)
	}
	_, body, err := unseal(format.magic, format.version, data)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Fuzz(func(t *testing.T, body []byte) {
		_, again, err := format.decode(seal(format.magic, format.version, body))
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

func FuzzRecord(f *testing.F)   { fuzz(f, "record-v2") }
func FuzzUpdate(f *testing.F)   { fuzz(f, "update-v1") }
func FuzzPersonal(f *testing.F) { fuzz(f, "personal-v1") }

func FuzzFrame(f *testing.F) {
	f.Add(seal(recordMagic, recordVersion, []byte("{}")))
	f.Fuzz(func(t *testing.T, data []byte) {
		version, body, err := unseal(recordMagic, recordVersion, data)
		if err == nil && !bytes.Equal(seal(recordMagic, version, body), data) {
			t.Fatal("another frame of the same body was accepted")
		}
	})
}

// TestOldRecordHasNoLedger: what came with version 2 is refused under version 1.
func TestOldRecordHasNoLedger(t *testing.T) {
	data, err := os.ReadFile(golden("record-v2"))
	if err != nil {
		t.Fatal(err)
	}
	_, body, err := unseal(recordMagic, 2, data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeRecord(seal(recordMagic, 1, body)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v", err)
	}
}

// TestWitnessedIsChecked: a record whose note its key did not sign is damaged, and so is
// one with a former ledger that cannot be.
func TestWitnessedIsChecked(t *testing.T) {
	for name, spoil := range map[string]func(r *record){
		"forged": func(r *record) {
			r.Ledger = r.Ledger.with(nil)
			r.Ledger.Note = bytes.Replace(r.Ledger.Note, []byte("\n9\n"), []byte("\n8\n"), 1)
		},
		"a forged fork": func(r *record) {
			forged := *r.Ledger.Fork
			forged.Note = bytes.Replace(forged.Note, []byte("\n12\n"), []byte("\n13\n"), 1)
			r.Ledger = r.Ledger.with(&forged)
		},
		"a forged former": func(r *record) {
			r.Former = []*witnessed{r.Former[0].with(nil)}
			r.Former[0].Note = bytes.Replace(r.Former[0].Note, []byte("\n20\n"), []byte("\n2\n"), 1)
		},
		"a former without keys": func(r *record) { r.Former = []*witnessed{{}} },
		"an empty former":       func(r *record) { r.Former = []*witnessed{nil} },
		"the same twice":        func(r *record) { r.Former = []*witnessed{r.Former[0], r.Former[0]} },
		"former and followed":   func(r *record) { r.Former = []*witnessed{r.Ledger} },
		"former, and none":      func(r *record) { r.Ledger = nil },
	} {
		r := exampleWitness.clone()
		spoil(r)
		if _, err := decodeRecord(r.encode()); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
