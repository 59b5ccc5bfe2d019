package main

import (
	"encoding/json"
	"fmt"
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

// testsMayImport are the exceptions for tests, package by package. What is built
// into a program stays within mayImport.
var testsMayImport = map[string][]string{
	// Contributions to aggregate are made by the client's half of the method.
	"aggregation/lowrank": {"client/local"},
	"server/pages":        {"client/local"},
	// A device is held to its promises against a real server, and one that was restored.
	"client": {"server", "server/authority", "server/replication"},
	// Connections and agents need certificates, which the authority issues.
	"client/cmd/undertone-agent": {"server/authority"},
	"proto/identity/grpctls":     {"server/authority"},
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
	ImportPath   string
	Standard     bool
	Imports      []string
	TestImports  []string // of its _test files
	XTestImports []string // of those in a package of their own
	Deps         []string
}

// TestImportDirections holds the layout: imports run down mayImport only, those of
// tests with the exceptions of testsMayImport, each of which is needed.
func TestImportDirections(t *testing.T) {
	needed := map[string]bool{}
	for _, p := range modulePackages(t) {
		from := folder(p.ImportPath)
		if _, known := mayImport[from]; !known {
			t.Errorf("%s: %s/ is no folder of the layout", p.ImportPath, from)
		}
		for _, imported := range p.Imports {
			if why := refusal(p.ImportPath, imported); why != "" {
				t.Error(why)
			}
		}
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			why := refusal(p.ImportPath, imported)
			switch {
			case why == "":
			case testMayImport(p.ImportPath, imported):
				needed[p.ImportPath+" "+imported] = true
			default:
				t.Errorf("in a test, %s", why)
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
	for importer, all := range testsMayImport {
		for _, imported := range all {
			if !needed[module+"/"+importer+" "+module+"/"+imported] {
				t.Errorf("no test of %s needs its exception for %s", importer, imported)
			}
		}
	}
}

// refusal says why a package may not import another; empty where it may.
func refusal(importer, imported string) string {
	if !within(imported, module) || imported == importer {
		return ""
	}
	from, to := folder(importer), folder(imported)
	isCLI := path.Base(imported) == "cli"
	switch {
	case to == "commandline":
		if importer != module && path.Base(importer) != "cli" && !within(importer, module+"/client/cmd") {
			return fmt.Sprintf("%s imports %s, which is for programs", importer, imported)
		}
	case importer == module && !isCLI:
		return fmt.Sprintf("main imports %s: it assembles subcommands, and nothing else", imported)
	case importer != module && isCLI:
		return fmt.Sprintf("%s imports %s, which is main's", importer, imported)
	case importer != module && to != from && !slices.Contains(mayImport[from], to):
		return fmt.Sprintf("%s imports %s: %s/ may import %v", importer, imported, from, mayImport[from])
	}
	return ""
}

func testMayImport(importer, imported string) bool {
	return slices.Contains(testsMayImport[strings.TrimPrefix(importer, module+"/")], strings.TrimPrefix(imported, module+"/"))
}

// TestExceptionsForTests are for the packages that are named, and no others.
func TestExceptionsForTests(t *testing.T) {
	for _, c := range []struct {
		importer, imported string
		production, test   bool
	}{
		{"client", "aggregation/jobs", true, true},
		{"client", "server/authority", false, true},
		{"client", "server/replication", false, true},
		{"client", "server/ingest", false, false},
		{"client/local", "server", false, false},
		{"dp/noise", "aggregation", false, false},
	} {
		importer, imported := module+"/"+c.importer, module+"/"+c.imported
		production := refusal(importer, imported) == ""
		if test := production || testMayImport(importer, imported); production != c.production || test != c.test {
			t.Errorf("%s may import %s: %v, its tests %v", c.importer, c.imported, production, test)
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
	out, err := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Imports,TestImports,XTestImports,Deps", "./...").Output()
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
