// Package overlay holds writable layers as directories for overlayfs: one
// "upper" and one "work" directory for each layer, and a symbolic link "chain"
// whose target is the digest of the read-only chain below. Making a layer
// copies nothing and writes no database. What a layer changed is read straight
// from its upper directory.
package overlay
