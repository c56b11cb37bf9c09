# `make up` and `make test` are all a newcomer needs; `make help` lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

MODULE  := github.com/wherry-engine/wherry
GO      ?= go
BIN     := $(CURDIR)/bin

# One set of flags for everything: another set would compile everything again.
export CGO_ENABLED := 0
export GOFLAGS     := -trimpath -buildvcs=false

RELEASE := 0.1.0
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
STAMP   := $(shell TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null)
VERSION ?= $(RELEASE)-dev
LDFLAGS := -s -w -X $(MODULE)/internal/version.Version=$(VERSION) -X $(MODULE)/internal/version.Commit=$(COMMIT) -X $(MODULE)/internal/version.BuildTime=$(STAMP)

# Programs that live for a millisecond start 5 % faster with the garbage collector before Go 1.26's, which touches fewer
# pages. A toolchain that does not know the setting builds them without it.
BRIEF_GC   := $(shell GOEXPERIMENT=nogreenteagc $(GO) env GOROOT >/dev/null 2>&1 && echo nogreenteagc)

# Where there is one, programs that live for a millisecond begin at an entry of their own, see internal/entry.
ENTRY := $(if $(wildcard internal/entry/entry_$(shell $(GO) env GOARCH).s),-E $(MODULE)/internal/entry.start)

export WHERRY_BIN := $(BIN)

##@ For users

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' Makefile

up: static ## build, start a daemon of this checkout, run the hello image
	@packaging/up.sh up

down: ## stop that daemon and remove every trace of it
	@packaging/up.sh down

registry: static ## make real images and serve them from a registry on loopback (for the tour)
	@packaging/prepare.sh fixtures
	@$(BIN)/make-images serve

install: static ## install into PREFIX (default /usr/local) below DESTDIR; DOCKER=1 adds the docker name
	@packaging/install.sh install

uninstall: ## remove what install put there (containers and images stay)
	@packaging/install.sh uninstall

deb: static ## build Debian packages into dist/
	@VERSION=$(VERSION) packaging/deb.sh

##@ For developers

build: static ## the same as static

static: hello-image ## build the static binaries into bin/
	@mkdir -p $(BIN)
	$(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/wherryd ./fixtures/make-images
	GOEXPERIMENT=$(BRIEF_GC) $(GO) build -ldflags '$(LDFLAGS) $(ENTRY)' -o $(BIN)/ ./cmd/wherry
	GOEXPERIMENT=$(BRIEF_GC) $(GO) build -ldflags '$(LDFLAGS) $(ENTRY)' -o $(BIN)/ ./cmd/wherry-runtime

hello-image: ## build the image that the daemon embeds
	@mkdir -p $(BIN)
	@$(GO) build -ldflags '-s -w' -o $(BIN)/hello ./hello/program
	@$(GO) run ./hello/mkimage -program $(BIN)/hello -o hello/image/hello.tar

test: prepare static unit integration test-v2 ## everything: unit tests, then the built binaries against real images

prepare: ## install what the tests need (Debian, root), or say what is missing
	@packaging/prepare.sh tests

unit: hello-image ## unit tests; those that need root say so and skip without it
	$(GO) test -timeout 10m $$($(GO) list ./... github.com/opencontainers/go-digest | grep -v '/integration')

integration: static ## drive the built binaries with wherry and the stock docker CLI
	$(GO) test -p 1 -timeout 20m -count=1 ./integration/...

test-v2: prepare static ## the same on a kernel with cgroup v2 alone, in a virtual machine (packaging/vm)
	@packaging/vm/tests.sh

test-selinux: prepare static ## labels, in a virtual machine whose kernel confines by SELinux
	@packaging/vm/tests.sh packaging/vm/selinux.sh

conformance: prepare static ## the OCI validation programs, with wherry-runtime and with runc
	$(GO) test -timeout 10m -count=1 -v ./integration/conformance

crash: static ## kill daemon and supervisor fifty times under load, then look for leaks
	WHERRY_CRASH_ROUNDS=50 $(GO) test -timeout 30m -count=1 -v ./integration/crash

soak: static ## make, run and remove CYCLES containers (default 50000): does anything grow?
	WHERRY_SOAK_CYCLES=$(or $(CYCLES),50000) $(GO) test -timeout 12h -count=1 -v ./integration/soak

# Without the package whose test program runs inside of containers, and has to be static.
race: ## unit tests under the race detector (needs a C compiler, compiles everything once more)
	CGO_ENABLED=1 $(GO) test -race -timeout 20m $$($(GO) list ./... | grep -v -e '/integration' -e '/ocirun$$')

fuzz: ## run every fuzz target for FUZZTIME (default 20s)
	@packaging/fuzz.sh

bench: prepare static ## measure side by side with Debian's dockerd
	@bench/run.sh

lint: ## golangci-lint and shellcheck, where installed
	@packaging/check.sh lint

vuln: ## known vulnerabilities in what we link (needs govulncheck)
	@packaging/check.sh vuln

check: ## exactly what CI requires of the source
	@packaging/check.sh

release: ## reproducible tarballs and packages in dist/, with checksums
	@$(MAKE) --no-print-directory VERSION=$(RELEASE) static deb
	@VERSION=$(RELEASE) packaging/release.sh

clean: ## remove what was built
	rm -rf $(BIN) dist hello/image/hello.tar

.PHONY: help up down registry install uninstall deb build static hello-image test prepare unit integration test-v2 test-selinux conformance crash soak race fuzz bench lint vuln check release clean
