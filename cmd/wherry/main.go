// Command wherry is the command line of the engine. Under the name docker it
// behaves the same.
package main

import (
	"os"

	"github.com/wherry-engine/wherry/cli"
	"github.com/wherry-engine/wherry/internal/entry"
)

func main() {
	entry.Hide()
	os.Exit(cli.Main(os.Args))
}
