package opts

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// classed carries a class without its words, as messages are shown to people.
type classed struct {
	msg   string
	class error
}

func (e classed) Error() string { return e.msg }
func (e classed) Unwrap() error { return e.class }

func invalidf(format string, args ...any) error {
	return classed{fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument}
}

func unsupportedf(format string, args ...any) error {
	return classed{fmt.Sprintf(format, args...), errdefs.ErrNotImplemented}
}
