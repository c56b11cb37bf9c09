package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestPinnedPaths keeps privileged packages that touch what containers and
// images control from following paths: such a path can lead anywhere by the time
// it is followed. What is not allowed by kind (see byPath) has a place in hostPaths.
func TestPinnedPaths(t *testing.T) {
	used := map[string]bool{}
	for _, p := range load(t) {
		if !p.ours() || !slices.Contains(rootPackages, p.name()) {
			continue
		}
		for _, name := range p.GoFiles {
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Error(err)
				continue
			}
			for _, f := range pathCalls(fset, file) {
				where := p.name() + "." + f.function
				if _, ok := hostPaths[where]; ok {
					used[where] = true
					continue
				}
				t.Errorf("%s: %s: %s in a package that touches root file systems: go by a descriptor (openat2, O_NOFOLLOW), or say in hostPaths why %s may", f.pos, where, f.what, where)
			}
		}
	}
	for where, why := range hostPaths {
		if !used[where] {
			t.Errorf("hostPaths lists %s, which follows no path any more", where)
		}
		if why == "" {
			t.Errorf("hostPaths gives no reason for %s", where)
		}
	}
}

// TestPathCalls shows what the check finds, and what it lets pass.
func TestPathCalls(t *testing.T) {
	for code, want := range map[string]bool{
		`os.Open(name)`: true,
		`os.MkdirAll(filepath.Join(root, name), 0o755)`:               true,
		`os.ReadFile("/proc/self/" + name)`:                           true,
		`unix.Mount("a", target, "b", 0, "")`:                         true,
		`unix.Openat(dir, name, unix.O_RDONLY, 0)`:                    true,
		`unix.Openat(unix.AT_FDCWD, name, unix.O_NOFOLLOW, 0)`:        true,
		`unix.Fchmodat(dir, name, 0o644, 0)`:                          true,
		`unix.Fchownat(dir, name, 0, 0, 0)`:                           true,
		`unix.Fstatat(dir, name, &st, 0)`:                             true,
		`unix.OpenTree(unix.AT_FDCWD, m.Source, flags)`:               true,
		`unix.Linkat(a, b, c, d, unix.AT_SYMLINK_FOLLOW)`:             true,
		`use(unix.OpenHow{Flags: unix.O_PATH})`:                       true,
		`filepath.EvalSymlinks(name)`:                                 true,
		`exec.Command(name)`:                                          true,
		`unix.Lsetxattr(p, "a", nil, 0)`:                              true,
		`os.Open("/dev/null")`:                                        false,
		`os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))`:                false,
		`unix.Open("/proc/self/fd/"+strconv.Itoa(fd), 0, 0)`:          false,
		`unix.Openat(dir, ".", unix.O_RDONLY, 0)`:                     false,
		`unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW, 0)`:      false,
		`unix.Openat(dir, name, flags|unix.O_NOFOLLOW, 0)`:            false,
		`unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)`:      false,
		`unix.Fchownat(dir, "", 0, 0, unix.AT_EMPTY_PATH)`:            false,
		`unix.Linkat(a, b, c, d, 0)`:                                  false,
		`use(unix.OpenHow{Resolve: unix.RESOLVE_IN_ROOT})`:            false,
		`unix.OpenTree(fd, "", unix.AT_EMPTY_PATH)`:                   false,
		`unix.Mkdirat(dir, name, 0o755)`:                              false,
		`unix.MoveMount(a, "", b, "", unix.MOVE_MOUNT_F_EMPTY_PATH)`:  false,
		`unix.MoveMount(a, "", unix.AT_FDCWD, name, 0)`:               true,
		`unix.MoveMount(a, "", unix.AT_FDCWD, "/", 0)`:                false,
		`unix.UtimesNanoAt(d, name, ts, unix.AT_SYMLINK_NOFOLLOW)`:    false,
		`unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/3", ts, 0)`:  false,
		`unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, 0)`:                  true,
		`unix.Mount("", "/", "", unix.MS_PRIVATE, "")`:                false,
		`unix.Unmount(path, 0)`:                                       true,
		`unix.Chmod("/proc/self/fd/"+strconv.Itoa(f), 0o600)`:         false,
		`unix.Openat(s.proc, "self/"+name, unix.O_RDONLY, 0)`:         true,
		`os.Stat("/proc/" + strconv.Itoa(pid) + "/root/etc/passwd")`:  true,
		`os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))`:                false,
		`unix.Open(fmt.Sprintf("/proc/%d/root/%s", pid, name), 0, 0)`: true,
	} {
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, "x.go", "package x\nfunc f() {\n"+code+"\n}", 0)
		if err != nil {
			t.Fatalf("%s: %v", code, err)
		}
		if found := pathCalls(fset, file); (len(found) > 0) != want {
			t.Errorf("%s: found %v, want %v", code, found, want)
		}
	}
}

// finding is one call that follows a path.
type finding struct {
	pos      token.Position
	function string // "name" or "type.name"
	what     string
}

// pathCalls finds the calls of a file that byPath bans.
func pathCalls(fset *token.FileSet, file *ast.File) []finding {
	var out []finding
	for _, decl := range file.Decls {
		name := "var"
		if f, ok := decl.(*ast.FuncDecl); ok {
			name = funcName(f)
		}
		ast.Inspect(decl, func(n ast.Node) bool {
			what := ""
			switch n := n.(type) {
			case *ast.CallExpr:
				what = bannedCall(n)
			case *ast.CompositeLit:
				what = unresolved(n)
			}
			if what != "" {
				out = append(out, finding{fset.Position(n.Pos()), name, what})
			}
			return true
		})
	}
	return out
}

func funcName(f *ast.FuncDecl) string {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return f.Name.Name
	}
	typ := f.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if id, ok := typ.(*ast.Ident); ok {
		return id.Name + "." + f.Name.Name
	}
	return f.Name.Name
}

// unresolved reports an openat2 that leaves links to the kernel.
func unresolved(lit *ast.CompositeLit) string {
	if selector(lit.Type) != "unix.OpenHow" {
		return ""
	}
	for _, e := range lit.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok && selector(kv.Key) == "Resolve" {
			return ""
		}
	}
	return "unix.OpenHow without Resolve"
}

func bannedCall(call *ast.CallExpr) string {
	fn := selector(call.Fun)
	rule, ok := byPath[fn]
	if !ok {
		return ""
	}
	for _, i := range rule.paths {
		if i >= len(call.Args) {
			continue
		}
		dir := ""
		if rule.at && i > 0 {
			dir = selector(call.Args[i-1])
		}
		if harmlessPath(call.Args[i], rule.at && dir != "unix.AT_FDCWD") {
			continue
		}
		if rule.at && dir != "unix.AT_FDCWD" && single(call.Args[i]) && !rule.follows(call) {
			continue
		}
		return fn
	}
	return ""
}

// harmlessPath: a constant of our own, a descriptor's name, or "" and "." below
// a descriptor.
func harmlessPath(arg ast.Expr, below bool) bool {
	switch a := arg.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(a.Value)
		return err == nil && (strings.HasPrefix(s, "/") || below && (s == "" || s == "."))
	case *ast.BinaryExpr: // "/proc/self/fd/" + number
		lit, ok := a.X.(*ast.BasicLit)
		call, isCall := a.Y.(*ast.CallExpr)
		return ok && isCall && lit.Value == `"/proc/self/fd/"` && (selector(call.Fun) == "strconv.Itoa" || selector(call.Fun) == "itoa")
	case *ast.CallExpr:
		if selector(a.Fun) == "procFd" {
			return true
		}
		if selector(a.Fun) != "fmt.Sprintf" || len(a.Args) == 0 {
			return false
		}
		lit, ok := a.Args[0].(*ast.BasicLit)
		// Numbers only; and not through another process's root.
		return ok && strings.HasPrefix(lit.Value, `"/proc/`) && !strings.Contains(lit.Value, "%s") && !strings.Contains(lit.Value, "%v") && !strings.Contains(lit.Value, "/root/")
	}
	return false
}

// single: as far as can be seen, the argument is one name and not a path.
func single(arg ast.Expr) bool {
	switch a := arg.(type) {
	case *ast.Ident, *ast.SelectorExpr, *ast.IndexExpr:
		return true
	case *ast.CallExpr:
		return selector(a.Fun) == "path.Base" || selector(a.Fun) == "filepath.Base"
	case *ast.BasicLit:
		return !strings.Contains(a.Value, "/")
	}
	return false
}

// selector writes a.b as "a.b", also for a dereferenced or parenthesised one.
func selector(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return selector(e.X) + "." + e.Sel.Name
	case *ast.ParenExpr:
		return selector(e.X)
	}
	return ""
}

// mentions tells whether an expression contains one of the names.
func mentions(e ast.Expr, names ...string) bool {
	found := false
	ast.Inspect(e, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && slices.Contains(names, selector(s)) {
			found = true
		}
		return !found
	})
	return found
}

func (r *pathRule) follows(call *ast.CallExpr) bool {
	if r.flags >= len(call.Args) {
		return false
	}
	f := call.Args[r.flags]
	return len(r.nofollow) > 0 && !mentions(f, r.nofollow...) || len(r.following) > 0 && mentions(f, r.following...)
}
