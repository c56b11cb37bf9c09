package command

import (
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// checkConsole tells apart who gets the terminal: the caller's socket, or this
// command itself if it stays in the foreground.
func checkConsole(terminal bool, socket string, leaves bool) error {
	switch {
	case terminal && socket == "" && leaves:
		return fmt.Errorf("a terminal needs --console-socket if the command does not stay: %w", errdefs.ErrInvalidArgument)
	case !terminal && socket != "":
		return fmt.Errorf("--console-socket without a terminal: %w", errdefs.ErrInvalidArgument)
	}
	return nil
}

// sendConsole passes the terminal's master to the caller's socket.
func sendConsole(socket string, console *os.File) error {
	conn, err := dial(socket)
	if err != nil {
		return fmt.Errorf("connect to the console socket: %w", err)
	}
	defer conn.Close()
	fd := int(console.Fd())
	if err := unix.SetNonblock(fd, false); err != nil {
		return err
	}
	return unix.Sendmsg(int(conn.Fd()), []byte("/dev/ptmx"), unix.UnixRights(fd), nil, 0)
}

// proxy connects this command's terminal with the container's until done.
func proxy(console *os.File) (restore func(), err error) {
	stdin := int(os.Stdin.Fd())
	old, err := unix.IoctlGetTermios(stdin, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("stdin is not a terminal: %w", err)
	}
	raw := *old
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(stdin, unix.TCSETS, &raw); err != nil {
		return nil, err
	}
	resize := func() {
		if size, err := unix.IoctlGetWinsize(stdin, unix.TIOCGWINSZ); err == nil {
			_ = unix.IoctlSetWinsize(int(console.Fd()), unix.TIOCSWINSZ, size)
		}
	}
	resize()
	winch := make(chan os.Signal, 1)
	signal.Notify(winch, unix.SIGWINCH)
	go func() {
		for range winch {
			resize()
		}
	}()
	go func() { _, _ = io.Copy(console, os.Stdin) }() // ends with this process
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(os.Stdout, console)
	}()
	return func() {
		<-done
		signal.Stop(winch)
		close(winch)
		_ = unix.IoctlSetTermios(stdin, unix.TCSETS, old)
	}, nil
}
