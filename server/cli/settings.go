package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/undertone-fl/undertone/commandline"
)

// envPrefix of the settings of undertone server.
const envPrefix = "UNDERTONE_SERVER_"

// settings are the flags of undertone server, filled in from the environment and
// a file: there is one name, one type and one help text for each.
type settings struct {
	flags *pflag.FlagSet
	from  map[string]string // flag: the variable, or the file and line, that it is from
}

// notSettings are flags that say how to run, and are no node's settings.
var notSettings = []string{"config", "dev", "check", "help"}

func settable(f *pflag.Flag) bool { return !slices.Contains(notSettings, f.Name) }

// key is a setting's name in a file.
func key(f *pflag.Flag) string { return strings.ReplaceAll(f.Name, "-", "_") }

// variable is a setting's name in the environment.
func variable(f *pflag.Flag) string { return envPrefix + strings.ToUpper(key(f)) }

// readSettings sets the flags that were not given from the environment, or else
// from the file, if there is one.
func readSettings(flags *pflag.FlagSet, file string) (*settings, error) {
	s := &settings{flags, make(map[string]string)}
	if file != "" {
		if err := s.readFile(file); err != nil {
			return nil, err
		}
	}
	var err error
	flags.VisitAll(func(f *pflag.Flag) {
		if value := os.Getenv(variable(f)); value != "" && settable(f) && err == nil {
			values := []string{value}
			if _, isList := f.Value.(pflag.SliceValue); isList {
				values = strings.Split(value, ",")
			}
			err = s.set(f, variable(f), values)
		}
	})
	return s, err
}

// readFile reads a mapping of keys to a value or a list of them; JSON is YAML
// too.
func (s *settings) readFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return flagf("config", "%w", pathProblem(err))
	}
	defer f.Close()
	var lines map[string]yaml.Node
	decoder := yaml.NewDecoder(f)
	switch err := decoder.Decode(&lines); {
	case errors.Is(err, io.EOF):
		return nil // empty, or nothing but comments
	case err != nil:
		return usagef("%s: %s", path, strings.TrimPrefix(strings.ReplaceAll(err.Error(), "yaml: unmarshal errors:\n  ", ""), "yaml: "))
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return usagef("%s: there is a second document", path)
	}
	// In the order of the file, so that the first mistake is the first line's.
	names := make([]string, 0, len(lines))
	for name := range lines {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return lines[a].Line - lines[b].Line })
	for _, name := range names {
		if err := s.readLine(path, name, lines[name]); err != nil {
			return err
		}
	}
	return nil
}

func (s *settings) readLine(path, name string, value yaml.Node) error {
	place := fmt.Sprintf("%s:%d: %s", path, value.Line, name)
	f := s.flags.Lookup(strings.ReplaceAll(name, "_", "-"))
	if f == nil || !settable(f) || name != key(f) {
		hint := ""
		if near := commandline.Nearest(name, s.keys()); near != "" {
			hint = fmt.Sprintf(" (did you mean %s?)", near)
		}
		return usagef("%s: no such setting%s", place, hint)
	}
	values := []*yaml.Node{&value}
	if _, isList := f.Value.(pflag.SliceValue); isList && value.Kind == yaml.SequenceNode {
		values = value.Content
	}
	var texts []string
	for _, v := range values {
		if v.Kind != yaml.ScalarNode || v.Tag == "!!null" {
			return usagef("%s: the value is not %s", place, commandline.Kind(f.Value.Type()))
		}
		texts = append(texts, v.Value)
	}
	return s.set(f, place, texts)
}

// set sets a flag that was not given on the command line.
func (s *settings) set(f *pflag.Flag, place string, values []string) error {
	if f.Changed {
		return nil
	}
	if list, isList := f.Value.(pflag.SliceValue); isList {
		for i := range values {
			values[i] = strings.TrimSpace(values[i])
		}
		s.from[f.Name] = place
		return list.Replace(values)
	}
	if err := f.Value.Set(values[0]); err != nil {
		return usagef("%s: %q is not %s", place, values[0], commandline.Kind(f.Value.Type()))
	}
	s.from[f.Name] = place
	return nil
}

func (s *settings) keys() []string {
	var list []string
	s.flags.VisitAll(func(f *pflag.Flag) {
		if settable(f) {
			list = append(list, key(f))
		}
	})
	return list
}

// given reports whether a setting is not the default.
func (s *settings) given(flag string) bool {
	return s.from[flag] != "" || s.flags.Changed(flag)
}

// place is what a user has to change to change a setting.
func (s *settings) place(flag string) string {
	switch place := s.from[flag]; {
	case place != "":
		return place
	case s.flags.Lookup(flag) == nil:
		return strings.ReplaceAll(flag, "-", "_")
	}
	return "--" + flag
}

// source is where a setting is from.
func (s *settings) source(flag string) string {
	switch {
	case s.from[flag] != "":
		return strings.TrimSuffix(s.from[flag], ": "+strings.ReplaceAll(flag, "-", "_"))
	case s.flags.Changed(flag):
		return "--" + flag
	}
	return "default"
}

// blame puts the place of a setting before a mistake that names the flag.
func (s *settings) blame(flag string, err error) error {
	return usagef("%s%s", s.place(flag), strings.TrimPrefix(err.Error(), "--"+flag))
}

// text is a flag's value as one would write it.
func text(f *pflag.Flag) string {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return strings.Join(list.GetSlice(), ", ")
	}
	return f.Value.String()
}
