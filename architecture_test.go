package main

import (
	"encoding/json"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/undertone-fl/undertone"

// mayImport is the layering: a folder's packages may import those of the
// folders listed, and of their own.
var mayImport = map[string][]string{
	"":            {}, // main: the cli packages alone, see below
	"simulations": {"server", "client", "aggregation", "dp", "proto", "commandline"},
	"server":      {"aggregation", "dp", "proto", "commandline"},
	"client":      {"aggregation", "dp", "proto", "commandline"},
	"aggregation": {"dp"},
	"dp":          {},
	"proto":       {},
	"commandline": {},
}

// mayNotReach are modules and folders that a folder must not depend on, not
// even through others.
var mayNotReach = map[string][]string{
	"aggregation": {"google.golang.org/grpc", "google.golang.org/protobuf", "github.com/hashicorp/raft", module + "/proto"},
	"dp":          {"google.golang.org/grpc", "google.golang.org/protobuf", "github.com/hashicorp/raft", module + "/proto"},
	"client":      {"github.com/hashicorp/raft"},
}

// vague are names that say nothing of what a package holds.
var vague = []string{"util", "utils", "common", "helper", "helpers", "types", "misc", "base"}

type goPackage struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
}

// TestImportDirections holds the layout: imports run down mayImport only.
func TestImportDirections(t *testing.T) {
	for _, p := range modulePackages(t) {
		from := folder(p.ImportPath)
		allowed, known := mayImport[from]
		if !known {
			t.Errorf("%s: %s/ is no folder of the layout", p.ImportPath, from)
		}
		for _, imported := range p.Imports {
			if !within(imported, module) {
				continue
			}
			isCLI := path.Base(imported) == "cli"
			switch to := folder(imported); {
			case to == "commandline":
				if name := p.ImportPath; name != module && path.Base(name) != "cli" && !within(name, module+"/client/cmd") {
					t.Errorf("%s imports %s, which is for programs", name, imported)
				}
			case p.ImportPath == module && !isCLI:
				t.Errorf("main imports %s: it assembles subcommands, and nothing else", imported)
			case p.ImportPath != module && isCLI:
				t.Errorf("%s imports %s, which is main's", p.ImportPath, imported)
			case p.ImportPath != module && to != from && !slices.Contains(allowed, to):
				t.Errorf("%s imports %s: %s/ may import %v", p.ImportPath, imported, from, allowed)
			}
		}
		for _, forbidden := range mayNotReach[from] {
			for _, dep := range p.Deps {
				if within(dep, forbidden) {
					t.Errorf("%s depends on %s", p.ImportPath, dep)
				}
			}
		}
	}
}

func TestPackagesHaveNames(t *testing.T) {
	for _, p := range modulePackages(t) {
		for part := range strings.SplitSeq(strings.TrimPrefix(p.ImportPath, module), "/") {
			if slices.Contains(vague, part) {
				t.Errorf("%s: %q says nothing of what it holds", p.ImportPath, part)
			}
		}
	}
}

// modulePackages returns the packages of this module.
func modulePackages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var ours []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p goPackage
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		if within(p.ImportPath, module) {
			ours = append(ours, p)
		}
	}
	if len(ours) < 5 {
		t.Fatalf("go list found %d packages of %s", len(ours), module)
	}
	return ours
}

// folder is the top folder of a package of this module, "" for main.
func folder(importPath string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(importPath, module), "/"), "/")
	return first
}

func within(importPath, tree string) bool {
	return importPath == tree || strings.HasPrefix(importPath, tree+"/")
}
