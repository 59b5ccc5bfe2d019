package rounds_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/undertone-fl/undertone/aggregation/rounds"
	"github.com/undertone-fl/undertone/dp"
)

// TestOldSpecs reads every specification that was ever in use, and writes it
// as it was.
func TestOldSpecs(t *testing.T) {
	paths, _ := filepath.Glob("testdata/specs/*.json")
	if len(paths) == 0 {
		t.Fatal("no specifications in testdata/specs")
	}
	for _, path := range paths {
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		spec, err := rounds.ParseSpec(old)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		written, err := json.MarshalIndent(spec, "", "  ")
		if err != nil || string(written) != strings.TrimSpace(string(old)) {
			t.Errorf("%s: written as %s, %v", path, written, err)
		}
	}
}

func TestOldSpecMeansTheSame(t *testing.T) {
	old, err := os.ReadFile("testdata/specs/films.json")
	if err != nil {
		t.Fatal(err)
	}
	s, err := rounds.ParseSpec(old)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Releases) != 5 {
		t.Fatalf("%d releases", len(s.Releases))
	}
	want := rounds.Release{Kind: "items", Length: 148, Bound: 16964909, Sigma: 839248648301, Largest: 29770829, Charge: 56160583}
	if s.Releases[0] != want {
		t.Errorf("release %+v, want %+v", s.Releases[0], want)
	}
	s.Releases = nil
	s.Parameters = nil
	if want := (rounds.Spec{
		Job: "films", Method: "amht-lrs", Lattice: dp.Lattice{ScaleBits: 24, ModulusBits: 40},
		Adjacency: dp.ZeroOut, Trust: rounds.TrustDistributed, NMin: 4000, RoundSize: 5000,
		Deadline: 60000, Delta: 1e-6, Budget: 351003648,
	}); !reflect.DeepEqual(*s, want) {
		t.Errorf("%+v, want %+v", *s, want)
	}
}

// TestSpecIsStrict changes one thing of a specification that is accepted.
func TestSpecIsStrict(t *testing.T) {
	good := string(encode(t, newSpec("films", 2, 3, 10, 100)))
	if _, err := rounds.ParseSpec([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{good, ``, "specification: is not JSON: EOF"},
		{good, `7`, "specification: is no object"},
		{good, `null`, "specification: is no object"},
		{good, good[:40], "specification: is not JSON: unexpected EOF"},
		{good, good + "{}", "specification: goes on after its end"},
		{good, good + strings.Repeat(" ", rounds.MaxSpec), "specification: has 393"},
		{`"films"`, "\"\xff\"", "specification: is not UTF-8"},

		{`{"job"`, `{"Job"`, `specification: has a field "Job", which is unknown or there twice`},
		{`{"job"`, `{"epsilon":4,"job"`, `specification: has a field "epsilon", which is unknown`},
		{`{"job"`, `{"job":"songs","job"`, `specification: has a field "job", which is unknown or there twice`},
		{`"job":"films",`, ``, `specification: has no field "job"`},
		{`"adjacency":"zero-out",`, ``, `specification: has no field "adjacency"`},
		{`"zero-out"`, `null`, "adjacency: is null"},
		{`"scale_bits":4,`, ``, `lattice: has no field "scale_bits"`},
		{`"length":3`, `"length":3,"shape":1`, `releases[0]: has a field "shape"`},
		{`"kind":"sum",`, ``, `releases[0]: has no field "kind"`},

		{`"films"`, `""`, `job: is ""`},
		{`"films"`, `"7films"`, `job: is "7films"`},
		{`"films"`, `"Films"`, `job: is "Films"`},
		{`"films"`, `"a/b"`, `job: is "a/b"`},
		{`"films"`, `"` + strings.Repeat("a", 64) + `"`, `job: is "aaa`},
		{`"films"`, `5`, "job: is 5, want a string"},
		{`"adding"`, `"add ing"`, "method: is"},
		{`{}`, `[]`, "parameters: is no object"},
		{`"zero-out"`, `"add-one"`, `adjacency: is "add-one", want "zero-out" or "replace-one"`},
		{`"distributed"`, `"blind"`, `trust: is "blind", want "distributed", "central" or "local"`},
		{`"modulus_bits":16`, `"modulus_bits":12`, "lattice: want"},
		{`"modulus_bits":16`, `"modulus_bits":72`, "lattice: want"},
		{`"scale_bits":4`, `"scale_bits":53`, "lattice: want"},
		{`"n_min":2`, `"n_min":0`, "n_min: is 0"},
		{`"n_min":2`, `"n_min":5`, "n_min: is 5"},
		{`"n_min":2`, `"n_min":"2"`, `n_min: is "2", want a whole number`},
		{`"n_min":2`, `"n_min":2.5`, `n_min: is 2.5, want a whole number`},
		{`"round_size":4`, `"round_size":99999999`, "round_size: is 99999999"},
		{`"deadline_ms":1000`, `"deadline_ms":0`, "deadline_ms: is 0"},
		{`"deadline_ms":1000`, `"deadline_ms":99999999999`, "deadline_ms: is 99999999999"},
		{`0.000001`, `0`, "delta: is 0"},
		{`0.000001`, `1`, "delta: is 1"},
		{`0.000001`, `1e999`, "delta: is 1e999, want a number"},
		{`"budget_nano_rho":"100"`, `"budget_nano_rho":100`, "budget_nano_rho: is 100, want a whole number of at least 0, in quotes"},
		{`"budget_nano_rho":"100"`, `"budget_nano_rho":"-1"`, `budget_nano_rho: is "-1", want`},
		{`"budget_nano_rho":"100"`, `"budget_nano_rho":"18446744073709551616"`, "budget_nano_rho: is"},
		{`"budget_nano_rho":"100"`, `"budget_nano_rho":"9"`, "budget_nano_rho: has no room for the first round"},

		{`"sum"`, `""`, "releases[0].kind: is"},
		{`"length":3`, `"length":0`, "releases[0].length: is 0"},
		{`"length":3`, `"length":99999999`, "releases[0].length: is 99999999"},
		{`"bound":"100"`, `"bound":"0"`, "releases[0].bound: is 0"},
		{`"bound":"100"`, `"bound":"32768"`, "releases[0].bound: is 32768, want 1 to 32767"},
		{`"sigma":"524288"`, `"sigma":"524287"`, "releases[0].sigma: is 524287"},
		{`"largest":"1000"`, `"largest":"99"`, "releases[0].largest: is 99"},
		{`"largest":"1000"`, `"largest":"32768"`, "releases[0].largest: is 32768"},
		{`"distributed"`, `"central"`, "releases[0].largest: is 1000, want the bound, 100"},
		{`"charge_nano_rho":"10"`, `"charge_nano_rho":"0"`, "releases[0].charge_nano_rho: is 0"},
		{`"releases":[`, `"releases":[7,`, "releases[0]: is no object"},
		{`"releases":[`, `"releases":{"a":[`, "releases: is no array"},
	} {
		if !strings.Contains(good, c.old) {
			t.Fatalf("%s is not part of %s", c.old, good)
		}
		bad := strings.Replace(good, c.old, c.new, 1)
		_, err := rounds.ParseSpec([]byte(bad))
		var specErr *rounds.SpecError
		if !errors.As(err, &specErr) || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.50q instead of %.50q: %v, want %s", c.new, c.old, err, c.want)
		}
	}
	for _, n := range []int{0, 4097} {
		s := newSpec("films", n, 3, 10, 100)
		if s.Releases == nil {
			s.Releases = []rounds.Release{}
		}
		b := bytes.ReplaceAll(encode(t, s), []byte(`{"kind":"sum","length":3,"bound":"100","sigma":"524288","largest":"1000","charge_nano_rho":"10"}`),
			[]byte(`{"kind":"a","length":3,"bound":"1","sigma":"524288","largest":"9","charge_nano_rho":"1"}`))
		if _, err := rounds.ParseSpec(b); err == nil || !strings.HasPrefix(err.Error(), "releases: are ") {
			t.Errorf("%d releases: %v", n, err)
		}
	}
}

func FuzzParseSpec(f *testing.F) {
	paths, _ := filepath.Glob("testdata/specs/*.json")
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(encode(f, newSpec("films", 1, 3, 10, 100)))
	f.Fuzz(func(t *testing.T, b []byte) {
		spec, err := rounds.ParseSpec(b)
		if err != nil {
			var specErr *rounds.SpecError
			if !errors.As(err, &specErr) || specErr.Field == "" || strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("error %q", err)
			}
			return
		}
		again, err := rounds.ParseSpec(encode(t, spec))
		if err != nil {
			t.Fatalf("written again: %v", err)
		}
		var a, b2 bytes.Buffer
		if json.Compact(&a, spec.Parameters) != nil || json.Compact(&b2, again.Parameters) != nil {
			t.Fatal("parameters are not JSON")
		}
		spec.Parameters, again.Parameters = nil, nil
		if !reflect.DeepEqual(spec, again) {
			t.Fatalf("written again, %+v is %+v", spec, again)
		}
	})
}
