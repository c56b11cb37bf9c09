package testenv

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Terminal is a command that runs on a terminal of its own.
type Terminal struct {
	t      testing.TB
	name   string
	master *os.File
	cmd    *exec.Cmd
	done   chan struct{}

	mu  sync.Mutex
	out bytes.Buffer
}

// Terminal starts a command on a new terminal of 80 by 24 cells.
func (c CLI) Terminal(t testing.TB, args ...string) *Terminal {
	t.Helper()
	master, slave, err := openPty()
	if err != nil {
		t.Fatalf("open a terminal: %v", err)
	}
	defer slave.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	p := &Terminal{t: t, name: c.Name + " " + strings.Join(args, " "), master: master, done: make(chan struct{})}
	p.Resize(80, 24)
	p.cmd = c.Command(ctx, args...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = slave, slave, slave
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		p.collect() // ends when the last process closes the terminal
		close(read)
	}()
	go func() {
		_ = p.cmd.Wait()
		cancel()
		select {
		case <-read:
		case <-time.After(time.Second): // someone in the background keeps it
		}
		close(p.done)
	}()
	t.Cleanup(func() {
		cancel()
		<-p.done
		_ = master.Close()
	})
	return p
}

func openPty() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	return master, slave, err
}

func (p *Terminal) collect() {
	buf := make([]byte, 4096)
	for {
		n, err := p.master.Read(buf)
		p.mu.Lock()
		p.out.Write(buf[:n])
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Screen is everything written to the terminal so far.
func (p *Terminal) Screen() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// Type sends keys.
func (p *Terminal) Type(keys string) {
	p.t.Helper()
	if _, err := p.master.WriteString(keys); err != nil {
		p.t.Fatalf("type %q: %v", keys, err)
	}
}

// Expect waits until the text was written.
func (p *Terminal) Expect(text string) {
	p.t.Helper()
	for end := time.Now().Add(15 * time.Second); !strings.Contains(p.Screen(), text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("%s: no %q on the terminal but:\n%q", p.name, text, p.Screen())
		}
	}
}

// Resize changes the size in cells and tells the foreground program.
func (p *Terminal) Resize(width, height uint16) {
	p.t.Helper()
	conn, err := p.master.SyscallConn() // Fd would make reads block for ever
	if err == nil {
		set := func(fd uintptr) {
			err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
		}
		if controlErr := conn.Control(set); controlErr != nil {
			err = controlErr
		}
	}
	if err != nil {
		p.t.Fatalf("resize: %v", err)
	}
}

// Exit waits for the command and returns its exit code.
func (p *Terminal) Exit() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(20 * time.Second):
		p.t.Fatalf("%s: still running; on the terminal:\n%q", p.name, p.Screen())
		return -1
	}
}
