// Package caught delivers signals to programs that live for a few milliseconds.
// Each signal that os/signal begins to catch is handed to a thread of its own
// and back, two switches of threads, and the first takes two threads more. Here
// the handler is a few instructions that write the signal's number to a pipe
// (signal-safety(7)), which the run-time polls like any other.
//
// The run-time's own handlers are replaced behind its back, so that a signal that
// is caught here is never given back, and never to be handed to os/signal. Where
// there is no such handler (caught_*.s), os/signal does the work.
package caught
