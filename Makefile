# netsysrq: build, test, demonstrate and measure. `make help` lists the targets.

SHELL := /bin/bash
BIN   := bin
export CGO_ENABLED := 0
GOFLAGS_BUILD := -trimpath -buildvcs=false
FUZZTIME  ?= 30s
REFERENCE ?= ../shared/bench

.PHONY: help build deb deps demo demo-netns test check unit race integration model vmtest installtest clustertest debugtest vectors bench fuzz clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

build: ## build bin/netsysrq and bin/netsysrqd, static
	go build $(GOFLAGS_BUILD) -o $(BIN)/netsysrq ./cmd/sender
	go build $(GOFLAGS_BUILD) -o $(BIN)/netsysrqd ./cmd/responder

deb: ## build the Debian packages into dist/ (VERSION=1.2.3 for another version)
	@.ci/deps deb
	@VERSION=$(VERSION) deploy/build-deb dist

deps: ## install the Debian packages that the other targets need
	@.ci/deps

demo: build ## hang a virtual machine and bring it back with one packet
	@.ci/deps vm
	go run ./internal/demo/vm $(BIN) kmod-fallback

demo-netns: deps build ## show daemon and command in two network namespaces (root)
	go run ./internal/demo/netns $(BIN)

test: deps ## run every test but those of installed hosts (root, 30 minutes)
	@.ci/test

check: ## formatting, vet, static analysis, generated files, shell scripts
	@.ci/test check

unit: ## tests that need neither root nor a network
	@.ci/test unit

race: ## the same under the race detector
	@.ci/test race

integration: deps ## tests in network namespaces (root)
	@.ci/test integration

model: deps ## check the model of the ledger and that it notices each rule's removal
	@.ci/test model

vmtest: ## tests on a real kernel in QEMU: KERNEL=6.1 (default), 5.10, 6.12 or 7.2
	@.ci/test vm

installtest: ## the packages on Debian 12 and 13 in QEMU (root, 25 minutes; INSTALL=all for longer)
	@.ci/test install

clustertest: ## a Pacemaker cluster and the Ansible role, with hosts in QEMU (root, 20 minutes)
	@.ci/test cluster

debugtest: ## the kernel module under KASAN, UBSAN, lockdep and kmemleak (root, builds a kernel)
	@.ci/test debug

vectors: ## write auth/testdata/vectors anew
	go run ./auth/testdata/gen

bench: deps ## measure against the reference programs in REFERENCE (root)
	go run ./internal/bench -reference $(REFERENCE) $(BENCHFLAGS)
	go test -run '^$$' -bench TenThousand -benchtime 1x -v ./cmd/sender

fuzz: ## run every fuzz target for FUZZTIME (default 30s)
	@.ci/fuzz $(FUZZTIME)

clean: ## remove what was built
	rm -rf $(BIN) dist
