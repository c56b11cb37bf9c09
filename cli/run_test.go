package cli

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRunDaemonDies: a daemon that dies over the start of a container neither
// removes that nor closes the wait, which a helper has. The command ends.
func TestRunDaemonDies(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := ""
		switch {
		case strings.HasSuffix(r.URL.Path, "/create"):
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintln(w, `{"Id":"x"}`)
			return
		case strings.HasSuffix(r.URL.Path, "/attach"):
			answer = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
		case strings.HasSuffix(r.URL.Path, "/wait"):
			answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
		case strings.HasSuffix(r.URL.Path, "/start"):
		default:
			return
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		if answer == "" {
			_ = conn.Close()
			return
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := conn.Write([]byte(answer)); err != nil {
			t.Error(err)
		}
	}))
	srv.Listener = ln
	srv.Start()
	defer srv.Close()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	code := make(chan int, 1)
	go func() { code <- Main([]string{"wherry", "-H", "unix://" + socket, "run", "--rm", "image"}) }()
	select {
	case got := <-code:
		if got != 125 {
			t.Error("exit code", got)
		}
	case <-time.After(time.Minute):
		t.Error("it waits for ever")
	}
}
