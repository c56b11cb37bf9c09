// Package integration drives the built binaries through their public
// interfaces, with our command line and the stock docker one, on real images:
// one file per feature. `make integration` builds what it needs.
package integration
