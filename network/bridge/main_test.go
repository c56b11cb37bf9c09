package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	apinetwork "github.com/moby/moby/api/types/network"

	"github.com/wherry-engine/wherry/dataplane"
	"github.com/wherry-engine/wherry/dataplane/client"
	"github.com/wherry-engine/wherry/keeper"
	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/network/netns"
	"github.com/wherry-engine/wherry/network/rtnl"
)

const inside = "WHERRY_TEST_NETNS"

// TestMain runs the tests in a network namespace of their own.
//
// The keeper of a test starts this binary again as its helpers.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "keeper":
			os.Exit(keeper.Main(os.Args[2:]))
		case "net":
			os.Exit(dataplane.Main(os.Args[2:]))
		case "supervisor": // it has nothing to do here
			end := make(chan os.Signal, 1)
			signal.Notify(end, syscall.SIGTERM)
			<-end
			os.Exit(0)
		}
	}
	if os.Geteuid() != 0 || os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	var exit *exec.ExitError
	switch err := cmd.Run(); {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func needsRoot(t testing.TB) {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Skip("needs root for network namespaces")
	}
}

// memStore is a Store in memory.
type memStore struct {
	mu sync.Mutex
	m  map[string]map[string][]byte
}

func newStore() *memStore { return &memStore{m: map[string]map[string][]byte{}} }

func (s *memStore) Put(bucket, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[bucket] == nil {
		s.m[bucket] = map[string][]byte{}
	}
	s.m[bucket][key] = value
	return nil
}

func (s *memStore) Delete(bucket, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m[bucket], key)
	return nil
}

func (s *memStore) ForEach(bucket string, fn func(string, []byte) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, v := range s.m[bucket] {
		if err := fn(k, v); err != nil {
			return err
		}
	}
	return nil
}

// host is the machine of a test: loopback, an uplink to a neighbour, a manager.
type host struct {
	t     testing.TB
	m     *Manager
	sb    *Sandboxes
	o     Options
	store *memStore
	next  *os.File // the neighbour's namespace
	// stop ends the net helper.
	stop func()
}

const (
	hostAddr, nextAddr   = "192.0.2.2", "192.0.2.1"
	hostAddr6, nextAddr6 = "2001:db8::2", "2001:db8::1"
)

func newHost(t testing.TB, change func(*Options)) *host {
	t.Helper()
	needsRoot(t)
	h := &host{t: t, store: newStore()}
	h.uplink()
	h.o = Options{
		ExecRoot: t.TempDir(), Bridge: "wt0", BridgeIP: netip.MustParsePrefix("10.201.0.1/16"), Store: h.store,
		Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
	if change != nil {
		change(&h.o)
	}
	h.helper()
	h.start()
	t.Cleanup(func() {
		if err := h.m.Shutdown(true); err != nil {
			t.Errorf("shut down: %v", err)
		}
		h.stop()
		h.noLeaks()
	})
	return h
}

// helper runs the net helper in this process.
func (h *host) helper() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- dataplane.Run(ctx, h.o.ExecRoot, slog.New(slog.DiscardHandler)) }()
	h.stop = func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("net helper: %v", err)
		}
	}
}

func (h *host) start() {
	h.t.Helper()
	h.o.DataPlane = client.New(h.o.ExecRoot)
	m, err := New(context.Background(), h.o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.m, h.sb = m, m.Sandboxes()
}

// restart is a daemon that was killed and starts again.
func (h *host) restart(live map[network.SandboxID]*os.File) {
	h.t.Helper()
	if err := h.m.release(); err != nil {
		h.t.Fatal(err)
	}
	h.m.watch.Close(false)
	h.start()
	if err := h.sb.Restore(context.Background(), live); err != nil {
		h.t.Fatal(err)
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) { w.t.Log(string(b)); return len(b), nil }

// uplink makes loopback usable and connects a neighbour.
func (h *host) uplink() {
	h.t.Helper()
	nl, err := rtnl.Dial()
	check(h.t, err)
	defer nl.Close()
	pool, err := netns.NewPool(netns.PoolOptions{Logger: slog.New(slog.DiscardHandler)})
	check(h.t, err)
	defer pool.Close()
	next, err := pool.Bare(context.Background())
	check(h.t, err)
	name, hostIndex, inIndex, err := netns.AddVeth(nl, next.Link, next.File, "up0", "", 1500)
	check(h.t, err)
	var b, in rtnl.Batch
	b.SetLink(1, rtnl.LinkChange{Up: true})
	b.AddAddr(hostIndex, netip.MustParsePrefix(hostAddr+"/24"))
	b.AddAddr(hostIndex, netip.MustParsePrefix(hostAddr6+"/64"))
	b.SetLink(hostIndex, rtnl.LinkChange{Up: true})
	check(h.t, nl.Do(&b))
	in.AddAddr(inIndex, netip.MustParsePrefix(nextAddr+"/24"))
	in.AddAddr(inIndex, netip.MustParsePrefix(nextAddr6+"/64"))
	in.SetLink(inIndex, rtnl.LinkChange{Up: true})
	check(h.t, next.Link.Do(&in))
	check(h.t, next.Link.Close())
	h.next = next.File
	h.t.Cleanup(func() {
		nl, err := rtnl.Dial()
		check(h.t, err)
		var b rtnl.Batch
		b.DelLinkByName(name)
		check(h.t, nl.Do(&b))
		_ = nl.Close()
		_ = h.next.Close()
	})
}

// noLeaks fails if anything is left of a manager that was shut down.
func (h *host) noLeaks() {
	h.t.Helper()
	nl, err := rtnl.Dial()
	check(h.t, err)
	defer nl.Close()
	links, err := nl.Links()
	check(h.t, err)
	for _, l := range links {
		if l.Alias == h.m.alias {
			h.t.Errorf("link %s is left", l.Name)
		}
	}
	c, err := nftables.New()
	check(h.t, err)
	tables, err := c.ListTables()
	check(h.t, err)
	for _, t := range tables {
		if t.Name == h.o.table() {
			h.t.Errorf("table %s is left", t.Name)
		}
	}
	for bucket, keys := range h.store.m {
		if bucket == bucketSandboxes && len(keys) > 0 {
			h.t.Errorf("%d records of sandboxes are left", len(keys))
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// box is an open sandbox of a test.
type box struct {
	network.Sandbox
	ns *os.File
}

func (h *host) open(req network.SandboxRequest) box {
	h.t.Helper()
	b, err := h.tryOpen(req)
	check(h.t, err)
	return b
}

func (h *host) tryOpen(req network.SandboxRequest) (box, error) {
	if req.ContainerID == "" {
		req.ContainerID = newID()
	}
	req.ID = network.SandboxID(req.ContainerID)
	if req.Hostname == "" {
		req.Hostname = req.ContainerID[:12]
	}
	if req.ContainerName == "" {
		req.ContainerName = "c" + req.ContainerID[:6]
	}
	sb, ns, err := h.sb.Open(context.Background(), req)
	if err != nil {
		return box{}, err
	}
	b := box{sb, ns}
	h.t.Cleanup(func() {
		_ = ns.Close()
		if err := h.sb.Close(context.Background(), sb.ID); err != nil {
			h.t.Errorf("close sandbox: %v", err)
		}
	})
	return b, nil
}

// on lists endpoint requests by network name.
func on(names ...string) (out []network.EndpointRequest) {
	for _, n := range names {
		out = append(out, network.EndpointRequest{Network: n})
	}
	return out
}

func (b box) ip() netip.Addr  { return b.Endpoints[0].Settings.IPAddress }
func (b box) ip6() netip.Addr { return b.Endpoints[0].Settings.GlobalIPv6Address }

// serve answers every TCP connection in a namespace with the peer's address.
func serve(t testing.TB, ns *os.File, addr string) {
	t.Helper()
	var l net.Listener
	check(t, netns.Do(ns, func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, netip.MustParseAddrPort(c.RemoteAddr().String()).Addr().String())
			_ = c.Close()
		}
	}()
}

// serveUDP echoes datagrams in a namespace.
func serveUDP(t testing.TB, ns *os.File, addr string) {
	t.Helper()
	var c net.PacketConn
	check(t, netns.Do(ns, func() (err error) {
		c, err = net.ListenPacket("udp", addr)
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buf[:n], from)
		}
	}()
}

// dial connects from a namespace (nil: the host) and returns what is sent.
func dial(ns *os.File, addr string) (said string, err error) {
	talk := func() error {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second)) // who has been let in is answered
		b, err := io.ReadAll(c)
		said = string(b)
		return err
	}
	if ns == nil {
		return said, talk()
	}
	err = netns.Do(ns, talk)
	return said, err
}

func pingUDP(ns *os.File, addr string) error {
	talk := func() error {
		c, err := net.Dial("udp", addr)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Write([]byte("ping")); err != nil {
			return err
		}
		_, err = c.Read(make([]byte, 16))
		return err
	}
	if ns == nil {
		return talk()
	}
	return netns.Do(ns, talk)
}

func publishPorts(list ...string) apinetwork.PortMap {
	out := apinetwork.PortMap{}
	for i := 0; i < len(list); i += 3 {
		p := apinetwork.MustParsePort(list[i+2])
		pb := apinetwork.PortBinding{HostPort: list[i+1]}
		if list[i] != "" {
			pb.HostIP = netip.MustParseAddr(list[i])
		}
		out[p] = append(out[p], pb)
	}
	return out
}

// hostNS is the namespace of the test.
func hostNS(t testing.TB) *os.File {
	f, err := os.Open("/proc/self/ns/net")
	check(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}
