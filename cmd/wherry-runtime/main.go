// Command wherry-runtime is the OCI runtime of Wherry and the three helpers of
// a daemon, each a face selected by the first argument. Anything that is not a
// helper is a command of the OCI command line.
//
// It does not ask how much processor time its own cgroup may use: no part of it
// lives off many threads, and asking is a good part of a short life. A command
// runs its Go code on one processor (see entry_amd64.s): the threads it would
// start for others cost it a tenth of its time.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"os"
	"runtime"

	"github.com/wherry-engine/wherry/dataplane"
	"github.com/wherry-engine/wherry/keeper"
	"github.com/wherry-engine/wherry/ocirun/command"
	"github.com/wherry-engine/wherry/ocirun/initproc"
	"github.com/wherry-engine/wherry/supervisor"
)

func main() {
	growStack()
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "init": // the first process of every container; see ocirun/wire
			os.Exit(initproc.Main(os.Args[2:]))
		case "supervisor":
			allProcessors()
			os.Exit(supervisor.Main(os.Args[2:]))
		case "keeper":
			allProcessors()
			os.Exit(keeper.Main(os.Args[2:]))
		case "net":
			allProcessors()
			os.Exit(dataplane.Main(os.Args[2:]))
		}
	}
	os.Exit(command.Main(os.Args[1:]))
}

// allProcessors undoes what the program's entry did.
func allProcessors() {
	const name = "GOMAXPROCS"
	if os.Getenv(name) == "01" {
		_ = os.Unsetenv(name)
		runtime.GOMAXPROCS(runtime.NumCPU())
	}
}

// growStack makes the stack as large as most commands need, while there is next
// to nothing on it: growing it by and by means to look up every function on it.
//
//go:noinline
func growStack() byte {
	var room [24 << 10]byte
	return room[len(os.Args)]
}
