// Package rdt puts containers into classes of service and monitoring groups of
// the kernel's resctrl file system, as linux.intelRdt of a specification asks
// (config-linux.md, "IntelRdt").
package rdt

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Group is where one container belongs.
type Group struct {
	dir     string // of the class of service
	monitor string // monitoring group, or ""
	own     bool   // the class is the container's alone
	config  *specs.LinuxIntelRdt
}

// Mount finds the resctrl file system. NotImplemented if none is mounted.
func Mount() (string, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(table) {
		f := strings.Fields(string(line))
		for i := 6; i+1 < len(f); i++ {
			if f[i] == "-" && f[i+1] == "resctrl" {
				return f[4], nil
			}
		}
	}
	return "", fmt.Errorf("linux.intelRdt: no resctrl file system is mounted: %w", errdefs.ErrNotImplemented)
}

// New names the group of a container below the file system's root.
// InvalidArgument.
func New(root, id string, config *specs.LinuxIntelRdt) (*Group, error) {
	g := &Group{config: config, own: config.ClosID == ""}
	class := config.ClosID
	switch {
	case g.own:
		class = id
	case class == "/":
		class = ""
	}
	if strings.Contains(class, "/") || class == "." || class == ".." || class == "info" || class == "mon_groups" || class == "mon_data" {
		return nil, fmt.Errorf("linux.intelRdt: bad class of service %q: %w", class, errdefs.ErrInvalidArgument)
	}
	for _, line := range g.lines() {
		if strings.Contains(line, "\n") {
			return nil, fmt.Errorf("linux.intelRdt: a line break in %q: %w", line, errdefs.ErrInvalidArgument)
		}
	}
	if s := config.MemBwSchema; s != "" && !strings.HasPrefix(s, "MB:") {
		return nil, fmt.Errorf("linux.intelRdt: memBwSchema %q does not begin with MB: %w", s, errdefs.ErrInvalidArgument)
	}
	g.dir = filepath.Join(root, class)
	if config.EnableMonitoring {
		g.monitor = filepath.Join(g.dir, "mon_groups", id)
	}
	return g, nil
}

// lines of the schemata file in the order they are written.
func (g *Group) lines() []string {
	var out []string
	for _, s := range append([]string{g.config.L3CacheSchema, g.config.MemBwSchema}, g.config.Schemata...) {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

// Create makes what is missing of the group and writes its schemata. On error
// what was made for this container alone is removed.
func (g *Group) Create() error {
	err := g.create()
	if err == nil && g.monitor != "" {
		if err = os.Mkdir(g.monitor, 0o755); err != nil {
			err = fmt.Errorf("make a monitoring group: %w%s", err, g.status())
		}
	}
	if err != nil && !errdefs.IsAlreadyExists(err) {
		err = errors.Join(err, g.Delete())
	}
	return err
}

func (g *Group) create() error {
	lines := g.lines()
	_, err := os.Stat(g.dir)
	exists := err == nil
	switch {
	case exists && g.own:
		return fmt.Errorf("class of service %s: %w", g.dir, errdefs.ErrAlreadyExists)
	case exists:
		if err := g.compare(g.config.L3CacheSchema, g.config.MemBwSchema); err != nil {
			return err
		}
		lines = g.config.Schemata
	case !g.own && len(lines) == 0:
		return fmt.Errorf("class of service %s: %w", g.dir, errdefs.ErrNotFound)
	default:
		if err := os.Mkdir(g.dir, 0o755); err != nil {
			return fmt.Errorf("make a class of service: %w%s", err, g.status())
		}
	}
	return g.write(lines)
}

// Update writes lines of the schemata anew; "" is none.
func (g *Group) Update(lines ...string) error {
	return g.write(slices.DeleteFunc(lines, func(l string) bool { return l == "" }))
}

func (g *Group) write(lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	text := strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(filepath.Join(g.dir, "schemata"), []byte(text), 0o644); err != nil {
		return fmt.Errorf("write schemata %q: %w%s", text, err, g.status())
	}
	return nil
}

// status is what the kernel says of the last command.
func (g *Group) status() string {
	root := g.dir
	if g.config.ClosID != "/" {
		root = filepath.Dir(g.dir)
	}
	b, err := os.ReadFile(filepath.Join(root, "info", "last_cmd_status"))
	if err != nil || len(b) == 0 {
		return ""
	}
	return " (" + strings.TrimSpace(string(b)) + ")"
}

// compare checks that an existing class has what the wanted lines say.
func (g *Group) compare(wanted ...string) error {
	if strings.Join(wanted, "") == "" {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(g.dir, "schemata"))
	if err != nil {
		return err
	}
	have := map[string]string{}
	for line := range strings.Lines(string(b)) {
		for k, v := range domains(line) {
			have[k] = v
		}
	}
	for _, line := range wanted {
		for k, v := range domains(line) {
			if have[k] != v {
				return fmt.Errorf("class of service %s exists with another schema, not %q: %w", g.dir, line, errdefs.ErrFailedPrecondition)
			}
		}
	}
	return nil
}

// domains takes a line such as "L3:0=7ff;1=1f" apart, into values by "L3:0".
func domains(line string) map[string]string {
	out := map[string]string{}
	resource, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
	if !ok {
		return out
	}
	for part := range strings.SplitSeq(rest, ";") {
		id, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		out[strings.TrimSpace(resource)+":"+strings.TrimSpace(id)] = strings.TrimLeft(strings.ToLower(strings.TrimSpace(value)), "0")
	}
	return out
}

// Enter moves every thread of a process into the group.
func (g *Group) Enter(pid int) error {
	threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		return err
	}
	for _, dir := range []string{g.dir, g.monitor} {
		if dir == "" {
			continue
		}
		for _, t := range threads {
			err := os.WriteFile(filepath.Join(dir, "tasks"), []byte(t.Name()), 0o644)
			if err != nil {
				return fmt.Errorf("enter %s: %w%s", dir, err, g.status())
			}
		}
	}
	return nil
}

// Delete removes what Create made for this container alone. It is not an error
// if it is gone.
func (g *Group) Delete() error {
	var err error
	if g.monitor != "" {
		err = gone(os.Remove(g.monitor))
	}
	if g.own {
		err = errors.Join(err, gone(os.Remove(g.dir)))
	}
	return err
}

func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
