// Command wherry is the command line of the engine. Under the name docker it
// behaves the same.
//
// It does not ask how much processor time its own cgroup may use: that takes part
// of a short life, and no part of it lives off many threads.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"os"

	"github.com/wherry-engine/wherry/cli"
	"github.com/wherry-engine/wherry/internal/entry"
)

func main() {
	entry.GrowStack()
	entry.Hide()
	os.Exit(cli.Main(os.Args))
}
