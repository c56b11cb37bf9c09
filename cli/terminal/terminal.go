// Package terminal handles the caller's terminal: whether there is one, its
// size, raw mode, and the key sequence that detaches.
package terminal

import (
	"os"

	"golang.org/x/sys/unix"
)

// Is reports whether f is a terminal.
func Is(f *os.File) bool {
	if f == nil {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Size returns height and width in characters, 0 0 if f is no terminal.
func Size(f *os.File) (height, width uint) {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return uint(ws.Row), uint(ws.Col)
}

// State is a terminal's mode before MakeRaw.
type State struct {
	fd  int
	old unix.Termios
}

// MakeRaw hands every key to the program at once, without echo or signals. If
// output is set, output is not processed either (a remote terminal does it).
func MakeRaw(f *os.File, output bool) (*State, error) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	s := &State{fd: fd, old: *old}
	t := *old
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	if output {
		t.Oflag &^= unix.OPOST
	}
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag &^= unix.CSIZE | unix.PARENB
	t.Cflag |= unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return s, unix.IoctlSetTermios(fd, unix.TCSETS, &t)
}

// NoEcho switches echo off (passwords); line editing stays.
func NoEcho(f *os.File) (*State, error) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	t := *old
	t.Lflag &^= unix.ECHO
	return &State{fd: fd, old: *old}, unix.IoctlSetTermios(fd, unix.TCSETS, &t)
}

// Restore sets the mode back. It may be called more than once, and on nil.
func (s *State) Restore() error {
	if s == nil {
		return nil
	}
	return unix.IoctlSetTermios(s.fd, unix.TCSETS, &s.old)
}
