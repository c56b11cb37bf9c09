// Package registrytest helps tests that need a registry: it starts Debian's
// docker-registry on a loopback port, makes small images by code, and has a
// registry of its own that misbehaves on request.
package registrytest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Config of a registry.
type Config struct {
	// Htpasswd is the content of a password file (bcrypt), for basic authentication.
	Htpasswd string
	// CertFile and KeyFile serve https.
	CertFile, KeyFile string
}

// Start runs docker-registry until the test ends and returns its host and
// port. The test is skipped if it is not installed.
func Start(t testing.TB, cfg Config) string {
	t.Helper()
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed")
	}
	dir := t.TempDir()
	addr := freeAddr(t)
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(configText(t, dir, addr, cfg)), 0o600); err != nil {
		t.Fatal(err)
	}
	logFile, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer logFile.Close()
	cmd := exec.CommandContext(context.Background(), bin, "serve", file)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	waitReady(t, addr)
	return addr
}

func configText(t testing.TB, dir, addr string, cfg Config) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: %s\n  delete:\n    enabled: true\nhttp:\n  addr: %s\n", filepath.Join(dir, "data"), addr)
	if cfg.CertFile != "" {
		fmt.Fprintf(&b, "  tls:\n    certificate: %s\n    key: %s\n", cfg.CertFile, cfg.KeyFile)
	}
	if cfg.Htpasswd != "" {
		p := filepath.Join(dir, "htpasswd")
		if err := os.WriteFile(p, []byte(cfg.Htpasswd), 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "auth:\n  htpasswd:\n    realm: test\n    path: %s\n", p)
	}
	return b.String()
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func waitReady(t testing.TB, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var d net.Dialer
	for {
		c, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("docker-registry at %s does not listen: %v", addr, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// statusText makes a failed request readable.
func statusText(resp *http.Response) string {
	return resp.Request.Method + " " + resp.Request.URL.String() + ": " + resp.Status
}
