// Package crash kills the daemon and its supervisor at random moments under
// load, and then looks for what was lost and what was left behind.
package crash
