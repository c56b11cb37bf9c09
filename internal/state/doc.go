// Package state is the engine's journaled key-value store: named buckets of
// keys and byte values. It owns two files in the data root and nothing else;
// what the values mean belongs to its callers.
//
// # How a write travels
//
// Every change is one record appended to `state.journal`, with a length and a
// checksum, by one write(2): it survives the death of the process at once. The
// Durable variants also wait for fdatasync; writers that wait at the same time
// share one. The changes live in an overlay in memory until a background fold
// moves them into `state.db` (bbolt), after which their journal is deleted:
//
//	put ─▶ state.journal + overlay ─(grown)─▶ state.journal.old + frozen overlay ─▶ state.db
//
// Reads look at the overlay, the frozen overlay, then the database.
//
// # After a crash
//
// Open replays `state.journal.old` and then `state.journal`; records hold whole
// values, so that replaying what was already folded changes nothing. A record
// that is incomplete or whose checksum fails ends the journal: the rest is cut
// off, and kept aside in `state.journal.cut` when it looks like more than a torn
// write. Both files begin with a format version; a newer one is refused and
// nothing is touched.
package state
