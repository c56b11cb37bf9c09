package listen

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// lookupGroup returns the number of a group given by name or number.
func lookupGroup(name string) (int, error) {
	if name == "" {
		return 0, nil
	}
	f, err := os.Open("/etc/group")
	if err == nil {
		gid, found := findGroup(bufio.NewScanner(f), name)
		if err := f.Close(); err != nil {
			return 0, err
		}
		if found {
			return gid, nil
		}
	}
	if gid, aerr := strconv.Atoi(name); aerr == nil {
		return gid, nil
	}
	return 0, errors.Join(fmt.Errorf("group %s not found", name), err)
}

func findGroup(lines *bufio.Scanner, name string) (int, bool) {
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) < 3 || fields[0] != name {
			continue
		}
		gid, err := strconv.Atoi(fields[2])
		return gid, err == nil
	}
	return 0, false
}
