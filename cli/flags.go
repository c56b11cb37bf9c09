package cli

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/spf13/pflag"

	"github.com/wherry-engine/wherry/cli/opts"
)

// newList is a flag that may be given several times, without splitting.
func newList(into *[]string) pflag.Value { return opts.NewList(into, nil) }

// refuse adds flags that other clients have and this one does not do yet.
// Using one is an error that names it; they are not in the help.
type refusedFlag struct{ name string }

func refuse(f *pflag.FlagSet, names ...string) {
	for _, n := range names {
		f.Var(refusedFlag{n}, n, "")
		_ = f.MarkHidden(n)
		if takesNoValue(n) {
			f.Lookup(n).NoOptDefVal = "true"
		}
	}
}

func takesNoValue(name string) bool {
	switch name {
	case "squash", "tree", "cluster", "use-api-socket", "load", "push", "check", "debug":
		return true
	}
	return false
}

func (refusedFlag) String() string { return "" }
func (refusedFlag) Type() string   { return "string" }
func (r refusedFlag) Set(string) error {
	return fmt.Errorf("--%s is not supported: %w", r.name, errdefs.ErrNotImplemented)
}

// ignoreTrust adds --disable-content-trust, which has no effect anywhere now.
func ignoreTrust(f *pflag.FlagSet) {
	f.Bool("disable-content-trust", true, "")
	_ = f.MarkHidden("disable-content-trust")
}
