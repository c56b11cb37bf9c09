// Package ociexec runs containers with another OCI runtime than ours: runc,
// crun, runsc or whatever has their command line. Each container has a
// directory of its own, in which lie the bundle, the runtime's state and its
// log; everything about the container that is not the runtime's to decide (root
// file system, streams, user) comes from the caller, as it does for ocirun.
//
// The runtime's program is the administrator's choice. Nothing that a container
// or an image contains has a say in it, and the program is given no
// environment but PATH.
package ociexec

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/internal/timerslack"
	"github.com/wherry-engine/wherry/ocirun"
)

// Container is a container of another runtime. It holds nothing in memory:
// whoever knows these values can go on with it.
type Container struct {
	ID string
	// Program is the runtime and Args are its first arguments, before ours.
	Program string
	Args    []string
	// Dir is the container's own directory, an absolute path; Create makes it,
	// and Delete removes it.
	Dir string
	// SocketDir is where sockets for terminals are made. Its path is short:
	// socket addresses end at 107 bytes.
	SocketDir string
}

// Created is a container whose process waits for Start.
type Created struct {
	Pid     int
	PidFD   *os.File
	Console *os.File // the terminal's master, or nil
}

const (
	configFile = "config.json" // the name is the specification's
	pidFile    = "pid"
	logFile    = "log.json"
	rootDir    = "rootfs"
	stateDir   = "state"

	// patience is how long a runtime may take for what is no start, and
	// startPatience for what is one: large images may be slow.
	patience      = 20 * time.Second
	startPatience = 2 * time.Minute
)

// command prepares a call of the runtime. Its standard streams are /dev/null.
func (c *Container) command(ctx context.Context, log string, args ...string) *exec.Cmd {
	argv := append(append([]string{}, c.Args...), "--root", filepath.Join(c.Dir, stateDir), "--log", log, "--log-format", "json")
	cmd := exec.CommandContext(ctx, c.Program, append(argv, args...)...)
	cmd.Dir = c.Dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.WaitDelay = time.Second
	return cmd
}

// call runs the runtime and returns what it had to say if it fails.
func (c *Container) call(ctx context.Context, args ...string) error {
	return c.callInput(ctx, nil, args...)
}

func (c *Container) callInput(ctx context.Context, stdin []byte, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	log, err := c.temp("log-")
	if err != nil {
		return err
	}
	defer os.Remove(log)
	cmd := c.command(ctx, log, args...)
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	var out bytes.Buffer
	cmd.Stderr = &out
	return c.explain(wait(timerslack.Start(cmd.Run)), log, out.Bytes(), "")
}

// wait is the error of a command that has ended, be it that something in the
// background still holds its output.
func wait(err error) error {
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return err
}

// temp makes an empty file in the directory.
func (c *Container) temp(prefix string) (string, error) {
	f, err := os.CreateTemp(c.Dir, prefix)
	if err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

// explain adds to the error of a call what the runtime wrote about it, to its
// log or else to its standard error. program is what was to be executed, if
// anything was.
func (c *Container) explain(err error, log string, stderr []byte, program string) error {
	if err == nil {
		return nil
	}
	name := filepath.Base(c.Program)
	msg := lastError(log)
	if msg == "" {
		msg = strings.TrimSpace(string(stderr))
	}
	if msg == "" {
		return fmt.Errorf("runtime %s: %w", name, err)
	}
	if program != "" {
		if code, why := startCode(msg); code != 0 {
			if !strings.Contains(msg, why) { // clients look for these words
				msg = fmt.Sprintf("exec: %q: %s (%s)", program, why, msg)
			}
			return &ocirun.StartError{Code: code, Msg: msg}
		}
	}
	return fmt.Errorf("runtime %s: %s", name, msg)
}

// startCode tells from a runtime's words whether a program could not be
// executed, and why in the words of runc: 127 if it is not there, 126 if it
// cannot be executed, 0 otherwise.
func startCode(msg string) (code int, why string) {
	msg = strings.ToLower(msg)
	has := func(part string) bool { return strings.Contains(msg, part) }
	switch {
	case has("mount") || !has("exec"):
		return 0, ""
	case has("not found"):
		return 127, "executable file not found in $PATH"
	case has("no such file or directory"):
		return 127, "no such file or directory"
	case has("exec format error"):
		return 126, "exec format error"
	case has("is a directory"):
		return 126, "is a directory"
	case has("permission denied"), has("open executable") && has("operation not permitted"):
		return 126, "permission denied"
	}
	return 0, ""
}

// lastError is the text of the last error in a runtime's log.
func lastError(log string) string {
	data, err := os.ReadFile(log)
	if err != nil {
		return ""
	}
	var last string
	for line := range bytes.Lines(data) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) == nil && entry.Msg != "" && (entry.Level == "error" || entry.Level == "fatal" || entry.Level == "") {
			last = entry.Msg
		}
	}
	return last
}

// Start lets the process of a created container run.
func (c *Container) Start(ctx context.Context) error { return c.call(ctx, "start", c.ID) }

// Update changes limits; those that are nil stay.
func (c *Container) Update(ctx context.Context, res *specs.LinuxResources) error {
	b, err := json.Marshal(res)
	if err != nil {
		return err
	}
	return c.callInput(ctx, b, "update", "--resources", "-", c.ID)
}

// Delete ends the container if it runs and removes everything of it. A
// container that is not there is no error.
func (c *Container) Delete(ctx context.Context) error {
	_, err := os.Lstat(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err = os.Lstat(filepath.Join(c.Dir, stateDir, c.ID)); !errors.Is(err, fs.ErrNotExist) {
		err = c.call(ctx, "delete", "--force", c.ID)
	} else {
		err = nil
	}
	// Whatever the runtime forgot, no mount is here: it had a mount namespace
	// of its own.
	return errors.Join(err, os.RemoveAll(c.Dir))
}

// pidfd opens the process whose number the runtime has written.
func pidfd(file string) (int, *os.File, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, nil, fmt.Errorf("the runtime told no process id: %w", err)
	}
	var pid int
	if _, err := fmt.Sscan(string(b), &pid); err != nil || pid <= 1 {
		return 0, nil, fmt.Errorf("the runtime told the process id %q", b)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return pid, nil, err
	}
	return pid, os.NewFile(uintptr(fd), "pidfd"), nil
}
