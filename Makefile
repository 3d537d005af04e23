# Copyright The Deucalion Authors
# SPDX-License-Identifier: Apache-2.0

# "make help" lists what there is.

GO      ?= go
GOFLAGS += -buildvcs=false
export GOFLAGS

# What "deucalion --version" tells. A build without git metadata is as good, it only knows less.
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
BRANCH   ?= $(shell git rev-parse --abbrev-ref HEAD 2>/dev/null || echo unknown)
DATE     ?= $(shell date -u +%Y%m%d-%H:%M:%S)
INFO     := github.com/prometheus/common/version
LDFLAGS  := -s -w -X $(INFO).Version=$(VERSION) -X $(INFO).Revision=$(REVISION) -X $(INFO).Branch=$(BRANCH) \
            -X $(INFO).BuildUser=$(shell id -un)@$(shell uname -n) -X $(INFO).BuildDate=$(DATE)

# Packages whose tests need no processes of their own; those below test/ do, and take turns on the machine,
# for they measure times.
UNIT := $(GO) list ./... | grep -v /deucalion/test/
# The property tests make thousands of small files. Their disk need not survive anything.
UNITTMP := $(shell [ -w /dev/shm ] && echo /dev/shm || echo /tmp)

DEUCALION_KILL_LOOPS     ?= 100
DEUCALION_ALERTS_SECONDS ?= 300
DEUCALION_TWIN_RUNS      ?= 100
DEUCALION_TWIN_ENTRIES   ?= 200
DEUCALION_CRASH_ROUNDS   ?= 100
DEUCALION_PARTITION_TIME ?= 30m
DEUCALION_FAULT_SECONDS  ?= 1800
DEUCALION_SIDEBYSIDE_TIME ?= 10m
FUZZTIME                 ?= 10s
BENCH_FLAGS              ?=

.DEFAULT_GOAL := help
.PHONY: help build run cluster test race fuzz lint bench bench-restart bench-catchup e2e faults faults-compose faults-peers kill crash alerts partitions plants sidebyside twin image image-root compose-test upgrade chart root-test clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## /{printf "%-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

build: ## bin/deucalion and bin/deucalion-bench, static
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

# What the image holds: bin/image/root is root's, bin/image/owned the user's.
image-root: ## bin/image, the files of the container image
	rm -rf bin/image
	mkdir -p bin/image/owned/data bin/image/root/bin bin/image/root/etc/prometheus bin/image/root/etc/ssl/certs
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/image/root/bin/ ./cmd/deucalion
	cp deploy/docker/prometheus.yml bin/image/root/etc/prometheus/
	cp /etc/ssl/certs/ca-certificates.crt bin/image/root/etc/ssl/certs/

image: $(if $(filter prebuilt,$(TARGET)),image-root) ## container image deucalion:VERSION; TARGET=prebuilt compiles outside and needs no registry
	docker build --file deploy/docker/Dockerfile --target $(or $(TARGET),release) --tag deucalion:$(VERSION) \
	  --build-arg VERSION='$(VERSION)' --build-arg REVISION='$(REVISION)' --build-arg BRANCH='$(BRANCH)' \
	  --build-arg CREATED="$$(date -u +%Y-%m-%dT%H:%M:%SZ)" .

run: build ## one node on :9090, data in data/
	bin/deucalion --storage.tsdb.path=data

cluster: build ## three nodes on loopback, HTTP 9090 9092 9094, data and logs in .cluster/; Ctrl-C stops them
	test/scripts/cluster.sh bin/deucalion .cluster

test: ## all tests, with a short kill loop
	TMPDIR=$(UNITTMP) $(GO) test -timeout 25m $$($(UNIT))
	$(GO) test -timeout 25m -p 1 -count 1 ./test/... # what they test is a program, which go test's cache does not know

root-test: ## the tests that "make test" skips for all but root, as root
	GO=$(GO) test/scripts/root.sh

race: ## the tests of the packages under the race detector, shortened
	TMPDIR=$(UNITTMP) $(GO) test -race -short -tags remove_all_sd -timeout 35m $$($(UNIT))

fuzz: ## every fuzz test for FUZZTIME (10s)
	TMPDIR=$(UNITTMP) test/scripts/fuzz.sh $(FUZZTIME)

# stdmethods wants every Seek to be that of io.Seeker; Prometheus's chunkenc.Iterator, which we implement, has another.
lint: ## go vet, staticcheck, gofumpt
	$(GO) vet -stdmethods=false -tags e2e ./...
	$(GO) vet -stdmethods=false -tags faults,plants ./...
	$(GO) tool staticcheck -tags e2e ./...
	@out=$$($(GO) tool gofumpt -l -d .); if [ -n "$$out" ]; then printf '%s\n' "$$out"; exit 1; fi

bench: build ## load on three nodes and on a stock Prometheus, in turns; BENCH_FLAGS adds flags
	bin/deucalion-bench compare $(BENCH_FLAGS)

bench-restart: build ## time to ready after kill -9 and after a graceful stop; BENCH_FLAGS adds flags
	bin/deucalion-bench restart $(BENCH_FLAGS)

bench-catchup: build ## bytes and time for a node that missed an hour and for a wiped one, 2 GiB each; BENCH_FLAGS adds flags
	bin/deucalion-bench catchup $(BENCH_FLAGS)

e2e: ## the main job against Debian's Prometheus, which is installed when it is missing
	test/scripts/debian-prometheus.sh
	$(GO) test -tags e2e -timeout 20m -count 1 -v ./test/e2e

faults: ## the fault suite on nodes in network namespaces for DEUCALION_FAULT_SECONDS (1800), as root; DEUCALION_FAULT_SEED, _ONLY and _REPORT, see test/fault
	test/scripts/debian-haproxy.sh
	test/scripts/debian-netns.sh
	DEUCALION_FAULT_REQUIRED=1 DEUCALION_FAULT_SECONDS=$(DEUCALION_FAULT_SECONDS) $(GO) test -timeout 0 -count 1 -v -run '^TestNamespaces$$' ./test/fault

faults-compose: ## the fault suite on deploy/compose in containers, for as long; needs what compose-test needs
	test/scripts/debian-haproxy.sh
	test/scripts/debian-prometheus.sh
	test/scripts/debian-netns.sh
	test/scripts/with-docker.sh env DEUCALION_COMPOSE=1 DEUCALION_FAULT_SECONDS=$(DEUCALION_FAULT_SECONDS) $(GO) test -timeout 0 -count 1 -v -run '^TestComposeFaults$$' ./test/fault

faults-peers: ## what the same workload meets on a stock Prometheus, a pair of them and VictoriaMetrics, for as long each
	test/scripts/debian-haproxy.sh
	test/scripts/debian-prometheus.sh
	test/scripts/debian-victoria-metrics.sh
	test/scripts/debian-netns.sh
	DEUCALION_FAULT_PEERS=1 DEUCALION_FAULT_SECONDS=$(DEUCALION_FAULT_SECONDS) $(GO) test -timeout 0 -count 1 -v -run '^TestPeersUnderFaults$$' ./test/fault

kill: ## the kill -9 loop, DEUCALION_KILL_LOOPS (100) faults; DEUCALION_RACE=1 for nodes with the race detector
	DEUCALION_KILL_LOOPS=$(DEUCALION_KILL_LOOPS) $(GO) test -timeout 120m -count 1 -v -run '^TestKill$$' ./test/kill

crash: ## nodes die at every crash point in turn, DEUCALION_CRASH_ROUNDS (100) times; DEUCALION_RACE=1 as above
	DEUCALION_CRASH_ROUNDS=$(DEUCALION_CRASH_ROUNDS) $(GO) test -timeout 120m -count 1 -v -run '^TestCrashPoints$$' ./test/crash

sidebyside: ## a cluster and a stock Prometheus of the same release on one configuration, for DEUCALION_SIDEBYSIDE_TIME (10m)
	DEUCALION_SIDEBYSIDE_TIME=$(DEUCALION_SIDEBYSIDE_TIME) $(GO) test -timeout 60m -count 1 -v ./test/sidebyside

alerts: ## leaders killed every 20 s while a real Alertmanager counts, for DEUCALION_ALERTS_SECONDS (300)
	test/scripts/debian-prometheus.sh
	DEUCALION_ALERTS_SECONDS=$(DEUCALION_ALERTS_SECONDS) $(GO) test -timeout 60m -count 1 -v ./test/alerts

partitions: ## three nodes under load while their network is cut in every way, for DEUCALION_PARTITION_TIME (30m)
	TMPDIR=$(UNITTMP) DEUCALION_PARTITION_TIME=$(DEUCALION_PARTITION_TIME) $(GO) test -timeout 300m -count 1 -v -run '^TestPartitions$$' ./cluster

compose-test: ## deploy/compose in containers, Grafana apart; installs and starts Debian's Docker Engine if none runs, for which it must be root
	test/scripts/debian-haproxy.sh
	test/scripts/debian-prometheus.sh
	test/scripts/debian-netns.sh
	test/scripts/with-docker.sh env DEUCALION_COMPOSE=1 $(GO) test -timeout 20m -count 1 -v ./test/compose
	test/scripts/with-docker.sh env DEUCALION_COMPOSE=1 $(GO) test -timeout 20m -count 1 -v -run Compose ./test/fault
	test/scripts/with-docker.sh env DEUCALION_COMPOSE=1 $(GO) test -timeout 20m -count 1 -v -run '^TestComposeGuide$$' ./test/deploy

upgrade: ## a cluster of the commit PREVIOUS is upgraded to this tree under load, node by node
	test/scripts/upgrade.sh $(or $(PREVIOUS),$(error PREVIOUS names a commit))

chart: ## the Helm chart against the manifests of deploy/kubernetes
	cd test/helm && $(GO) vet ./... && $(GO) test -count 1 ./...

plants: ## switches on planted defects one by one and shows the suite that finds each
	test/scripts/plants.sh

twin: ## the twin test of the state machine, DEUCALION_TWIN_RUNS (100) random logs
	TMPDIR=$(UNITTMP) DEUCALION_TWIN_RUNS=$(DEUCALION_TWIN_RUNS) DEUCALION_TWIN_ENTRIES=$(DEUCALION_TWIN_ENTRIES) $(GO) test -timeout 120m -count 1 -v -run Twin ./fsm/...

clean: ## remove what was built and the data of "make cluster" and "make run"
	rm -rf bin data .cluster
