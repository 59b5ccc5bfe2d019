package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/undertone-fl/undertone/dp"
)

// mistyped says what is wrong with JSON that is none of a struct of type t, in the words of
// its format: encoding/json's error, err, has those of this program.
func mistyped(b []byte, t reflect.Type, err error) error {
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		return fmt.Errorf("no JSON: %w", syntax)
	}
	if path, want := misfit(b, t); path != "" {
		return fmt.Errorf("field %.128q: not %s", path, want)
	}
	return errors.New("a value of it is not of its field's type")
}

// misfit finds a field that cannot be read, and what it ought to be; empty if each can.
func misfit(b []byte, t reflect.Type) (path, want string) {
	var values map[string]json.RawMessage
	if json.Unmarshal(b, &values) != nil {
		return "", ""
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		quoted, err := json.Marshal(key)
		if err != nil {
			continue
		}
		alone := fmt.Appendf(nil, "{%s:%s}", quoted, values[key])
		if json.Unmarshal(alone, reflect.New(t).Interface()) == nil {
			continue
		}
		field, there := fieldOf(t, key)
		if !there {
			continue
		}
		if inner, want := inside(values[key], field.Type); inner != "" {
			return key + inner, want
		}
		return key, wanted(field)
	}
	return "", ""
}

// inside looks for the field within a value, if that has any.
func inside(b []byte, t reflect.Type) (path, want string) {
	switch {
	case t.Kind() == reflect.Struct:
		if path, want := misfit(b, t); path != "" {
			return "." + path, want
		}
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		var elements []json.RawMessage
		if json.Unmarshal(b, &elements) != nil {
			return "", ""
		}
		for i, element := range elements {
			if json.Unmarshal(element, reflect.New(t.Elem()).Interface()) == nil {
				continue
			}
			if path, want := misfit(element, t.Elem()); path != "" {
				return fmt.Sprintf("[%d].%s", i, path), want
			}
			return fmt.Sprintf("[%d]", i), "an object"
		}
	}
	return "", ""
}

// fieldOf is the field that encoding/json takes a name for.
func fieldOf(t reflect.Type, name string) (reflect.StructField, bool) {
	for _, field := range reflect.VisibleFields(t) {
		tag, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if tag != "" && strings.EqualFold(tag, name) {
			return field, true
		}
	}
	return reflect.StructField{}, false
}

// wanted describes what a field's JSON ought to be.
func wanted(field reflect.StructField) string {
	switch field.Type {
	case reflect.TypeFor[Digest]():
		return "64 hexadecimal digits"
	case reflect.TypeFor[dp.Adjacency]():
		return `"zero-out" or "replace-one"`
	}
	var s string
	switch zero := reflect.Zero(field.Type); {
	case zero.CanUint():
		s = "a whole number from 0 on"
	case zero.CanInt():
		s = "a whole number"
	case zero.CanFloat():
		s = "a number"
	case field.Type.Kind() == reflect.Bool:
		s = "true or false"
	case field.Type.Kind() == reflect.String:
		s = "a text"
	case field.Type.Kind() == reflect.Slice:
		s = "a list"
	default:
		s = "an object"
	}
	if strings.HasSuffix(field.Tag.Get("json"), ",string") {
		s += ", in quotes"
	}
	return s
}
