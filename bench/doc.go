// Package bench holds the measurements, all of which take turns between what
// they compare so that a noisy machine hurts all alike: engines that speak the
// Engine API (engines), whole command lines and the kernel's floor (command,
// floor), the start of a command line (startup), OCI runtimes (runtimes), and
// where the time goes (phases). `make bench` runs them against what Debian has.
package bench
