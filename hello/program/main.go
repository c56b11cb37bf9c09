// Command program is what the hello image runs: it says what has just been
// proved, as seen from inside the container. With arguments it prints them and
// nothing else, so that it can serve as an echo in tests.
package main

import (
	"os"
	"runtime"
	"strconv"
	"strings"
)

const text = `Hello from Wherry!

That you can read this means that:
 1. the command line reached the daemon through its API socket,
 2. the daemon unpacked the image "hello" that it carries inside itself,
 3. its supervisor started this program as a container: process @PID@ in a
    process list of its own, on a host it calls "@HOST@",
    with a root file system, a network and limits of its own (@ARCH@),
 4. and what it wrote came back to your terminal.

The container is gone as soon as this program ends, if you said --rm.
`

func main() {
	if len(os.Args) > 1 {
		os.Stdout.WriteString(strings.Join(os.Args[1:], " ") + "\n")
		return
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	os.Stdout.WriteString(strings.NewReplacer(
		"@PID@", strconv.Itoa(os.Getpid()),
		"@HOST@", host,
		"@ARCH@", runtime.GOOS+"/"+runtime.GOARCH,
	).Replace(text))
}
