package wire

import (
	"errors"
	"io"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func sample() *Config {
	adj := int32(-5)
	return &Config{
		ID: "x", JoinFD: -1, Enter: []Enter{{1, 2}}, NewMountNS: true, Propagation: unix.MS_SLAVE | unix.MS_REC,
		Mounts:   []Mount{{Kind: MountBind, Target: "/a", Data: []string{"b=c", ""}, SourceFD: -1, Set: 1 << 40, Propagation: []uint64{1, 2}}},
		CgroupV1: []Hierarchy{{Name: "cpu,cpuacct", Options: []string{"cpu", "cpuacct"}}},
		Sysctl:   []KeyValue{{"a", "b"}},
		Process: Process{
			Args: []string{"a", ""}, GIDs: []uint32{0, 1 << 31}, Umask: -1, Bounding: ^uint64(0), OOMScoreAdj: &adj,
			Rlimits: []Rlimit{{"RLIMIT_CPU", 0, 1, ^uint64(0)}}, Filter: []byte{0, 1, 2, 255}, Scheduler: &Scheduler{Nice: -3},
		},
	}
}

func pair(t *testing.T) (a, b Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[1]) })
	return Conn{fds[0]}, Conn{fds[1]}
}

func TestRoundTrip(t *testing.T) {
	a, b := pair(t)
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	fd := int(dir.Fd())
	go func() {
		_ = a.Send(KindConfig, sample(), fd, fd)
		_ = a.Send(KindContinue, nil)
		unix.Close(a.FD)
	}()
	m, err := b.Receive()
	if err != nil {
		t.Fatal(err)
	}
	if m.Kind != KindConfig || len(m.FDs) != 2 {
		t.Fatalf("%+v", m)
	}
	for _, fd := range m.FDs {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Error("descriptor would leak", flags, err)
		}
		unix.Close(fd)
	}
	var got Config
	if err := m.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), &got); diff != "" {
		t.Error(diff)
	}
	if m, err = b.Receive(); err != nil || m.Kind != KindContinue {
		t.Error(m, err)
	}
	if _, err = b.Receive(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func TestBigMessage(t *testing.T) {
	a, b := pair(t)
	want := &Failure{Msg: string(make([]byte, 3<<20))}
	go func() { _ = a.Send(KindFailure, want) }()
	m, err := b.Receive()
	if err != nil {
		t.Fatal(err)
	}
	var got Failure
	if err := m.Decode(&got); err != nil || got != *want {
		t.Error("differs", err)
	}
	unix.Close(a.FD)
}

func FuzzDecode(f *testing.F) {
	a, b, err := func() (Conn, Conn, error) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		return Conn{fds[0]}, Conn{fds[1]}, err
	}()
	if err != nil {
		f.Fatal(err)
	}
	_ = a.Send(KindConfig, sample())
	m, err := b.Receive()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m.body)
	f.Fuzz(func(_ *testing.T, body []byte) {
		var c Config
		_ = (&Message{body: body}).Decode(&c) // must not panic or exhaust memory
	})
}
