package integration

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// answer is a server that says its host name to whoever connects.
const answer = "exec nc -ll -p 80 -e hostname"

// echoUDP answers one datagram after the other; busybox cannot.
const echoUDP = `use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 53, Proto => "udp"); while ($s->recv(my $m, 99)) { chomp $m; $s->send("heard $m") }`

// say connects and returns what the server says, with retries while it starts.
func say(t *testing.T, proto, addr string) string {
	t.Helper()
	var out string
	testenv.Eventually(t, "an answer from "+addr, func() bool {
		c, err := net.DialTimeout(proto, addr, time.Second)
		if err != nil {
			return false
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		if strings.HasPrefix(proto, "udp") {
			if _, err := c.Write([]byte("ping\n")); err != nil {
				return false
			}
			buf := make([]byte, 64)
			n, _ := c.Read(buf)
			out = string(buf[:n])
		} else {
			data, _ := io.ReadAll(c)
			out = string(data)
		}
		return out != ""
	})
	return strings.TrimSpace(out)
}

// port is the published port of 80 in the container, for one family.
func port(t *testing.T, cli testenv.CLI, id, inner, family string) string {
	t.Helper()
	for line := range strings.Lines(cli.OK(t, "port", id, inner)) {
		line = strings.TrimSpace(line) // 0.0.0.0:80, [::]:80 or, from old clients, :::80
		if i := strings.LastIndex(line, ":"); i > 0 && (family == "6") == strings.Contains(line[:i], ":") {
			return line[i+1:]
		}
	}
	t.Fatalf("no port of IPv%s for %s", family, inner)
	return ""
}

// hostAddresses are this machine's own addresses besides loopback.
func hostAddress(t *testing.T, d *testenv.Daemon) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		ip, _, err := net.ParseCIDR(a.String())
		if err == nil && ip.To4() != nil && !ip.IsLoopback() && ip.String() != d.Gateway.String() && !strings.HasPrefix(ip.String(), "10.1") && !strings.HasPrefix(ip.String(), "10.2") {
			return ip.String()
		}
	}
	return d.Gateway.String()
}

func TestPublish(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		id := detached(t, cli, "-p", "80", image, "sh", "-c", answer)
		want := id[:12]
		p := port(t, cli, id, "80/tcp", "4")
		equal(t, "loopback", say(t, "tcp", "127.0.0.1:"+p), want)
		equal(t, "name of loopback", say(t, "tcp", "localhost:"+p), want)
		equal(t, "address of the host", say(t, "tcp", hostAddress(t, d)+":"+p), want)
		equal(t, "gateway", say(t, "tcp", d.Gateway.String()+":"+p), want)
		equal(t, "IPv6 loopback", say(t, "tcp", "[::1]:"+port(t, cli, id, "80/tcp", "6")), want)
		// from another container, and from itself, through the published port
		equal(t, "another container", cli.OK(t, "run", "--rm", image, "nc", "-w", "2", d.Gateway.String(), p), want)
		equal(t, "hairpin", cli.OK(t, "exec", id, "nc", "-w", "2", d.Gateway.String(), p), want)
		contains(t, "ps", cli.OK(t, "ps", "--filter", "id="+id, "--format", "{{.Ports}}"), "0.0.0.0:"+p+"->80/tcp")

		cli.OK(t, "restart", "-t", "0", id)
		equal(t, "after a restart", say(t, "tcp", "127.0.0.1:"+port(t, cli, id, "80/tcp", "4")), want)
		cli.OK(t, "stop", "-t", "0", id)
		if c, err := net.DialTimeout("tcp", "127.0.0.1:"+p, time.Second); err == nil {
			c.Close()
			t.Error("the port of a stopped container answers")
		}
	})
}

func TestPublishOneAddress(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	cli := d.Docker(t)
	id := detached(t, cli, "-p", "127.0.0.1::80", image, "sh", "-c", answer)
	p := port(t, cli, id, "80/tcp", "4")
	equal(t, "loopback", say(t, "tcp", "127.0.0.1:"+p), id[:12])
	if c, err := net.DialTimeout("tcp", d.Gateway.String()+":"+p, time.Second); err == nil {
		c.Close()
		t.Error("a port published on loopback answers elsewhere")
	}
	if cli.Try(t, "run", "--rm", image, "nc", "-w", "1", d.Gateway.String(), p).Code == 0 {
		t.Error("a port published on loopback answers a container")
	}
}

func TestPublishUDP(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "debian")
	cli := d.Wherry(t)
	id := detached(t, cli, "-p", "53/udp", image, "perl", "-e", echoUDP)
	for range 3 {
		equal(t, "datagram", say(t, "udp", "127.0.0.1:"+port(t, cli, id, "53/udp", "4")), "heard ping")
	}
}

func TestPublishRangesAndAll(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	cli := d.Docker(t)
	id := detached(t, cli, "-P", "--expose", "80", "--expose", "81/udp", image, "sh", "-c", answer)
	equal(t, "all", say(t, "tcp", "127.0.0.1:"+port(t, cli, id, "80/tcp", "4")), id[:12])
	port(t, cli, id, "81/udp", "4")
	free := freePort(t)
	ranged := detached(t, cli, "-p", fmt.Sprintf("127.0.0.1:%d-%d:80", free, free+20), image, "sh", "-c", answer)
	equal(t, "range", say(t, "tcp", "127.0.0.1:"+port(t, cli, ranged, "80/tcp", "4")), ranged[:12])
}

func TestPublishTaken(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		n := name(t)
		cli.Fails(t, 125, "address already in use", "run", "--name", n, "-p", l.Addr().String()+":80", image, "true")
		equal(t, "it was made but not started", cli.OK(t, "inspect", "-f", "{{.State.Status}}", n), "created")
		cli.OK(t, "rm", n)

		a := detached(t, cli, "-p", "127.0.0.1::80", image, "sh", "-c", answer)
		p := port(t, cli, a, "80/tcp", "4")
		n = name(t)
		cli.Fails(t, 125, "port is already allocated", "run", "--name", n, "-p", "127.0.0.1:"+p+":80", image, "true")
		cli.OK(t, "rm", n)
		equal(t, "the first still answers", say(t, "tcp", "127.0.0.1:"+p), a[:12])
	})
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestHostReachable reaches a server on the host by the name host-gateway.
func TestHostGateway(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	l, err := net.Listen("tcp", d.Gateway.String()+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) // not defer: the subtests run after this function
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, "the host")
			c.Close()
		}
	}()
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		p := l.Addr().(*net.TCPAddr).Port
		equal(t, "answer", cli.OK(t, "run", "--rm", "--add-host", "host.internal:host-gateway", image, "nc", "-w", "2", "host.internal", fmt.Sprint(p)), "the host")
	})
}
