// Package cli is the command line: one file per command with its flags and
// help, on top of package client. Under the name docker it behaves the same.
//
// Commands are described by a static list (commands.go) and only the one that
// was invoked is built, so that starting costs next to nothing.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/cli/config"
	"github.com/wherry-engine/wherry/cli/terminal"
	"github.com/wherry-engine/wherry/client"
	"github.com/wherry-engine/wherry/internal/version"
)

// app is one invocation.
type app struct {
	name string // "wherry" or "docker"
	args []string
	in   *os.File
	out  io.Writer
	err  io.Writer

	flags   globals
	signals *signals

	cl   *client.Client
	conf *config.File
}

// globals are the flags before the command.
type globals struct {
	configDir string
	context   string
	debug     bool
	hosts     []string
	logLevel  string
	tls       bool
	tlsVerify bool
	tlsCA     string
	tlsCert   string
	tlsKey    string
	version   bool
}

// statusError ends the program with a status of its own. An empty message
// prints nothing.
type statusError struct {
	code int
	msg  string
}

func (e statusError) Error() string { return e.msg }

// Main runs the command line and returns the exit status.
func Main(args []string) int {
	a := &app{name: programName(args[0]), args: args[1:], in: os.Stdin, out: os.Stdout, err: os.Stderr}
	if len(a.args) == 1 && (a.args[0] == "--version" || a.args[0] == "-v") {
		a.printVersionLine()
		return 0
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	a.signals = &signals{cancel: cancel}
	return a.exitCode(a.run(ctx))
}

func programName(arg0 string) string {
	if base := strings.TrimSuffix(filepath.Base(arg0), ".exe"); base == "docker" {
		return base
	}
	return "wherry"
}

// printVersionLine is what --version prints.
func (a *app) printVersionLine() {
	title := "Wherry"
	if a.name == "docker" {
		title = "Docker"
	}
	_, _ = io.WriteString(a.out, title+" version "+version.Version+", build "+version.Commit+"\n")
}

// exitCode prints err and turns it into a status.
func (a *app) exitCode(err error) int {
	if err == nil {
		return 0
	}
	var sig signalError
	if errors.As(err, &sig) {
		return 128 + int(sig.sig)
	}
	var st statusError
	if errors.As(err, &st) {
		if st.msg != "" {
			fmt.Fprintln(a.err, st.msg)
		}
		return st.code
	}
	fmt.Fprintln(a.err, a.message(err))
	return 1
}

// message is the text of err for people.
func (a *app) message(err error) string {
	var conn *client.ConnError
	if !errors.As(err, &conn) {
		return plain(err)
	}
	title := "Wherry"
	if a.name == "docker" {
		title = "Docker"
	}
	if conn.Permission() {
		return fmt.Sprintf("permission denied while trying to connect to the %s daemon socket at %s: %v", title, conn.Host, conn.Err)
	}
	for _, gone := range []error{syscall.ECONNREFUSED, syscall.ENOENT, os.ErrDeadlineExceeded} {
		if errors.Is(conn.Err, gone) {
			return fmt.Sprintf("Cannot connect to the %s daemon at %s. Is the %s daemon running?", title, conn.Host, strings.ToLower(title))
		}
	}
	return fmt.Sprintf("error during connect: %v", conn.Err)
}

// plain is the text of err without the name of its class at the end.
func plain(err error) string {
	text := err.Error()
	for _, class := range []error{errdefs.ErrInvalidArgument, errdefs.ErrNotFound, errdefs.ErrNotImplemented} {
		if errors.Is(err, class) {
			text = strings.TrimSuffix(text, ": "+class.Error())
		}
	}
	return text
}

// config returns config.json, read once. A broken file is reported and then
// treated as empty, as nothing but credentials depends on it.
func (a *app) config() *config.File {
	if a.conf != nil {
		return a.conf
	}
	dir := a.flags.configDir
	if dir == "" {
		dir = config.DefaultDir()
	}
	f, err := config.Load(dir)
	if err != nil {
		fmt.Fprintf(a.err, "WARNING: Error loading config file: %v\n", err)
	}
	a.conf = f
	return f
}

// outFile returns the standard output if it is a file.
func (a *app) outFile() *os.File {
	f, _ := a.out.(*os.File)
	return f
}

// outTerminal reports whether the standard output is a terminal.
func (a *app) outTerminal() bool { return terminal.Is(a.outFile()) }

// warn prints daemon warnings.
func (a *app) warn(warnings []string) {
	for _, w := range warnings {
		fmt.Fprintln(a.err, "WARNING: "+w)
	}
}
