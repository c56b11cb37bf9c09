//go:build !amd64 && !arm64

package caught

import (
	"os"
	"os/signal"
	"syscall"
)

// Notify sends signals to ch from now on, for good. One that ch has no room for
// is lost.
func Notify(ch chan<- os.Signal, signals ...syscall.Signal) error {
	for _, s := range signals {
		signal.Notify(ch, s)
	}
	return nil
}
