package bridge

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/wherry-engine/wherry/keeper/fdstore"
	"github.com/wherry-engine/wherry/network"
)

// helperPid reads the pid of the net helper from the keeper's file.
func helperPid(execRoot string) int {
	b, err := os.ReadFile(filepath.Join(execRoot, "helpers.json"))
	if err != nil {
		return 0
	}
	var st struct {
		Helpers map[string]struct{ Pid int } `json:"helpers"`
	}
	if json.Unmarshal(b, &st) != nil {
		return 0
	}
	return st.Helpers["net"].Pid
}

// withKeeper runs the helpers as processes of their own.
func (h *host) withKeeper() (keeperProcess *exec.Cmd) {
	h.t.Helper()
	h.stop()
	k := exec.Command("/proc/self/exe", "keeper", "--exec-root", h.o.ExecRoot, "--data-root", h.o.ExecRoot)
	k.Stderr = os.Stderr
	check(h.t, k.Start())
	h.stop = func() {
		c, err := fdstore.Dial(h.o.ExecRoot, "supervisor", nil)
		check(h.t, err)
		check(h.t, c.Shutdown())
		check(h.t, k.Wait())
		left, err := os.ReadDir(h.o.ExecRoot)
		if err == nil && len(left) > 0 {
			h.t.Errorf("the helpers leave %v", left)
		}
	}
	return k
}

// TestHelperDies: names and ports go on working when the helper is killed.
func TestHelperDies(t *testing.T) {
	h := newHost(t, nil)
	h.withKeeper()
	h.network("front", nil)
	web := h.open(network.SandboxRequest{ContainerName: "web", Endpoints: on("front"), Ports: publishPorts("", "8080", "80/tcp", "", "8053", "53/udp")})
	db := h.open(network.SandboxRequest{ContainerName: "db", Endpoints: on("front")})
	serve(t, web.ns, "0.0.0.0:80")
	serveUDP(t, web.ns, "0.0.0.0:53")
	for round := range 3 {
		pid := helperPid(h.o.ExecRoot)
		if pid == 0 {
			t.Fatal("no helper")
		}
		check(t, syscall.Kill(pid, syscall.SIGKILL))
		waitFor(t, func() bool { now := helperPid(h.o.ExecRoot); return now != 0 && now != pid })
		// Questions and connections wait in the sockets, which never closed.
		got, err := ask(db.ns, "udp", "web", dnsmessage.TypeA)
		if err != nil || !slices.Equal(got, []string{web.ip().String()}) {
			t.Errorf("round %d: web is %v, %v", round, got, err)
		}
		if got, err := ask(db.ns, "tcp", "web.front", dnsmessage.TypeA); err != nil || len(got) != 1 {
			t.Errorf("round %d: over TCP: %v, %v", round, got, err)
		}
		h.reaches([]reach{{"published", nil, "127.0.0.1:8080", true}, {"through the proxy", nil, "[::1]:8080", true}})
		waitFor(t, func() bool { return pingUDP(nil, "[::1]:8053") == nil })
		// The daemon goes on with the new helper.
		c, err := h.tryOpen(network.SandboxRequest{ContainerName: "late", Endpoints: on("front"), Ports: publishPorts("", "", "80/tcp")})
		check(t, err)
		if got, err := ask(db.ns, "udp", string(c.ID)[:12], dnsmessage.TypeA); err != nil || len(got) != 1 {
			t.Errorf("round %d: a new container: %v, %v", round, got, err)
		}
	}
}
