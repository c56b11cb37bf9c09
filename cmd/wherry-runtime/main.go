// Command wherry-runtime is the OCI runtime of Wherry and the three helpers of
// a daemon, each a face selected by the first argument. Anything that is not a
// helper is a command of the OCI command line.
//
// It does not ask how much processor time its own cgroup may use: no part of it
// lives off many threads, and asking is a good part of a short life. A command
// runs its Go code on one processor (see package entry).
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"os"

	"github.com/wherry-engine/wherry/dataplane"
	"github.com/wherry-engine/wherry/internal/entry"
	"github.com/wherry-engine/wherry/keeper"
	"github.com/wherry-engine/wherry/ocirun/command"
	"github.com/wherry-engine/wherry/ocirun/initproc"
	"github.com/wherry-engine/wherry/supervisor"
)

func main() {
	entry.GrowStack()
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "init": // the first process of every container; see ocirun/wire
			os.Exit(initproc.Main(os.Args[2:]))
		case "supervisor":
			entry.AllProcessors()
			os.Exit(supervisor.Main(os.Args[2:]))
		case "keeper":
			entry.AllProcessors()
			os.Exit(keeper.Main(os.Args[2:]))
		case "net":
			entry.AllProcessors()
			os.Exit(dataplane.Main(os.Args[2:]))
		}
	}
	os.Exit(command.Main(os.Args[1:]))
}
