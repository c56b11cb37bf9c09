// Package notify tells a service manager how the daemon is doing (sd_notify(3)).
package notify

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Ready tells that requests are answered.
func Ready() error { return send("READY=1") }

// Stopping tells that the daemon is on its way out.
func Stopping() error { return send("STOPPING=1") }

// Reloading tells that the configuration is being read; Ready ends it.
func Reloading() error {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return err
	}
	return send(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", ts.Nano()/1000))
}

// send is silent when no service manager listens.
func send(msg string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify service manager: %w", err)
	}
	_, err = conn.Write([]byte(msg))
	return errors.Join(err, conn.Close())
}
