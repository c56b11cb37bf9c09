package cli

import (
	"context"
	"net/url"
	"strconv"

	"github.com/spf13/pflag"
)

func stopCommand() command {
	return command{
		group: "container", name: "stop", top: "stop",
		usage: "[OPTIONS] CONTAINER [CONTAINER...]", short: "Ask containers to stop, and kill those that do not",
		args: minArgs(1),
		run:  func(a *app, f *pflag.FlagSet) runFunc { return stopOrRestart(a, f, "stop") },
	}
}

// stopOrRestart is the work of stop and restart, which take the same flags.
func stopOrRestart(a *app, f *pflag.FlagSet, action string) runFunc {
	var signal string
	var timeout int
	f.StringVarP(&signal, "signal", "s", "", "Signal to send, by name or number")
	f.IntVarP(&timeout, "timeout", "t", 0, "How long a container has to stop before it is killed, in seconds")
	f.IntVar(&timeout, "time", 0, "How long a container has to stop before it is killed, in seconds")
	_ = f.MarkHidden("time")
	return func(ctx context.Context, args []string) error {
		if f.Changed("time") && f.Changed("timeout") {
			return invalidf("conflicting options: cannot specify both --timeout and --time")
		}
		q := url.Values{}
		if signal != "" {
			q.Set("signal", signal)
		}
		if f.Changed("timeout") || f.Changed("time") {
			q.Set("t", strconv.Itoa(timeout))
		}
		cl, err := a.client()
		if err != nil {
			return err
		}
		return a.each(args, func(name string) error {
			return cl.Post(ctx, containerPath(name, action), q, nil, nil)
		})
	}
}
