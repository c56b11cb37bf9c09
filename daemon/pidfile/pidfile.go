// Package pidfile writes the daemon's pid where others look for it.
package pidfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Write puts our pid into path. It fails if the process named there still lives.
func Write(path string) error {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read pid file: %w", err)
	}
	if pid, perr := strconv.Atoi(strings.TrimSpace(string(data))); perr == nil && pid != os.Getpid() && alive(pid) {
		return fmt.Errorf("process with PID %d is still running: the pid file %s is its own", pid, path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	return nil
}

// alive also asks whether the process is a daemon like us: after a reboot the
// number may belong to anybody. A zombie has let go of everything.
func alive(pid int) bool {
	if pid <= 0 || errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		return false
	}
	ours, _, err := stat("self")
	if err != nil {
		return true
	}
	name, state, err := stat(strconv.Itoa(pid))
	return err == nil && name == ours && state != "Z" && state != "X"
}

// stat returns the name and the state of a process.
func stat(pid string) (name, state string, err error) {
	data, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return "", "", err
	}
	// The name is in parentheses and may hold any character.
	begin, end := strings.IndexByte(string(data), '('), strings.LastIndexByte(string(data), ')')
	if begin < 0 || end < begin || end+3 > len(data) {
		return "", "", fmt.Errorf("/proc/%s/stat: unknown format", pid)
	}
	return string(data[begin+1 : end]), string(data[end+2 : end+3]), nil
}

// Remove deletes the file if it is ours.
func Remove(path string) error {
	data, err := os.ReadFile(path)
	if err != nil || strings.TrimSpace(string(data)) != strconv.Itoa(os.Getpid()) {
		return nil
	}
	return os.Remove(path)
}
