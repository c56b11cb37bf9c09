package top

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
)

// column is a title and how to fill it.
type column struct {
	title string
	value func(process) string
}

// full is ps -ef, aux is ps aux.
const (
	full = "uid,pid,ppid,c,stime,tty,time,cmd"
	aux  = "user,pid,pcpu,pmem,vsz,rss,tty,stat,start,time,command"
)

// columns translates ps's arguments.
func columns(args string) ([]column, error) {
	var out []column
	fields := strings.Fields(args)
	if len(fields) == 0 {
		fields = []string{"-ef"}
	}
	for i := 0; i < len(fields); i++ {
		a := fields[i]
		var spec string
		switch a {
		case "-ef", "-f", "-efw", "-efww", "-Af":
			spec = full
		case "aux", "-aux", "axu", "auxw", "auxww", "u":
			spec = aux
		case "-e", "-A", "ax", "-ax":
			if len(fields) == 1 {
				spec = "pid,tty,time,comm"
			} else {
				continue
			}
		case "-o", "-eo", "o", "axo", "-Ao", "-axo":
			if i++; i >= len(fields) {
				return nil, fmt.Errorf("ps argument %s needs a list of columns: %w", a, errdefs.ErrInvalidArgument)
			}
			spec = fields[i]
		default:
			rest, ok := strings.CutPrefix(a, "-o")
			if !ok {
				return nil, fmt.Errorf("ps argument %q is not supported: use -ef, aux or -o COLUMN,…: %w", a, errdefs.ErrInvalidArgument)
			}
			spec = rest
		}
		for name := range strings.SplitSeq(spec, ",") {
			c, err := columnOf(name)
			if err != nil {
				return nil, err
			}
			out = append(out, c)
		}
	}
	return out, nil
}

// columnOf finds one column; NAME=TITLE renames it.
func columnOf(name string) (column, error) {
	name, title, renamed := strings.Cut(name, "=")
	c, ok := known(name)
	if !ok {
		return c, fmt.Errorf("unknown ps column %q: %w", name, errdefs.ErrInvalidArgument)
	}
	if renamed {
		c.title = title
	}
	return c, nil
}

func known(name string) (column, bool) {
	num := func(title string, f func(process) int) (column, bool) {
		return column{title, func(p process) string { return strconv.Itoa(f(p)) }}, true
	}
	str := func(title string, f func(process) string) (column, bool) { return column{title, f}, true }
	switch name {
	case "pid", "tgid":
		return num("PID", func(p process) int { return p.pid })
	case "ppid":
		return num("PPID", func(p process) int { return p.ppid })
	case "pgid", "pgrp":
		return num("PGID", func(p process) int { return p.pgid })
	case "sid", "sess":
		return num("SID", func(p process) int { return p.sid })
	case "uid":
		return str("UID", process.owner)
	case "user", "euser", "uname":
		return str("USER", process.owner)
	case "c":
		return num("C", func(p process) int { return int(p.percent()) })
	case "pcpu", "%cpu":
		return str("%CPU", func(p process) string { return fmt.Sprintf("%.1f", p.percent()) })
	case "pmem", "%mem":
		return str("%MEM", func(p process) string {
			return fmt.Sprintf("%.1f", 100*float64(p.rss)/float64(max(p.machine.memory, 1)))
		})
	case "vsz", "vsize":
		return num("VSZ", func(p process) int { return int(p.vsz) })
	case "rss", "rssize":
		return num("RSS", func(p process) int { return int(p.rss) })
	case "ni", "nice":
		return num("NI", func(p process) int { return int(p.nice) })
	case "nlwp", "thcount":
		return num("NLWP", func(p process) int { return int(p.threads) })
	case "tty", "tt", "tname":
		return str("TTY", process.terminal)
	case "stat", "state", "s":
		return str(strings.ToUpper(name), func(p process) string { return p.state })
	case "stime", "start", "start_time":
		return str(map[string]string{"stime": "STIME", "start": "START", "start_time": "START"}[name], process.started)
	case "etime":
		return str("ELAPSED", func(p process) string { return clock(p.age()) })
	case "time", "cputime":
		return str("TIME", func(p process) string { return hms(p.cpu) })
	case "comm", "ucmd", "ucomm":
		return str("COMMAND", func(p process) string { return p.comm })
	case "cmd":
		return str("CMD", func(p process) string { return p.args })
	case "args", "command":
		return str("COMMAND", func(p process) string { return p.args })
	}
	return column{}, false
}

func (p process) owner() string {
	if p.user != nil {
		if name := p.user(p.uid); name != "" {
			return name
		}
	}
	return strconv.Itoa(p.uid)
}

func (p process) age() time.Duration { return time.Since(p.machine.boot.Add(p.start)) }

// percent is the CPU used over the life of the process.
func (p process) percent() float64 {
	if age := p.age(); age > 0 {
		return 100 * float64(p.cpu) / float64(age)
	}
	return 0
}

func (p process) started() string {
	at := p.machine.boot.Add(p.start)
	if time.Since(at) < 24*time.Hour {
		return at.Format("15:04")
	}
	return at.Format("Jan02")
}

// terminal names the controlling terminal by its device number.
func (p process) terminal() string {
	major, minor := (p.tty>>8)&0xfff, p.tty&0xff|(p.tty>>12)&0xfff00
	switch {
	case p.tty == 0:
		return "?"
	case major >= 136 && major <= 143:
		return fmt.Sprintf("pts/%d", (major-136)<<8|minor)
	case major == 4:
		return fmt.Sprintf("tty%d", minor)
	}
	return fmt.Sprintf("%d:%d", major, minor)
}

func hms(d time.Duration) string {
	s := int(d / time.Second)
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

// clock is ps's elapsed time: [[dd-]hh:]mm:ss.
func clock(d time.Duration) string {
	s := int(d / time.Second)
	switch {
	case s >= 86400:
		return fmt.Sprintf("%d-%02d:%02d:%02d", s/86400, s/3600%24, s/60%60, s%60)
	case s >= 3600:
		return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%02d:%02d", s/60, s%60)
}

func ownerOf(fi os.FileInfo) int {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}
