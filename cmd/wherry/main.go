// Command wherry is the command line of the engine. Under the name docker it
// behaves the same.
package main

import (
	"os"

	"github.com/wherry-engine/wherry/cli"
)

func main() { os.Exit(cli.Main(os.Args)) }
