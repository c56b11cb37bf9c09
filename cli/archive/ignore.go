package archive

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/errdefs"
)

// Ignore is a list of patterns as in .dockerignore: `*` and `?` within a path
// segment, `**` for any number of segments, `!` in front brings back what an
// earlier pattern left out. The last match decides.
type Ignore struct {
	rules []rule
	// brings tells that some rule begins with `!`: then directories left out
	// must be looked into.
	brings bool
}

type rule struct {
	parts []string
	keep  bool
}

// ParseIgnore reads a .dockerignore.
func ParseIgnore(r io.Reader) (*Ignore, error) {
	raw, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	raw = bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))
	ig := &Ignore{}
	sc := bufio.NewScanner(bytes.NewReader(raw))
	for sc.Scan() {
		if line := sc.Text(); !strings.HasPrefix(line, "#") {
			if err := ig.Add(line); err != nil {
				return nil, err
			}
		}
	}
	return ig, sc.Err()
}

// Add appends one pattern; an empty one has no effect.
func (ig *Ignore) Add(line string) error {
	line = strings.TrimSpace(line)
	r := rule{}
	if rest, ok := strings.CutPrefix(line, "!"); ok {
		r.keep, line = true, strings.TrimSpace(rest)
	}
	if line == "" {
		if r.keep {
			return fmt.Errorf("illegal exclusion pattern: \"!\": %w", errdefs.ErrInvalidArgument)
		}
		return nil
	}
	line = strings.TrimPrefix(path.Clean(line), "/")
	r.parts = strings.Split(line, "/")
	for _, p := range r.parts {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("pattern %q: %w: %w", line, err, errdefs.ErrInvalidArgument)
		}
	}
	ig.brings = ig.brings || r.keep
	ig.rules = append(ig.rules, r)
	return nil
}

// Skip has the form of WriteOptions.Skip.
func (ig *Ignore) Skip(rel string, dir bool) (skip, prune bool) {
	if !ig.Match(rel) {
		return false, false
	}
	return true, dir && !ig.mayKeep(rel)
}

// Match reports whether rel is left out. A pattern that matches a directory
// matches all that is in it.
func (ig *Ignore) Match(rel string) bool {
	parts := strings.Split(rel, "/")
	out := false
	for _, r := range ig.rules {
		if out == !r.keep {
			continue // it would change nothing
		}
		for n := 1; n <= len(parts); n++ {
			if matchParts(r.parts, parts[:n]) {
				out = !r.keep
				break
			}
		}
	}
	return out
}

// mayKeep reports whether something below the directory could be brought back.
func (ig *Ignore) mayKeep(dir string) bool {
	if !ig.brings {
		return false
	}
	parts := strings.Split(dir, "/")
	for _, r := range ig.rules {
		if r.keep && couldBeBelow(r.parts, parts) {
			return true
		}
	}
	return false
}

func couldBeBelow(pattern, dir []string) bool {
	for i, d := range dir {
		if i >= len(pattern) {
			return false
		}
		if pattern[i] == "**" {
			return true
		}
		if ok, _ := path.Match(pattern[i], d); !ok {
			return false
		}
	}
	return true
}

func matchParts(pattern, name []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			for n := 0; n <= len(name); n++ {
				if matchParts(pattern[1:], name[n:]) && (len(pattern) > 1 || len(name) > 0) {
					return true
				}
			}
			return false
		}
		if len(name) == 0 {
			return false
		}
		if ok, _ := path.Match(pattern[0], name[0]); !ok {
			return false
		}
		pattern, name = pattern[1:], name[1:]
	}
	return len(name) == 0
}
