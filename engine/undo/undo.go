// Package undo collects how to take back what an operation of several steps has
// done, in case a later step fails.
package undo

import (
	"context"
	"errors"
)

// List is what has been done, to be taken back in reverse order.
type List []func(context.Context) error

// Add says how to take the latest step back.
func (l *List) Add(f func(context.Context) error) { *l = append(*l, f) }

// Run takes all steps back; it goes on after errors.
func (l List) Run(ctx context.Context) error {
	var errs []error
	for i := len(l) - 1; i >= 0; i-- {
		errs = append(errs, l[i](ctx))
	}
	return errors.Join(errs...)
}
