package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/wherry-engine/wherry/internal/timerslack"
)

// pluginDirs lists where plugin binaries are looked for, first match wins.
func (a *app) pluginDirs() []string {
	dirs := []string{filepath.Join(a.config().Dir, "cli-plugins")}
	dirs = append(dirs, a.config().PluginsExtraDirs...)
	for _, lib := range []string{"/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec"} {
		dirs = append(dirs, lib+"/wherry/cli-plugins", lib+"/docker/cli-plugins")
	}
	return dirs
}

// plugin returns the path of the binary that does word, "" if there is none.
// wherry-NAME beside this program comes first.
func (a *app) plugin(word string) string {
	if word == "" || strings.ContainsAny(word, "/.") {
		return ""
	}
	if self, err := os.Executable(); err == nil {
		if p := filepath.Join(filepath.Dir(self), "wherry-"+word); executable(p) && word != "runtime" {
			return p
		}
	}
	for _, d := range a.pluginDirs() {
		for _, prefix := range []string{"wherry-", "docker-"} {
			if p := filepath.Join(d, prefix+word); executable(p) {
				return p
			}
		}
	}
	return ""
}

// plugins lists the names of the plugins found.
func (a *app) plugins() []string {
	var names []string
	for _, d := range a.pluginDirs() {
		entries, err := os.ReadDir(d)
		if err != nil {
			continue
		}
		for _, e := range entries {
			for _, prefix := range []string{"wherry-", "docker-"} {
				if n, ok := strings.CutPrefix(e.Name(), prefix); ok && executable(filepath.Join(d, e.Name())) {
					names = append(names, n)
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// execPlugin replaces this process by the plugin, which gets all arguments, the
// global flags among them, and the daemon's address.
func (a *app) execPlugin(bin string) error {
	env := append(os.Environ(), "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND="+os.Args[0])
	if name, err := a.contextName(); err == nil && name == "default" && os.Getenv("DOCKER_HOST") == "" {
		if host, err := a.defaultHost(); err == nil {
			env = append(env, "DOCKER_HOST="+host)
		}
	}
	runtime.LockOSThread()
	timerslack.Reset()
	err := syscall.Exec(bin, append([]string{bin}, a.args...), env)
	return fmt.Errorf("run plugin %s: %w", bin, err)
}

func executable(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}
