# Shadowcat Cluster. `make` alone lists the targets; each needs Go and what its
# line says. ARGS="..." reaches the program behind demo, integration and
# conformance.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BINARY  := bin/shadowcat-cluster
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git describe --always --abbrev=40 --exclude='*' --dirty 2>/dev/null)
ARGS    ?=

# Development tools have a go.mod of their own, so that their dependencies never
# become a user's. Go builds them on first use (a minute or two) and caches them.
TOOL       := go tool -modfile=tools/go.mod
TOOL_BENCH := go tool -modfile=../tools/go.mod

.PHONY: help
help: ## list the targets (the default)
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Under `set -m` the demo becomes the terminal's foreground job, so Ctrl-C goes to
# it alone. Otherwise make would be interrupted too and report an error after a
# demo that ended well. The exit keeps bash from replacing itself by the demo.
.PHONY: demo
demo: build ## three replicas, a front and an example server in one process; ARGS="--replicas 5"
	@if [ -t 0 ]; then set -m; ./$(BINARY) demo $(ARGS); exit; fi; \
	exec ./$(BINARY) demo $(ARGS)

.PHONY: build
build: ## compile bin/shadowcat-cluster
	@[ -e $(BINARY) ] || echo 'compiling $(BINARY), which takes a minute or two the first time'
	@CGO_ENABLED=0 go build -trimpath -ldflags '-X main.version=$(VERSION) -X main.commit=$(COMMIT)' -o $(BINARY) ./cmd/shadowcat-cluster

.PHONY: test
test: test-servers test-compiler test-npm ## run every test once; root on Debian gets redis-server, a C compiler and npm installed
	@scripts/test.sh test -timeout 10m ./...
	@TEST_MODULE=bench scripts/test.sh bench -timeout 5m ./...

# Not targets for people: what the tests need beside Go. Without it they skip, and
# say so; with CI=true that is a failure.
.PHONY: test-servers
test-servers:
	@scripts/install-debian.sh redis-server redis-server || { \
		if [ "$${CI:-}" = true ]; then exit 1; fi; \
		echo 'The tests that need a real Redis will be skipped.'; }

# It builds what moves the clock of a redis-server.
.PHONY: test-compiler
test-compiler:
	@scripts/install-debian.sh cc gcc libc6-dev || { \
		if [ "$${CI:-}" = true ]; then exit 1; fi; \
		echo 'The tests that move the clock of a real Redis will be skipped.'; }

# It installs the official TypeScript SDK, whose clients are among those of the chaos test.
.PHONY: test-npm
test-npm:
	@scripts/install-debian.sh npm npm || { \
		if [ "$${CI:-}" = true ]; then exit 1; fi; \
		echo 'Clients of the TypeScript SDK will be left out of the tests.'; }

# `make test` has run ./integration already, and it takes most of the time. Under
# the race detector it builds the replicas with it too, which is worth the wait
# after work on concurrency.
PACKAGES ?= $(shell go list ./... | grep -vE '/integration(/|$$)')

.PHONY: race
race: ## run the tests under the race detector; needs a C compiler; PACKAGES=./... adds ./integration
	@scripts/install-debian.sh gcc gcc libc6-dev
	@scripts/test.sh race -timeout 5m -race $(PACKAGES)

# What is excluded from one module's rules is not there in the other.
.PHONY: lint
lint: ## run golangci-lint, formatting included
	@$(TOOL) golangci-lint run ./...
	@cd bench && $(TOOL_BENCH) golangci-lint run ./... 2> >(grep -v exclusion_rules >&2)
	@cd tools/image && go tool -modfile=../go.mod golangci-lint run ./... 2> >(grep -v exclusion_rules >&2)
	@cd helm && $(TOOL_BENCH) golangci-lint run ./... 2> >(grep -v exclusion_rules >&2)

.PHONY: fmt
fmt: ## format all Go code and group its imports
	@$(TOOL) golangci-lint fmt ./...
	@cd bench && $(TOOL_BENCH) golangci-lint fmt ./...
	@cd helm && $(TOOL_BENCH) golangci-lint fmt ./...

.PHONY: generate
generate: ## write generated files anew
	@go generate ./...
	@cd helm && go generate ./...

.PHONY: verify
verify: ## fail when generated files, formatting or go.mod files are out of date
	@scripts/verify.sh

FUZZ_TIME ?= 5s

.PHONY: fuzz
fuzz: ## look for input that breaks a parser; FUZZ_TIME=1m for each, FUZZ=FuzzPeek for one
	@mkdir -p .cache
	@scripts/fuzz.sh '$(FUZZ_TIME)' '$(FUZZ)'

.PHONY: integration
integration: test-servers test-compiler test-npm ## run the integration tests alone, each by name; ARGS="-run TestKill"
	@TEST_FORMAT=testname scripts/test.sh integration -count=1 $(ARGS) ./integration/...

# The chart's tests are a module of their own, so that nothing of Kubernetes is among what the product needs.
.PHONY: helm
helm: ## test the chart: render every scenario, check each object; root on Debian gets promtool and redis-server installed
	@scripts/install-debian.sh promtool prometheus
	@scripts/install-debian.sh redis-server redis-server
	@cd helm && go vet ./... && go test ./...

.PHONY: chaos
chaos: test-servers test-npm ## kill replicas, upstreams and Redis under load for a minute, ten times; ARGS="-count=1"
	@SHADOWCAT_CHAOS_SECONDS=$${SHADOWCAT_CHAOS_SECONDS:-60} go test ./integration -run TestProxyChaos -parallel 1 -timeout 60m -v -count=10 $(ARGS) \
		| grep --line-buffered -v '^ *{"time"'

.PHONY: conformance
conformance: test-servers ## run the official MCP conformance suite, direct and through replicas; needs npm
	@scripts/install-debian.sh npm npm || [ "$${CI:-}" != true ]
	@go run ./integration/conformance $(ARGS)

# The benchmark is a module of its own, so that what it compares with never becomes a
# user's dependency. It starts the Redis it needs.
.PHONY: bench
bench: test-servers ## measure every goal in pairs, 10 minutes on a quiet machine; ARGS="-only proxy" for some
	@go run -C bench . -out $(CURDIR)/.cache/bench $(ARGS)

.PHONY: bench-quick
bench-quick: test-servers ## the same coarsely, with at most 100,000 sessions, in 1 to 3 minutes
	@go run -C bench . -quick -out $(CURDIR)/.cache/bench-quick $(ARGS)

.PHONY: bench-go
bench-go: test-servers ## run the Go benchmarks beside the code, with allocations; 3 minutes; ARGS="-short" for less
	@go test -run '^$$' -bench . -benchmem ./cluster ./mcp ./redisstore ./proxy/...
	@go test -C bench -run '^$$' -bench . -benchtime 3x -timeout 20m $(ARGS) ./rows

.PHONY: bench-docs
bench-docs: test-servers ## measure it all and write docs/benchmarks.md and docs/benchmarks/ anew; 25 minutes, on a quiet machine
	@go run -C bench . -out $(CURDIR)/docs/benchmarks -docs $(CURDIR)/docs/benchmarks.md || [ $$? = 1 ]
	@go run -C bench ./scaling -out $(CURDIR)/docs/benchmarks -docs $(CURDIR)/docs/benchmarks.md
	@go run -C bench ./soak -out $(CURDIR)/docs/benchmarks -docs $(CURDIR)/docs/benchmarks.md

.PHONY: bench-scaling
bench-scaling: test-servers ## measure 1 to 8 replicas, 1k to 1M sessions, and a Redis Cluster; 3 minutes; ARGS="-sessions 100000" for less
	@go run -C bench ./scaling -out $(CURDIR)/.cache/bench-scaling $(ARGS)

.PHONY: soak
soak: test-servers ## serve mixed load for ten minutes and see that nothing grows; ARGS="-for 30s" for less
	@go run -C bench ./soak -out $(CURDIR)/.cache/soak $(ARGS)

.PHONY: bench-streams
bench-streams: test-servers ## measure what idle streams cost a replica and Redis; 2 minutes; ARGS="-streams 1000" for less
	@go run -C bench ./streams $(ARGS)

# The packer has a go.mod of its own, like the tools. SOURCE_DATE_EPOCH is the time of what is in the image: the commit's.
IMAGE_EPOCH := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

.PHONY: image
image: ## write the OCI image for amd64 and arm64 to bin/image/image.tar; needs no container engine
	@go -C tools/image build -o $(CURDIR)/bin/pack-image .
	@SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$(IMAGE_EPOCH)} bin/pack-image -version '$(VERSION)' -commit '$(COMMIT)'

.PHONY: image-test
image-test: ## unpack the image, run it as its user, compare it with the Dockerfile's; needs root and Debian's buildah
	@scripts/install-debian.sh buildah buildah || [ "$${CI:-}" != true ]
	@TEST_MODULE=tools/image scripts/test.sh image -timeout 10m -count=1 ./...

.PHONY: kubernetes
kubernetes: ## install the chart into a real Kubernetes and break things there; root, Debian, 5 minutes, the first time 20; ARGS="-run drain"
	@scripts/install-debian.sh containerd containerd runc containernetworking-plugins
	@scripts/install-debian.sh nft nftables
	@scripts/install-debian.sh ip iproute2
	@scripts/install-debian.sh tini tini
	@scripts/install-debian.sh redis-server redis-server
	@go run ./integration/kubernetes $(ARGS)

.PHONY: clean
clean: ## remove what make wrote here; Go's own caches stay
	@rm -rf bin .cache
