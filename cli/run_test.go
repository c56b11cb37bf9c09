package cli

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// runBeside runs `wherry run --rm image` beside a daemon that creates, attaches and
// registers the wait; the rest is the test's.
func runBeside(t *testing.T, start, kill http.HandlerFunc, waited <-chan string) int {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/create"):
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintln(w, `{"Id":"x"}`)
		case strings.HasSuffix(r.URL.Path, "/attach"):
			conn := hijack(t, w, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
			go func() {
				if <-waited != "" {
					_ = conn.Close()
				}
			}()
		case strings.HasSuffix(r.URL.Path, "/wait"):
			conn := hijack(t, w, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
			go func() {
				if body := <-waited; body != "" {
					_, _ = fmt.Fprintf(conn, "%x\r\n%s\r\n0\r\n\r\n", len(body), body)
				}
			}()
		case strings.HasSuffix(r.URL.Path, "/start"):
			start(w, r)
		case strings.HasSuffix(r.URL.Path, "/kill"):
			kill(w, r)
		}
	}))
	srv.Listener = ln
	srv.Start()
	t.Cleanup(srv.Close)
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	code := make(chan int, 1)
	go func() { code <- Main([]string{"wherry", "-H", "unix://" + socket, "run", "--rm", "image"}) }()
	select {
	case got := <-code:
		return got
	case <-time.After(time.Minute):
		t.Fatal("it waits for ever")
		return 0
	}
}

// hijack answers by itself on a connection that stays open.
func hijack(t *testing.T, w http.ResponseWriter, answer string) net.Conn {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return nil
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write([]byte(answer)); err != nil {
		t.Error(err)
	}
	return conn
}

// TestRunDaemonDies: a daemon that dies over the start of a container neither
// removes that nor closes the wait, which a helper has. The command ends.
func TestRunDaemonDies(t *testing.T) {
	never := make(chan string)
	defer close(never)
	code := runBeside(t, func(w http.ResponseWriter, _ *http.Request) {
		if conn, _, err := http.NewResponseController(w).Hijack(); err != nil {
			t.Error(err)
		} else {
			_ = conn.Close()
		}
	}, nil, never)
	if code != 125 {
		t.Error("exit code", code)
	}
}

// TestRunHoldsSignals: one that comes while the container starts reaches it when
// it runs.
func TestRunHoldsSignals(t *testing.T) {
	var started atomic.Bool
	end := make(chan string, 2)
	code := runBeside(t, func(w http.ResponseWriter, _ *http.Request) {
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
			t.Error(err)
		}
		time.Sleep(100 * time.Millisecond)
		started.Store(true)
		w.WriteHeader(http.StatusNoContent)
	}, func(w http.ResponseWriter, r *http.Request) {
		if got := r.FormValue("signal"); got != "SIGUSR1" || !started.Load() {
			t.Errorf("%s is sent, started %t", got, started.Load())
		}
		w.WriteHeader(http.StatusNoContent)
		for range 2 {
			end <- `{"StatusCode":7}`
		}
	}, end)
	if code != 7 {
		t.Error("exit code", code)
	}
}
