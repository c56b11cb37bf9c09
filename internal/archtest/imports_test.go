package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
)

// pkg is what go list says of a package.
type pkg struct {
	ImportPath string
	Dir        string
	Doc        string
	Standard   bool
	Imports    []string
	Deps       []string
	GoFiles    []string
}

// name is the path as the rules write it.
func (p *pkg) name() string { return strings.TrimPrefix(p.ImportPath, module) }

func (p *pkg) ours() bool { return strings.HasPrefix(p.ImportPath, module) }

// packages lists the module's packages and everything they need.
var packages = sync.OnceValues(func() (map[string]*pkg, error) {
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,Doc,Standard,Imports,Deps,GoFiles", module+"...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.Join(err, errors.New(stderr.String()))
	}
	all := map[string]*pkg{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all[p.ImportPath] = &p
	}
})

func load(t *testing.T) map[string]*pkg {
	t.Helper()
	all, err := packages()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return all
}

// below tells whether the path is one of the prefixes or inside one. The
// prefix "*test" stands for packages of tests.
func below(name string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool {
		if p == "*test" {
			return strings.HasSuffix(path.Base(name), "test")
		}
		return p == "" || name == p || "="+name == p || strings.HasPrefix(name, p+"/")
	})
}

func TestImports(t *testing.T) {
	all := load(t)
	for _, b := range bans {
		for _, p := range all {
			if !p.ours() || !below(p.name(), []string{b.from}) || below(p.name(), b.except) {
				continue
			}
			reach := p.Imports
			if b.deep {
				reach = p.Deps
			}
			for _, imp := range reach {
				name := strings.TrimPrefix(imp, module)
				if below(name, b.to) && !below(name, b.except) {
					t.Errorf("%s imports %s: %s", p.name(), name, b.why)
				}
			}
		}
	}
}

// TestSiblings keeps the implementations of a contract apart.
func TestSiblings(t *testing.T) {
	for _, p := range load(t) {
		if !p.ours() {
			continue
		}
		contract, impl, ok := strings.Cut(p.name(), "/")
		if !ok || !slices.Contains(contracts, contract) {
			continue
		}
		for _, imp := range p.Imports {
			other, otherImpl, ok := strings.Cut(strings.TrimPrefix(imp, module), "/")
			if ok && slices.Contains(contracts, other) && other != contract && strings.HasPrefix(imp, module) && !strings.HasSuffix(otherImpl, "test") && !strings.HasSuffix(impl, "test") {
				if other+"/"+otherImpl != "registry/client" { // the image store is a client of registries
					t.Errorf("%s imports %s: implementations know other contracts, not their implementations", p.name(), other+"/"+otherImpl)
				}
			}
		}
	}
}

// TestContracts keeps contracts free of implementations.
func TestContracts(t *testing.T) {
	for _, p := range load(t) {
		if !p.ours() || !slices.Contains(contracts, p.name()) {
			continue
		}
		for _, imp := range p.Imports {
			name := strings.TrimPrefix(imp, module)
			if strings.HasPrefix(imp, module) && !slices.Contains(contracts, name) && name != "ociref" {
				t.Errorf("%s imports %s: contracts import contracts only", p.name(), name)
			}
		}
	}
}

func TestProgramsStaySmall(t *testing.T) {
	all := load(t)
	for _, l := range limits {
		p := all[module+l.program]
		if p == nil {
			t.Errorf("no program %s", l.program)
			continue
		}
		count := 0
		for _, dep := range p.Deps {
			if !strings.HasPrefix(dep, module) {
				count++
			}
		}
		t.Logf("%s links %d packages that are not ours, of %d", l.program, count, l.max)
		if count > l.max {
			t.Errorf("%s links %d packages that are not ours, the limit is %d: %s", l.program, count, l.max, l.why)
		}
	}
}

// TestPackageComments wants to know of every package what it is for.
func TestPackageComments(t *testing.T) {
	for _, p := range load(t) {
		if !p.ours() {
			continue
		}
		want := "Package " + path.Base(p.ImportPath) + " "
		if strings.HasPrefix(p.Doc, want) || strings.HasPrefix(p.Doc, "Command "+path.Base(p.ImportPath)+" ") {
			continue
		}
		t.Errorf("%s: the package comment does not begin with %q (or \"Command …\") but with %q", p.name(), want, p.Doc)
	}
}
