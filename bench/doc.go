// Package bench measures engines that speak the Engine API, side by side: its
// command, engines, takes turns between them so that a noisy machine hurts all
// alike. `make bench` runs it against Debian's dockerd.
package bench
