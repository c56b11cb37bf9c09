package crash

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/wherry-engine/wherry/internal/testenv"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if os.Geteuid() == 0 {
		testenv.CloseRegistries()
	}
	os.Exit(code)
}

// rounds is how often something is killed.
func rounds(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv("WHERRY_CRASH_ROUNDS"))
	if err != nil {
		n = 50
	}
	if testing.Short() {
		n = min(n, 5)
	}
	t.Logf("%d rounds", n)
	return n
}

// load makes containers, and forgets nothing it made.
type load struct {
	t     *testing.T
	d     *testenv.Daemon
	image string
	sleep string // an argument of sleep that only our containers have
	stop  chan struct{}
	wg    sync.WaitGroup
	done  atomic.Int64

	mu  sync.Mutex
	ids map[string]bool
}

// call sends a request; errors of a daemon that was just killed are expected.
func (l *load) call(method, path string, in any) (int, []byte) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var body []byte
	if in != nil {
		body, _ = json.Marshal(in)
	}
	status, data, err := l.d.Request(ctx, method, path, body)
	if err != nil {
		select { // do not spin while there is no daemon
		case <-l.stop:
		case <-time.After(10 * time.Millisecond):
		}
		return 0, nil
	}
	if status >= 500 && !bytes.Contains(data, []byte("context canceled")) {
		l.t.Logf("%s %s: %d %s", method, path, status, bytes.TrimSpace(data))
	}
	return status, data
}

func (l *load) create(host map[string]any, cmd ...string) string {
	status, data := l.call("POST", "/containers/create", map[string]any{"Image": l.image, "Cmd": cmd, "HostConfig": host})
	var made struct{ ID string }
	if status != 201 || json.Unmarshal(data, &made) != nil {
		return ""
	}
	l.mu.Lock()
	l.ids[made.ID] = true
	l.mu.Unlock()
	return made.ID
}

// worker does what users do, in random order.
func (l *load) worker(n int) {
	defer l.wg.Done()
	ops := []func(){
		func() { // run --rm
			if id := l.create(map[string]any{"AutoRemove": true}, "true"); id != "" {
				l.call("POST", "/containers/"+id+"/start", nil)
			}
		},
		func() { // create, start, stop, remove
			id := l.create(nil, "sleep", l.sleep)
			if id == "" {
				return
			}
			l.call("POST", "/containers/"+id+"/start", nil)
			if rand.N(2) == 0 {
				l.call("POST", "/containers/"+id+"/stop?t=0", nil)
			}
			l.call("DELETE", "/containers/"+id+"?force=1&v=1", nil)
		},
		func() { // with volume, port, restart policy, and left behind
			if id := l.create(map[string]any{
				"Binds": []string{"/data"}, "RestartPolicy": map[string]any{"Name": "always"},
				"PortBindings": map[string]any{"80/tcp": []any{map[string]any{"HostIp": "127.0.0.1"}}},
			}, "sh", "-c", "sleep 0.2"); id != "" {
				l.call("POST", "/containers/"+id+"/start", nil)
			}
		},
		func() { // exec in the anchor
			status, data := l.call("POST", "/containers/anchor/exec", map[string]any{"Cmd": []string{"true"}, "AttachStdout": true})
			var made struct{ ID string }
			if status == 201 && json.Unmarshal(data, &made) == nil {
				l.call("POST", "/exec/"+made.ID+"/start", map[string]any{"Detach": false})
			}
		},
		func() { // pull and remove
			ref := testenv.Registry(l.t).Addr() + "/nginx"
			l.call("POST", "/images/create?fromImage="+ref+"&tag=zstd", nil)
			l.call("DELETE", "/images/"+ref+":zstd?force=1", nil)
		},
		func() { // a network that comes and goes
			name := fmt.Sprintf("net%d", n)
			l.call("POST", "/networks/create", map[string]any{"Name": name})
			if id := l.create(map[string]any{"NetworkMode": name}, "sleep", l.sleep); id != "" {
				l.call("POST", "/containers/"+id+"/start", nil)
				l.call("DELETE", "/containers/"+id+"?force=1", nil)
			}
			l.call("DELETE", "/networks/"+name, nil)
		},
	}
	for {
		select {
		case <-l.stop:
			return
		default:
			ops[rand.N(len(ops))]()
			l.done.Add(1)
			l.trim()
		}
	}
}

// trim keeps the number of restarting containers small.
func (l *load) trim() {
	status, data := l.call("GET", "/containers/json?all=1", nil)
	var list []struct {
		ID    string
		Names []string
	}
	if status != 200 || json.Unmarshal(data, &list) != nil || len(list) < 20 {
		return
	}
	for _, c := range list[10:] {
		if len(c.Names) == 1 && c.Names[0] != "/anchor" {
			l.call("DELETE", "/containers/"+c.ID+"?force=1&v=1", nil)
		}
	}
}

func TestKill(t *testing.T) { killing(t, testenv.Options{}, rounds(t)) }

// TestKillInUserNamespaces: their lives and networks depend on more descriptors.
func TestKillInUserNamespaces(t *testing.T) {
	remap, _ := testenv.SubordinateIDs(t)
	killing(t, testenv.Options{Config: map[string]any{"userns-remap": remap}}, (rounds(t)+4)/5)
}

// killing kills daemon and helpers under load.
func killing(t *testing.T, opts testenv.Options, rounds int) {
	testenv.NeedsRoot(t)
	testenv.Bin(t, "wherryd")
	before, others := testenv.TakeSnapshot(), testenv.EngineRuns()
	d := testenv.Start(t, opts)
	image := d.Image(t, "busybox")
	cli := d.Docker(t)
	cli.OK(t, "network", "create", "quay")
	anchor := cli.OK(t, "run", "-d", "--name", "anchor", "--network", "quay", "-p", "127.0.0.1::80", image,
		"sh", "-c", "nc -ll -p 80 -e hostname & i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done")
	port := cli.OK(t, "port", "anchor", "80/tcp")
	started := cli.OK(t, "inspect", "-f", "{{.State.StartedAt}} {{.State.Pid}}", "anchor")
	testenv.Eventually(t, "the anchor answers", func() bool { return ask(port) == anchor[:12] })

	l := &load{t: t, d: d, image: image, sleep: "86" + strconv.Itoa(os.Getpid()), stop: make(chan struct{}), ids: map[string]bool{}}
	for n := range 4 {
		l.wg.Add(1)
		go l.worker(n)
	}
	kinds := map[string]int{}
	for round := range rounds {
		time.Sleep(rand.N(300 * time.Millisecond))
		face := [...]string{"daemon", "daemon", "supervisor", "net", "keeper"}[rand.N(5)]
		kinds[face]++
		if face == "daemon" {
			if err := d.Kill(); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if got := ask(port); got != anchor[:12] {
				t.Errorf("round %d: without a daemon the published port answers %q", round, got)
			}
			time.Sleep(rand.N(100 * time.Millisecond))
			if err := d.Launch(); err != nil {
				t.Fatalf("round %d: %v\n%s", round, err, d.LogTail())
			}
		} else if pid := d.Helper(face); pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			testenv.Eventually(t, "a new "+face, func() bool { now := d.Helper(face); return now != 0 && now != pid })
		}
		got := ""
		for end := time.Now().Add(10 * time.Second); got != anchor[:12]; got = ask(port) {
			time.Sleep(10 * time.Millisecond)
			if time.Now().After(end) {
				t.Fatalf("round %d: after the %s was killed the published port answers %q\n%s", round, face, got, d.LogTail())
			}
		}
	}
	close(l.stop)
	l.wg.Wait()
	t.Logf("killed %v during %d operations on %d containers", kinds, l.done.Load(), len(l.ids))

	if got := cli.OK(t, "inspect", "-f", "{{.State.StartedAt}} {{.State.Pid}}", "anchor"); got != started {
		t.Errorf("the anchor was restarted: %s, first %s", got, started)
	}
	checkLog(t, cli.OK(t, "logs", "anchor"))
	contains(t, cli.OK(t, "run", "--rm", "--network", "quay", image, "nslookup", "anchor"), "Address")
	contains(t, cli.OK(t, "exec", "anchor", "echo", "alive"), "alive")

	// Remove everything, and look for what is left.
	if err := d.RemoveAll(); err != nil {
		t.Fatal(err)
	}
	cli.OK(t, "system", "prune", "-af", "--volumes")
	cli.OK(t, "volume", "prune", "-af")
	l.checkMachine()
	l.checkData()
	if err := d.Stop(); err != nil {
		t.Error(err)
	}
	if others || testenv.EngineRuns() {
		t.Log("another engine runs on this machine: no look at the machine as a whole")
	} else if err := testenv.CheckSince(before, foreign); err != nil {
		t.Error(err)
	}
}

// foreign are things that no engine makes.
func foreign(what string) bool {
	return strings.HasPrefix(what, "cgroup ") && !strings.Contains(what, "wherry")
}

func contains(t *testing.T, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("%q is not in %q", want, got)
	}
}

// ask returns what the anchor says on its published port.
func ask(addr string) string {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	data, _ := io.ReadAll(c)
	return strings.TrimSpace(string(data))
}

// checkLog wants every number once and in order.
func checkLog(t *testing.T, log string) {
	t.Helper()
	lines := strings.Split(log, "\n")
	for i, line := range lines {
		if line != strconv.Itoa(i+1) {
			t.Errorf("line %d of the anchor's log is %q", i+1, line)
			return
		}
	}
	t.Logf("%d lines of log, none missing", len(lines))
}

// checkMachine looks for processes, cgroups, mounts and links of containers
// that are no more.
func (l *load) checkMachine() {
	l.t.Helper()
	find := func() (left []string) {
		cmdlines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range cmdlines {
			data, _ := os.ReadFile(path)
			if bytes.Contains(data, []byte("sleep\x00"+l.sleep)) {
				left = append(left, "process "+path)
			}
		}
		now := testenv.TakeSnapshot()
		for _, kind := range [][]string{now.Cgroups, now.Mounts} {
			for _, path := range kind {
				for id := range l.ids {
					if strings.Contains(path, id) {
						left = append(left, path)
					}
				}
			}
		}
		ports, _ := os.ReadDir("/sys/class/net/" + l.d.Bridge + "/brif")
		for _, p := range ports {
			left = append(left, "link "+p.Name()+" on "+l.d.Bridge)
		}
		return left
	}
	var left []string
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if left = find(); len(left) == 0 {
			return
		}
	}
	l.t.Errorf("left on the machine:\n\t%s", strings.Join(left, "\n\t"))
}

// checkData looks into the data root.
func (l *load) checkData() {
	l.t.Helper()
	for _, dir := range []string{"containers", "layers", "volumes", "tmp", "content/ingest"} {
		var left []string
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			left = nil
			entries, err := os.ReadDir(filepath.Join(l.d.DataRoot, dir))
			if err != nil && !os.IsNotExist(err) {
				l.t.Error(err)
			}
			for _, e := range entries {
				if !strings.HasSuffix(e.Name(), ".db") && !strings.HasPrefix(e.Name(), ".") {
					left = append(left, e.Name())
				}
			}
			if len(left) == 0 || time.Now().After(end) {
				break
			}
			if dir == "content/ingest" {
				// A pull whose client is gone may have been ending while we pruned; it keeps
				// what it has for the next one to go on with, until the next prune.
				l.call("POST", "/images/prune", nil)
			}
		}
		if len(left) != 0 {
			l.t.Errorf("left in %s: %s (made by us: %t)", dir, strings.Join(left, " "), l.ids[left[0]])
			for _, name := range left { // what a partial download is of
				if ref, err := os.ReadFile(filepath.Join(l.d.DataRoot, dir, name, "ref")); err == nil {
					info, _ := os.Stat(filepath.Join(l.d.DataRoot, dir, name, "data"))
					l.t.Logf("%s is %s, %v", name, ref, info)
				}
			}
		}
	}
	blobs, _ := filepath.Glob(filepath.Join(l.d.DataRoot, "content/blobs/sha256/*"))
	if len(blobs) > 4 { // the hello image's
		l.t.Errorf("%d blobs are left without an image", len(blobs))
	}
}
