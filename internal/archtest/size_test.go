package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"testing"
)

// TestSizes lists what has grown so large that it deserves another look. It
// never fails: a long table is fine, a long function seldom is.
func TestSizes(t *testing.T) {
	for _, p := range load(t) {
		if !p.ours() {
			continue
		}
		total := 0
		for _, name := range p.GoFiles {
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Error(err)
				continue
			}
			lines := fset.File(file.Pos()).LineCount()
			total += lines
			if lines > largeFile {
				t.Logf("large file: %s/%s has %d lines", p.name(), name, lines)
			}
			for _, decl := range file.Decls {
				f, ok := decl.(*ast.FuncDecl)
				if !ok {
					continue
				}
				if n := fset.Position(f.End()).Line - fset.Position(f.Pos()).Line; n > largeFunction {
					t.Logf("large function: %s/%s: %s has %d lines", p.name(), name, f.Name.Name, n)
				}
			}
		}
		if total > largePackage {
			t.Logf("large package: %s has %d lines", p.name(), total)
		}
	}
}

// TestRulesHaveReasons keeps the data honest.
func TestRulesHaveReasons(t *testing.T) {
	for _, b := range bans {
		if b.why == "" || len(b.to) == 0 {
			t.Errorf("a ban without a reason or without a target: %+v", b)
		}
	}
	if len(foreign) == 0 {
		t.Error("nothing is foreign")
	}
}
