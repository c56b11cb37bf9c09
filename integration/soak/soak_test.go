package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/wherry-engine/wherry/internal/testenv"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if os.Geteuid() == 0 {
		testenv.CloseRegistries()
	}
	os.Exit(code)
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	if os.Getenv(name) == "" {
		return otherwise
	}
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil || n <= 0 {
		t.Fatalf("%s: %q is not a number", name, os.Getenv(name))
	}
	return n
}

const (
	// warmUp is how many cycles come before the first look: caches fill.
	warmUp  = 100
	workers = 3
	// Go's threads come with the number of system calls that block at once and
	// stay; one a cycle would be far more.
	moreThreads = 12
	// moreMemory is for the collector's whims (KiB).
	moreMemory = 24 << 10
)

// user speaks to the daemon over connections that stay open.
type user struct {
	t     *testing.T
	http  *http.Client
	image string
}

func (u *user) call(method, path string, in, out any) {
	u.t.Helper()
	var body io.Reader
	if in != nil {
		b, _ := json.Marshal(in)
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(u.t.Context(), method, "http://engine"+path, body)
	if err != nil {
		u.t.Error(err)
		return
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := u.http.Do(req)
	if err != nil {
		u.t.Errorf("%s %s: %v", method, path, err)
		return
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		u.t.Errorf("%s %s: %d %s %v", method, path, resp.StatusCode, bytes.TrimSpace(data), err)
		return
	}
	if out != nil {
		if err := json.Unmarshal(data, out); err != nil {
			u.t.Errorf("%s %s: %v", method, path, err)
		}
	}
}

// cycle is the life of a container: with a network and without, with output,
// an exec and a volume, removed by its user and by itself.
func (u *user) cycle(i int) {
	host := map[string]any{}
	conf := map[string]any{"Image": u.image, "Cmd": []string{"true"}, "HostConfig": host}
	want := 0
	switch i % 5 {
	case 1:
		host["NetworkMode"] = "none"
	case 2:
		conf["Cmd"], want = []string{"sh", "-c", "echo out; echo err >&2; exit 3"}, 3
	case 3:
		host["AutoRemove"] = true
	case 4:
		host["NetworkMode"], host["Binds"] = "none", []string{"/data"}
		conf["Tty"], conf["Cmd"] = true, []string{"echo", "out"}
	}
	var made struct{ ID string }
	u.call("POST", "/containers/create", conf, &made)
	if made.ID == "" {
		return
	}
	path := "/containers/" + made.ID
	cond := "next-exit"
	if i%5 == 3 {
		cond = "removed"
	}
	code := make(chan int, 1)
	begun := make(chan struct{})
	go func() {
		var ended struct{ StatusCode int }
		u.wait(path+"/wait?condition="+cond, begun, &ended)
		code <- ended.StatusCode
	}()
	<-begun
	u.call("POST", path+"/start", nil, nil)
	if got := <-code; got != want {
		u.t.Errorf("cycle %d ended with %d", i, got)
	}
	if i%5 != 3 {
		u.call("DELETE", path+"?v=1", nil, nil)
	}
}

// wait tells when the daemon has the request, and reads the answer.
func (u *user) wait(path string, begun chan<- struct{}, out any) {
	req, err := http.NewRequestWithContext(u.t.Context(), "POST", "http://engine"+path, nil)
	if err != nil {
		close(begun)
		u.t.Error(err)
		return
	}
	resp, err := u.http.Do(req)
	close(begun)
	if err != nil {
		u.t.Error(err)
		return
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		u.t.Errorf("%s: %v", path, err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
}

// cycles runs n of them, from first on.
func (u *user) cycles(first, n int) {
	next := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range next {
				u.cycle(i)
			}
		})
	}
	for i := range n {
		if u.t.Failed() {
			break
		}
		next <- first + i
	}
	close(next)
	wg.Wait()
	u.http.CloseIdleConnections()
}

func TestSoak(t *testing.T) {
	testenv.NeedsRoot(t)
	testenv.Bin(t, "wherryd")
	cgroup := fmt.Sprintf("/wherry-soak-%d", os.Getpid())
	d := testenv.Start(t, testenv.Options{Args: []string{"--cgroup-parent", cgroup, "--log-level", "warn"}})
	u := &user{t: t, image: d.Image(t, "busybox"), http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", d.Socket)
		},
	}}}
	total, every := number(t, "WHERRY_SOAK_CYCLES", 300), number(t, "WHERRY_SOAK_EVERY", 2000)
	// One container stays, so that there is something to keep.
	d.Docker(t).OK(t, "run", "-d", u.image, "sleep", "1000000")

	u.cycles(0, warmUp)
	first := settled(t, d, cgroup, nil)
	fmt.Println(head)
	fmt.Println(first.row(0))
	var last sample
	for done := 0; done < total && !t.Failed(); {
		n := min(every, total-done)
		u.cycles(done, n)
		done += n
		last = settled(t, d, cgroup, &first)
		fmt.Println(last.row(done))
	}
	if !t.Failed() {
		compare(t, first, last)
	}
}

// settled looks once nothing is under way any more. What containers use up
// must be as it was first.
func settled(t *testing.T, d *testenv.Daemon, cgroup string, first *sample) sample {
	t.Helper()
	var s sample
	if first == nil { // when nothing becomes less any more
		s = take(d, cgroup)
		for still := 0; still < 20; still++ {
			pause(t, d)
			now := take(d, cgroup)
			if s.more(now) != "" {
				still = 0
			}
			s = now
		}
		return s
	}
	more := ""
	for range 500 {
		s = take(d, cgroup)
		if more = s.more(*first); more == "" {
			return s
		}
		pause(t, d)
	}
	t.Errorf("does not become as it was: %s", more)
	return s
}

// pause lasts as long as the daemon takes to answer a few requests.
func pause(t *testing.T, d *testenv.Daemon) {
	t.Helper()
	for range 5 {
		if _, _, err := d.Request(t.Context(), "GET", "/info", nil); err != nil {
			t.Fatal(err)
		}
	}
}

// more names one of the things that are counted of which there are more than before.
func (s sample) more(was sample) string {
	for _, c := range []struct {
		what     string
		now, was int
	}{
		{"control groups", s.cgroups, was.cgroups}, {"links", s.links, was.links}, {"network namespaces", s.netns, was.netns},
		{"files in the exec root", s.execFiles, was.execFiles}, {"files in the data root", s.dataFiles, was.dataFiles},
	} {
		if c.now > c.was {
			return fmt.Sprintf("%d %s, %d before", c.now, c.what, c.was)
		}
	}
	for _, face := range faces {
		now, then := s.procs[face], was.procs[face]
		if now.fds > then.fds {
			return fmt.Sprintf("%d descriptors of the %s, %d before", now.fds, face, then.fds)
		}
		if now.mounts > then.mounts {
			return fmt.Sprintf("%d mounts of the %s, %d before", now.mounts, face, then.mounts)
		}
	}
	return ""
}

// compare looks at what may vary, but not grow with the number of cycles.
func compare(t *testing.T, first, last sample) {
	t.Helper()
	for _, face := range faces {
		now, was := last.procs[face], first.procs[face]
		if now.threads > was.threads+moreThreads {
			t.Errorf("%d threads of the %s, %d before", now.threads, face, was.threads)
		}
		if now.rss > was.rss+moreMemory {
			t.Errorf("%d KiB of memory of the %s, %d before", now.rss, face, was.rss)
		}
	}
	if grown := last.state + last.metadata - first.state - first.metadata; grown > 16<<10 {
		t.Errorf("the state grew by %d KiB", grown)
	}
}
