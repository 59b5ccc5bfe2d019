package rounds

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/undertone-fl/undertone/dp"
	"github.com/undertone-fl/undertone/dp/noise"
)

// Bounds of a specification, which arrives over a network.
const (
	MaxSpec      = 384 << 10            // bytes, so that it fits a log entry
	MaxLength    = 1 << 24              // coordinates
	MaxRoundSize = 1 << 24              // contributions
	MaxDeadline  = 366 * 24 * time.Hour // a year

	maxName     = 63
	maxReleases = 4096
	maxBound    = 1 << 52
	maxDeadline = int64(MaxDeadline / time.Millisecond)
)

// ParseSpec reads a specification, and fails with a *SpecError unless it is one
// that a job can have: every field there once, under its exact name, no others,
// and each in its range. Whether the figures agree with one another - whether
// the charges pay for the releases - depends on the method, and is not checked
// here.
func ParseSpec(b []byte) (*Spec, error) {
	s, err := parseSpec(b)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func parseSpec(b []byte) (*Spec, *SpecError) {
	switch {
	case len(b) > MaxSpec:
		return nil, specError(wholeSpec, "has %d bytes, and may have %d", len(b), MaxSpec)
	case !utf8.Valid(b):
		return nil, specError(wholeSpec, "is not UTF-8")
	}
	s := new(Spec)
	if err := decodeObject(b, wholeSpec, reflect.ValueOf(s).Elem()); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return s, nil
}

// wholeSpec stands for the specification itself where an error names a field.
const wholeSpec = "specification"

// SpecError is a field that is out of range.
type SpecError struct{ Field, Problem string }

func (e *SpecError) Error() string { return e.Field + ": " + e.Problem }

func specError(field, format string, args ...any) *SpecError {
	return &SpecError{field, fmt.Sprintf(format, args...)}
}

// decodeObject reads a JSON object into a struct. It is stricter than
// json.Unmarshal, which ignores the case of names, and takes the last of two
// fields of one name, null for nothing, and a field that is not there for zero.
func decodeObject(b []byte, path string, dst reflect.Value) *SpecError {
	missing := make(map[string]int) // field by name
	for i := range dst.NumField() {
		missing[nameOf(dst, i)] = i
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil {
		return specError(path, "is not JSON: %v", err)
	} else if t != json.Delim('{') {
		return specError(path, "is no object")
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return specError(path, "is not JSON: %v", err)
		}
		name := t.(string)
		at := name
		if path != wholeSpec {
			at = path + "." + name
		}
		i, wanted := missing[name]
		if !wanted {
			return specError(path, "has a field %.64q, which is unknown or there twice", name)
		}
		delete(missing, name)
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return specError(path, "is not JSON: %v", err)
		}
		if string(value) == "null" {
			return specError(at, "is null")
		}
		if err := decodeField(value, name, at, dst, i); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return specError(path, "is not JSON: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return specError(path, "goes on after its end")
	}
	for i := range dst.NumField() { // not the map: the first one missing is always the same
		if _, is := missing[nameOf(dst, i)]; is {
			return specError(path, "has no field %q", nameOf(dst, i))
		}
	}
	return nil
}

// nameOf is the name of field i of a struct in JSON.
func nameOf(v reflect.Value, i int) string {
	name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
	return name
}

// decodeField reads field i of dst, whose name in JSON is name.
func decodeField(value []byte, name, path string, dst reflect.Value, i int) *SpecError {
	field := dst.Field(i)
	switch {
	case field.Kind() == reflect.Struct:
		return decodeObject(value, path, field)
	case field.Kind() == reflect.Slice && field.Type().Elem().Kind() == reflect.Struct:
		var elements []json.RawMessage
		if err := json.Unmarshal(value, &elements); err != nil {
			return specError(path, "is no array")
		}
		field.Set(reflect.MakeSlice(field.Type(), len(elements), len(elements)))
		for k, element := range elements {
			if err := decodeObject(element, fmt.Sprintf("%s[%d]", path, k), field.Index(k)); err != nil {
				return err
			}
		}
		return nil
	}
	// As part of an object, so that the field's tag counts.
	object := fmt.Appendf(nil, "{%q:%s}", name, value)
	if err := json.Unmarshal(object, dst.Addr().Interface()); err != nil {
		var line bytes.Buffer
		if err := json.Compact(&line, value); err != nil {
			return specError(path, "is not JSON: %v", err)
		}
		return specError(path, "is %.64s, want %s", line.Bytes(), want(field, dst.Type().Field(i).Tag))
	}
	return nil
}

// want describes the JSON of a field.
func want(field reflect.Value, tag reflect.StructTag) string {
	var s string
	switch {
	case field.Type() == reflect.TypeFor[dp.Adjacency]():
		return `"zero-out" or "replace-one"`
	case field.CanUint():
		s = "a whole number of at least 0"
	case field.CanInt():
		s = "a whole number"
	case field.CanFloat():
		s = "a number"
	default:
		s = "a " + field.Kind().String()
	}
	if strings.HasSuffix(tag.Get("json"), ",string") {
		s += ", in quotes"
	}
	return s
}

// check returns the first field that is out of range.
func (s *Spec) check() *SpecError {
	if err := s.Lattice.Validate(); err != nil || s.Lattice.ModulusBits%8 != 0 {
		return specError("lattice", "want scale_bits up to 52, and modulus_bits a multiple of 8 up to 64")
	}
	switch {
	case !validName(s.Job):
		return specError("job", "is %.64q, want %s", s.Job, nameRule)
	case !validName(s.Method):
		return specError("method", "is %.64q, want %s", s.Method, nameRule)
	case s.Parameters[0] != '{':
		return specError("parameters", "is no object")
	case len(s.Releases) < 1 || len(s.Releases) > maxReleases:
		return specError("releases", "are %d, want 1 to %d", len(s.Releases), maxReleases)
	case s.Trust != TrustDistributed && s.Trust != TrustCentral && s.Trust != TrustLocal:
		return specError("trust", "is %.64q, want %q, %q or %q", s.Trust, TrustDistributed, TrustCentral, TrustLocal)
	case s.RoundSize < 1 || s.RoundSize > MaxRoundSize:
		return specError("round_size", "is %d, want 1 to %d", s.RoundSize, MaxRoundSize)
	case s.NMin < 1 || s.NMin > s.RoundSize:
		return specError("n_min", "is %d, want 1 to the round_size, %d", s.NMin, s.RoundSize)
	case s.Deadline < 1 || s.Deadline > maxDeadline:
		return specError("deadline_ms", "is %d, want 1 to %d", s.Deadline, maxDeadline)
	case !(s.Delta > 0 && s.Delta < 1):
		return specError("delta", "is %v, want a number between 0 and 1", s.Delta)
	case s.Budget < s.Releases[0].Charge:
		return specError("budget_nano_rho", "has no room for the first round")
	}
	for i, r := range s.Releases {
		if err := s.checkRelease(r); err != nil {
			err.Field = fmt.Sprintf("releases[%d].%s", i, err.Field)
			return err
		}
	}
	return nil
}

func (s *Spec) checkRelease(r Release) *SpecError {
	largest := uint64(1)<<(s.Lattice.ModulusBits-1) - 1
	bound := min(largest, maxBound)
	switch {
	case !validName(r.Kind):
		return specError("kind", "is %.64q, want %s", r.Kind, nameRule)
	case r.Length < 1 || r.Length > MaxLength:
		return specError("length", "is %d, want 1 to %d", r.Length, MaxLength)
	case r.Bound < 1 || r.Bound > bound:
		return specError("bound", "is %d, want 1 to %d", r.Bound, bound)
	case r.Sigma < noise.MinSigma || r.Sigma > noise.MaxSigma:
		return specError("sigma", "is %d, want %d to %d", r.Sigma, noise.MinSigma, noise.MaxSigma)
	case s.Trust == TrustCentral && r.Largest != r.Bound:
		return specError("largest", "is %d, want the bound, %d: contributions arrive without noise", r.Largest, r.Bound)
	case r.Largest < r.Bound || r.Largest > largest:
		return specError("largest", "is %d, want the bound, %d, to %d", r.Largest, r.Bound, largest)
	case r.Charge < 1:
		return specError("charge_nano_rho", "is 0: no release is free")
	}
	return nil
}

const nameRule = "1 to 63 lower-case letters, digits and dashes, the first a letter"

// validName reports whether s is what a job, a method or a kind may be called.
func validName(s string) bool {
	if len(s) < 1 || len(s) > maxName || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
