// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package layout_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	module = "github.com/deucaliondb/deucalion"
	header = "// Copyright The Deucalion Authors\n// SPDX-License-Identifier: Apache-2.0\n"
	// maxLines is the length at which a file holds more than one noun or verb.
	maxLines = 450
)

// ranks orders the top-level folders: a package imports only from folders of a lower rank, or its own.
var ranks = map[string]int{"internal": 0, "storage": 1, "fsm": 2, "cluster": 3, "monitor": 4, "api": 5, "cmd": 6, "test": 7}

// exceptions are imports against the order that are meant.
var exceptions = map[string]string{
	"cmd": "test/bench", // the load generator is a command, and its logic is a test's tool as well
}

// pkg is what go list tells of a package.
type pkg struct {
	ImportPath, Dir                                              string
	GoFiles, CgoFiles, IgnoredGoFiles, TestGoFiles, XTestGoFiles []string
	Imports, TestImports, XTestImports                           []string
}

func (p pkg) path() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

func (p pkg) top() string { return strings.Split(p.path(), "/")[0] }

// files lists all Go files of the package, tests and files for other build tags too.
func (p pkg) files() []string {
	var out []string
	for _, names := range [][]string{p.GoFiles, p.CgoFiles, p.IgnoredGoFiles, p.TestGoFiles, p.XTestGoFiles} {
		for _, name := range names {
			out = append(out, filepath.Join(p.Dir, name))
		}
	}
	return out
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p pkg
		require.NoError(t, dec.Decode(&p))
		all = append(all, p)
	}
	require.NotEmpty(t, all)
	return all
}

func TestImportDirection(t *testing.T) {
	for _, p := range packages(t) {
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if err := allowed(p, imported); err != nil {
				t.Error(err)
			}
		}
	}
}

// allowed tells why p may not import a package; nil when it may.
func allowed(p pkg, imported string) error {
	to, ours := strings.CutPrefix(imported, module+"/")
	if !ours {
		return nil
	}
	top := strings.Split(to, "/")[0]
	if exception := exceptions[p.top()]; exception != "" && (to == exception || strings.HasPrefix(to, exception+"/")) {
		return nil
	}
	from, known := ranks[p.top()]
	if !known {
		return fmt.Errorf("%s: folder %q has no rank in this test", p.path(), p.top())
	}
	if rank, known := ranks[top]; !known || rank > from {
		return fmt.Errorf("%s imports %s: against cmd -> api -> monitor -> cluster -> fsm -> storage", p.path(), to)
	}
	return nil
}

func TestAllowed(t *testing.T) {
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"api", "cluster", true},
		{"cluster/wire", "cluster", true},
		{"cluster", "cluster/wire", true},
		{"storage", "fsm", false},
		{"cluster", "api/remotewrite", false},
		{"cmd/deucalion-bench", "test/bench", true},
		{"cmd/deucalion", "test/harness", false},
		{"cmd/deucalion", "test/benchmark", false},
		{"test/kill", "storage", true},
		{"nowhere", "storage", false},
	} {
		err := allowed(pkg{ImportPath: module + "/" + c.from}, module+"/"+c.to)
		require.Equal(t, c.ok, err == nil, "%s -> %s: %v", c.from, c.to, err)
	}
}

func TestPackageComments(t *testing.T) {
	for _, p := range packages(t) {
		names := slices.Concat(p.GoFiles, p.CgoFiles)
		if len(names) == 0 {
			names = slices.Concat(p.TestGoFiles, p.XTestGoFiles)
		}
		var documented []string
		for _, name := range names {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Error(err)
				continue
			}
			if f.Doc != nil {
				documented = append(documented, name)
			}
		}
		if len(documented) != 1 {
			t.Errorf("%s: want one file with a package comment, have %d %v", p.path(), len(documented), documented)
		}
	}
}

func TestFiles(t *testing.T) {
	for _, p := range packages(t) {
		for _, name := range p.files() {
			text, err := os.ReadFile(name)
			require.NoError(t, err)
			if !bytes.HasPrefix(text, []byte(header)) {
				t.Errorf("%s: no licence header", name)
			}
			lines := bytes.Count(text, []byte("\n"))
			if lines > maxLines && !strings.HasSuffix(name, "_test.go") {
				t.Errorf("%s: %d lines, at most %d", name, lines, maxLines)
			}
		}
	}
}
