// Command phases makes a table of medians out of what `wherry events --timing`
// printed.
//
// usage: wherry events --timing … | phases
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"os"
	"slices"
	"strconv"
	"strings"
)

func main() {
	log.SetFlags(0)
	if err := table(os.Stdin, os.Stdout); err != nil {
		log.Fatal("phases: ", err)
	}
}

// operation is one kind of event with its phases in their order.
type operation struct {
	name   string
	phases []string
	ms     map[string][]float64
}

func table(in io.Reader, out io.Writer) error {
	var (
		all  []*operation
		now  *operation
		seen map[string]int // phases of this event: a name may come again
	)
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		line := lines.Text()
		if !strings.HasPrefix(line, "    ") {
			f := strings.Fields(line)
			if now = nil; len(f) > 2 {
				now = find(&all, f[1]+" "+f[2])
			}
			seen = map[string]int{}
			continue
		}
		f := strings.Fields(line)
		if now == nil || len(f) < 3 {
			continue
		}
		v, err := strconv.ParseFloat(f[len(f)-2], 64)
		if err != nil {
			return err
		}
		name := strings.Join(f[:len(f)-2], " ")
		seen[name]++
		if n := seen[name]; n > 1 {
			name += fmt.Sprintf(" (%d)", n)
		}
		if now.ms[name] == nil {
			now.phases = append(now.phases, name)
		}
		now.ms[name] = append(now.ms[name], v)
	}
	for _, op := range all {
		if len(op.phases) == 0 {
			continue
		}
		fmt.Fprintf(out, "%s\n", op.name)
		for _, p := range op.phases {
			v := slices.Sorted(slices.Values(op.ms[p]))
			fmt.Fprintf(out, "  %-34s %8.3f ms\n", p, v[len(v)/2])
		}
	}
	return lines.Err()
}

func find(all *[]*operation, name string) *operation {
	for _, op := range *all {
		if op.name == name {
			return op
		}
	}
	op := &operation{name: name, ms: map[string][]float64{}}
	*all = append(*all, op)
	return op
}
