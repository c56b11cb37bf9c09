// Package store keeps images on containerd's libraries in the process: blobs
// in a content store, unpacked layers in a snapshotter, and a metadata
// database that ties them together and collects what nothing refers to.
//
// # What keeps what alive
//
// An image record (a name and a target digest) keeps its manifests,
// configurations and layers through labels on the blobs. An image without a
// name has a record whose name begins with DanglingPrefix. Unpacked layers are
// committed snapshots named by chain ID. The top snapshot of a chain carries a
// root label from the moment it is unpacked until neither an image nor a
// writable layer needs the chain (see Acquire); the label also keeps the
// manifest it came from, so that a container can be committed after its image
// was removed. Everything else is under a lease while it is being made, and
// collected in the background once it is not referred to.
package store
