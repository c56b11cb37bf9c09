// Package upgrade replaces daemon and runtime by a newer build while
// containers write logs and users sit at their terminals. Nobody may notice.
package upgrade
