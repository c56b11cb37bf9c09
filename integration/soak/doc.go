// Package soak makes, runs and removes containers by the thousand and looks
// whether anything of the engine grows with their number: memory, descriptors,
// threads, mounts, control groups, network namespaces, files.
//
// WHERRY_SOAK_CYCLES says how many (300 if unset, which is what CI runs), and
// WHERRY_SOAK_EVERY after how many a row of the table is printed.
package soak
