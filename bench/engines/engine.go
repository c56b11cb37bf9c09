package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// engine is one daemon under measurement.
type engine struct {
	name   string
	socket string
	// match are parts of command lines of helpers outside the daemon's own process tree.
	match  []string
	client *http.Client
}

func newEngine(name, socket string) *engine {
	e := &engine{name: name, socket: socket}
	if m := os.Getenv("BENCH_" + strings.ToUpper(name) + "_MATCH"); m != "" {
		e.match = strings.Split(m, ",")
	}
	// Connections are kept, as SDKs keep them.
	e.client = &http.Client{
		Timeout: 5 * time.Minute,
		Transport: &http.Transport{
			MaxIdleConnsPerHost: 16,
			Dial:                func(_, _ string) (net.Conn, error) { return net.Dial("unix", socket) },
		},
	}
	return e
}

// call sends a request and decodes the answer into out, unless that is nil.
func (e *engine) call(method, path string, in, out any) error {
	data, err := e.raw(method, path, in)
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(data, out)
}

func (e *engine) raw(method, path string, in any) ([]byte, error) {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequest(method, "http://engine"+path, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %s %s: %w", e.name, method, path, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 400 {
		err = fmt.Errorf("%s: %s %s: %s %.300s", e.name, method, path, resp.Status, data)
	}
	return data, err
}

type object = map[string]any

// create makes a container; network "" is the default one.
func (e *engine) create(image, network string, cmd ...string) (string, error) {
	host := object{}
	if network != "" {
		host["NetworkMode"] = network
	}
	var made struct{ ID string }
	err := e.call("POST", "/containers/create", object{"Image": image, "Cmd": cmd, "HostConfig": host}, &made)
	return made.ID, err
}

func (e *engine) start(id string) error { return e.call("POST", "/containers/"+id+"/start", nil, nil) }

func (e *engine) wait(id string) error { return e.call("POST", "/containers/"+id+"/wait", nil, nil) }

func (e *engine) remove(id string) error {
	return e.call("DELETE", "/containers/"+id+"?force=1&v=1", nil, nil)
}

// pid is the process that listens on the socket.
func (e *engine) pid() (int, error) {
	c, err := net.Dial("unix", e.socket)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	conn, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = conn.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, credErr); err != nil {
		return 0, err
	}
	if cred.Pid == 1 {
		return 0, fmt.Errorf("%s: the socket is pid 1's; give the daemon's own", e.name)
	}
	return int(cred.Pid), nil
}

// processes are the daemon, its helpers, and all they started outside containers.
func (e *engine) processes() (map[int]string, error) {
	pid, err := e.pid()
	if err != nil {
		return nil, err
	}
	home, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	todo := []int{pid}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		p, _ := strconv.Atoi(filepath.Base(dir))
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		parent, _ := strconv.Atoi(fields[1])
		children[parent] = append(children[parent], p)
		line, _ := os.ReadFile(dir + "/cmdline")
		for _, m := range e.match {
			if p != os.Getpid() && strings.Contains(strings.ReplaceAll(string(line), "\x00", " "), m) {
				todo = append(todo, p)
			}
		}
	}
	found := map[int]string{}
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if _, seen := found[p]; seen {
			continue
		}
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p)); err != nil || ns != home {
			continue // in a container
		}
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p))
		found[p] = strings.TrimSpace(string(comm))
		todo = append(todo, children[p]...)
	}
	return found, nil
}

// memory sums a line of a file below /proc/PID over all processes, in KiB.
func (e *engine) memory(file, key string) (float64, error) {
	procs, err := e.processes()
	if err != nil {
		return 0, err
	}
	total := 0.0
	for p := range procs {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p, file))
		if err != nil {
			continue
		}
		total += field(data, key)
	}
	return total, nil
}

func (e *engine) pss() (float64, error) { return e.memory("smaps_rollup", "Pss:") }
func (e *engine) rss() (float64, error) { return e.memory("status", "VmRSS:") }

// field finds "key   number kB" among lines.
func field(data []byte, key string) float64 {
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == key {
			v, _ := strconv.ParseFloat(f[1], 64)
			return v
		}
	}
	return 0
}

// kernelMemory is what the machine's kernel uses for what containers need, in KiB.
func kernelMemory() float64 {
	data, _ := os.ReadFile("/proc/meminfo")
	total := 0.0
	for _, key := range []string{"Slab:", "Percpu:", "KernelStack:", "PageTables:"} {
		total += field(data, key)
	}
	return total
}
