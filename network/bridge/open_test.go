package bridge

import (
	"context"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wherry-engine/wherry/network"
	"github.com/wherry-engine/wherry/network/netns"
)

// TestGivenNamespace opens sandboxes in namespaces that others have made.
func TestGivenNamespace(t *testing.T) {
	h := newHost(t, nil)
	given := func() *os.File {
		made := make(chan *os.File, 1)
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends
			defer close(made)
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				t.Error(err)
				return
			}
			ns, err := netns.Open()
			if err != nil {
				t.Error(err)
				return
			}
			made <- ns
		}()
		ns := <-made
		if ns == nil {
			t.FailNow()
		}
		return ns
	}
	ns, bare := given(), given()
	a := h.open(network.SandboxRequest{Endpoints: on("bridge"), Ports: publishPorts("", "8080", "80/tcp"), NetNS: ns})
	b := h.open(network.SandboxRequest{NetNS: bare})
	for what, files := range map[string][2]*os.File{"connected": {ns, a.ns}, "bare": {bare, b.ns}} {
		x, err1 := files[0].Stat()
		y, err2 := files[1].Stat()
		if err1 != nil || err2 != nil || !os.SameFile(x, y) {
			t.Errorf("%s: another namespace (%v, %v)", what, err1, err2)
		}
		check(t, files[0].Close())
	}
	serve(t, a.ns, "0.0.0.0:80")
	h.reaches([]reach{
		{"published", nil, "127.0.0.1:8080", true},
		{"from one without networks", b.ns, a.ip().String() + ":80", false},
	})
	serve(t, b.ns, "127.0.0.1:81")
	h.reaches([]reach{{"its own loopback", b.ns, "127.0.0.1:81", true}})
}

func TestDefaultBridge(t *testing.T) {
	h := newHost(t, nil)
	a := h.open(network.SandboxRequest{Endpoints: on("bridge"), Ports: publishPorts("", "8080", "80/tcp", "", "8053", "53/udp")})
	b := h.open(network.SandboxRequest{Endpoints: on("bridge")})
	serve(t, a.ns, "0.0.0.0:80")
	serve(t, a.ns, "0.0.0.0:81")
	serveUDP(t, a.ns, "0.0.0.0:53")
	serve(t, h.next, nextAddr+":9000")
	serve(t, hostNS(t), hostAddr+":9001")
	tests := []struct {
		name string
		from box
		addr string
		want string // the peer's address as seen there, "" if refused
	}{
		{"host to container", box{}, a.ip().String() + ":80", "10.201.0.1"},
		{"host through loopback", box{}, "127.0.0.1:8080", "10.201.0.1"},
		{"host through its address", box{}, hostAddr + ":8080", hostAddr},
		{"neighbour", box{ns: h.next}, hostAddr + ":8080", nextAddr},
		{"container to container", b, a.ip().String() + ":80", b.ip().String()},
		{"container through the published port", b, hostAddr + ":8080", "10.201.0.1"},
		{"container through the bridge's address", b, "10.201.0.1:8080", "10.201.0.1"},
		{"itself through the published port", a, hostAddr + ":8080", "10.201.0.1"},
		{"container to the world", b, nextAddr + ":9000", hostAddr},
		{"container to the host", b, hostAddr + ":9001", b.ip().String()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := dial(tt.from.ns, tt.addr)
			if tt.want == "" && err == nil {
				t.Errorf("connection is possible, from %s", got)
			} else if tt.want != "" && (err != nil || got != tt.want) {
				t.Errorf("dial = %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	for _, addr := range []string{"127.0.0.1:8053", hostAddr + ":8053"} {
		if err := pingUDP(nil, addr); err != nil {
			t.Errorf("UDP from the host to %s: %v", addr, err)
		}
	}
	if err := pingUDP(h.next, hostAddr+":8053"); err != nil {
		t.Errorf("UDP from the neighbour: %v", err)
	}
}

func BenchmarkOpenClose(b *testing.B) {
	for _, bb := range []struct {
		name string
		req  network.SandboxRequest
	}{
		{"plain", network.SandboxRequest{}},
		{"port", network.SandboxRequest{Ports: publishPorts("", "8080", "80/tcp")}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			h := newHost(b, nil)
			for b.Loop() {
				req := bb.req
				req.ContainerID, req.Endpoints = newID(), on("bridge")
				req.ID = network.SandboxID(req.ContainerID)
				s, ns, err := h.sb.Open(context.Background(), req)
				if err != nil {
					b.Fatal(err)
				}
				_ = ns.Close()
				if err := h.sb.Close(context.Background(), s.ID); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpenWarm is the part that a container start waits for, with
// namespaces ready in the pool.
func BenchmarkOpenWarm(b *testing.B) {
	for _, bb := range []struct {
		name, network string
		ports         bool
	}{{"plain", "bridge", false}, {"port", "bridge", true}, {"named", "front", false}} {
		b.Run(bb.name, func(b *testing.B) {
			h := newHost(b, func(o *Options) { o.PoolSize = 16 })
			h.network("front", nil)
			var open, closed []time.Duration
			for range 64 {
				for len(open)%16 == 0 && h.m.pool.Ready() < 16 {
					time.Sleep(time.Millisecond)
				}
				req := network.SandboxRequest{ContainerID: newID(), Endpoints: on(bb.network)}
				req.ID = network.SandboxID(req.ContainerID)
				if bb.ports {
					req.Ports = publishPorts("", "8080", "80/tcp")
				}
				start := time.Now()
				s, ns, err := h.sb.Open(context.Background(), req)
				open = append(open, time.Since(start))
				check(b, err)
				_ = ns.Close()
				start = time.Now()
				check(b, h.sb.Close(context.Background(), s.ID))
				closed = append(closed, time.Since(start))
			}
			slices.Sort(open)
			slices.Sort(closed)
			b.ReportMetric(float64(open[len(open)/2].Microseconds()), "us-open")
			b.ReportMetric(float64(open[len(open)/10].Microseconds()), "us-open-p10")
			b.ReportMetric(float64(closed[len(closed)/2].Microseconds()), "us-close")
			b.ReportMetric(0, "ns/op")
		})
	}
}
