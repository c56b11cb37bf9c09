package check

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	sigRTMin = 34
	sigRTMax = 64
)

// Signal parses a signal: a number, or a name with or without SIG, and the
// real-time ones as RTMIN+n and RTMAX-n. InvalidArgument.
func Signal(s string) (int, error) {
	bad := func() (int, error) { return 0, invalid("invalid signal: %s", s) }
	if n, err := strconv.Atoi(s); err == nil {
		if n <= 0 || n > sigRTMax {
			return bad()
		}
		return n, nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	switch {
	case name == "RTMIN":
		return sigRTMin, nil
	case name == "RTMAX":
		return sigRTMax, nil
	case strings.HasPrefix(name, "RTMIN+"):
		if n, err := strconv.Atoi(name[6:]); err == nil && n >= 0 && n <= sigRTMax-sigRTMin {
			return sigRTMin + n, nil
		}
		return bad()
	case strings.HasPrefix(name, "RTMAX-"):
		if n, err := strconv.Atoi(name[6:]); err == nil && n >= 0 && n <= sigRTMax-sigRTMin {
			return sigRTMax - n, nil
		}
		return bad()
	}
	if n := unix.SignalNum("SIG" + name); n != 0 {
		return int(n), nil
	}
	return bad()
}
