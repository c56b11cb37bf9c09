package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/wherry-engine/wherry/cli"
)

func TestMain(m *testing.M) {
	run := func() { os.Exit(cli.Main(os.Args)) }
	testscript.Main(m, map[string]func(){"wherry": run, "docker": run})
}

// TestScript runs the scripts against a daemon that answers from a table: the
// script's file "routes" (see fakeDaemon).
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:  filepath.Join("testdata", "script"),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": status},
		Setup: func(env *testscript.Env) error {
			d, err := startFakeDaemon(env.WorkDir)
			if err != nil {
				return err
			}
			env.Defer(d.close)
			env.Setenv("DOCKER_HOST", "unix://"+d.socket)
			env.Setenv("DOCKER_CONFIG", filepath.Join(env.WorkDir, "config"))
			env.Setenv("TZ", "UTC")
			env.Setenv("DOCKER_TLS_VERIFY", "")
			return nil
		},
	})
}

// status runs a command and compares its exit status: status 125 wherry ...
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d\n%s%s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}
