// Package validation pins the modules that the validation programs of
// opencontainers/runtime-tools are built from. The test one directory up builds
// and runs them.
package validation

import _ "github.com/opencontainers/runtime-tools/validation/util" // what all programs link
