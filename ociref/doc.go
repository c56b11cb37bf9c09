// Package ociref parses and writes what names an image: references, digests
// and platforms, by Docker's rules. It is pure text handling: no network, no
// storage, no package-level tables, so that the command line can link it.
package ociref
