package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/containerd/errdefs"

	"github.com/wherry-engine/wherry/ocirun"
)

func list(_ context.Context, g *globals, args []string) error {
	flags := newFlags("list")
	format := flags.String("format", "table", "table or json")
	flags.StringVar(format, "f", "table", "table or json")
	quiet := flags.Bool("quiet", false, "names only")
	flags.BoolVar(quiet, "q", false, "names only")
	if err := flags.Parse(args); err != nil {
		return err
	}
	views, err := g.views()
	if err != nil {
		return err
	}
	switch {
	case *quiet:
		for _, v := range views {
			fmt.Fprintln(os.Stdout, v.ID)
		}
		return nil
	case *format == "json":
		return printJSON(views)
	case *format != "table":
		return fmt.Errorf("unknown format %q: %w", *format, errdefs.ErrInvalidArgument)
	}
	rows := [][]string{{"ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"}}
	for _, v := range views {
		rows = append(rows, []string{v.ID, strconv.Itoa(v.Pid), string(v.Status), v.Bundle, v.Created.Format(time.RFC3339Nano), v.Owner})
	}
	printTable(rows)
	return nil
}

// views of all containers; one that vanishes meanwhile is left out, one whose
// state cannot be read is told of.
func (g *globals) views() ([]view, error) {
	entries, err := os.ReadDir(g.root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	views := []view{}
	if len(entries) == 0 {
		return views, nil
	}
	rt, err := ocirun.New(ocirun.Options{Logger: g.logger(), Single: true})
	if err != nil {
		return nil, err
	}
	defer rt.Close()
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		r, err := g.load(e.Name())
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			report(g, fmt.Errorf("list %s: %w", e.Name(), err))
			continue
		}
		v := g.view(rt, r)
		v.Owner = "root"
		views = append(views, v)
	}
	return views, nil
}

func printTable(rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len(cell))
		}
	}
	for _, row := range rows {
		for i, cell := range row {
			if i+1 < len(row) {
				fmt.Fprintf(os.Stdout, "%-*s", width[i]+3, cell)
			} else {
				fmt.Fprintln(os.Stdout, cell)
			}
		}
	}
}
