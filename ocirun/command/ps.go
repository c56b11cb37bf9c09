package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

func ps(ctx context.Context, g *globals, args []string) error {
	fs := newFlags("ps")
	format := fs.String("format", "table", "table or json")
	fs.StringVar(format, "f", "table", "table or json")
	if err := fs.Parse(args); err != nil {
		return err
	}
	id := fs.Arg(0)
	if err := checkID(id); err != nil {
		return err
	}
	rt, r, err := g.open(id)
	if err != nil {
		return err
	}
	defer rt.Close()
	pids, err := rt.Pids(r.Cgroup)
	if err != nil {
		return err
	}
	if *format == "json" {
		return printJSON(pids)
	}
	options := fs.Args()[1:]
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	out, err := exec.CommandContext(ctx, "ps", options...).Output()
	if err != nil {
		return fmt.Errorf("ps: %w", err)
	}
	return filterPS(string(out), pids)
}

// filterPS prints the lines of ps that belong to the processes.
func filterPS(out string, pids []int) error {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	column := -1
	for i, title := range strings.Fields(lines[0]) {
		if title == "PID" {
			column = i
		}
	}
	if column < 0 {
		return fmt.Errorf("ps shows no PID column: %w", errdefs.ErrInvalidArgument)
	}
	wanted := map[string]bool{}
	for _, p := range pids {
		wanted[strconv.Itoa(p)] = true
	}
	var err error
	for i, l := range lines {
		f := strings.Fields(l)
		if i == 0 || len(f) > column && wanted[f[column]] {
			_, werr := fmt.Fprintln(os.Stdout, l)
			err = errors.Join(err, werr)
		}
	}
	return err
}
