# `make test` says which tests it leaves out for want of a tool; with STRICT=1 (CI) a left-out test is a failure.
GO        ?= go
FUZZTIME  ?= 30s
PACKAGES := libiscsi-bin tgt qemu-utils qemu-block-extra iproute2 e2fsprogs mount util-linux gcc libc6-dev rpcbind nfs-common libnfs-utils mmdebstrap
TOOLS := iscsi-test-cu tgtd qemu-img qemu-io ip mkfs.ext4 mount fsfreeze gcc rpcinfo showmount nfs-cp mmdebstrap

.PHONY: build demo test test-long check race fuzz bites guest guest-failovers soak sim reservations bench bench-nfs scale deps

build:
	CGO_ENABLED=0 $(GO) build ./...
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/pmsapp ./cmd/pmsapp

# Three nodes on 127.0.0.1 to 127.0.0.3; the leader is killed while a LUN is written and files are copied into a share. ONCE=1, IMAGE=path and DATA=dir are pmsapp demo's.
demo: build
	@bin/pmsapp demo

deps:
	@.ci/deps "$(TOOLS)" "$(PACKAGES)"

check:
	@test -z "$$(gofmt -l .)" || { echo "gofmt these files:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=internal/tools/go.mod staticcheck ./...

# The system tests run one package at a time: they start daemons and choose ports.
test: deps build check
	@{ $(GO) test -timeout 10m -v ./internal/... ./replication/... ./target/... ./nfs/... ./cluster/... ./appliance/... ./cmd/...; \
	   $(GO) test -p 1 -timeout 15m -skip '^(TestBites|TestReplay|TestForever|TestRecord|TestGuest.*)$$' -v ./systemtest/...; } | .ci/left-out

# The simulation, and daemons whose power fails, against invariants broken on purpose: each break must be found.
bites:
	$(GO) test -timeout 30m -run '^TestBites$$' -v ./systemtest/sim ./systemtest/treesim ./systemtest/soak

race:
	$(GO) test -race -short -timeout 10m ./internal/... ./replication/... ./target/... ./nfs/... ./cluster/... ./appliance/...
	$(GO) test ./systemtest/soak -run '^TestSoak$$' -timeout 20m -v -races

test-long: deps race bites guest

# Linux guests as hosts of a cluster (root). Their image is made once, in the user's cache directory.
guest: deps
	@$(GO) test -timeout 30m -v ./systemtest/guest | .ci/left-out

# The same two kinds of host, over N leaders' deaths each.
guest-failovers: deps
	$(GO) test ./systemtest/guest -run '^TestGuest(Multipath|Share)$$' -timeout 0 -v -failovers $(N)

fuzz:
	@set -e; for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5x $$p; done; done

# Three daemons under load; each of N rounds kills, stops or hands over. KINDS=leader-killed,hand-over restricts them, SEED=n
# repeats their order, REPLICAS=3 is for a volume with three, MEMORY=1 for one of the durability memory, RAW=1 for pools on the disks
# themselves (kinds whose power fails), AWAY=2m is the longest absence, FOR=9m begins no round later, DIR=dir keeps the data.
N ?= 100
soak:
	$(GO) test ./systemtest/soak -run '^TestSoak$$' -timeout 0 -v -rounds $(N) $(if $(KINDS),-kinds $(KINDS)) $(if $(SEED),-seed $(SEED)) $(if $(REPLICAS),-replicas $(REPLICAS)) $(if $(MEMORY),-memory) $(if $(RAW),-raw) $(if $(AWAY),-away $(AWAY)) $(if $(FOR),-for $(FOR)) $(if $(DIR),-dir $(DIR))

# Hosts with reservations over N leaders killed under load.
reservations:
	$(GO) test ./systemtest/daemons -run '^TestReservations$$' -timeout 0 -v -failovers $(if $(filter command line environment,$(origin N)),$(N),50)

# Against Debian's tgtd, in turn; see docs/TESTING.md. Nothing else should run on the machine.
bench: deps build
	$(GO) run ./systemtest/bench

# A share beside Debian's nfs-ganesha, in turn.
bench-nfs: build
	@.ci/deps "ganesha.nfsd rpcbind" "nfs-ganesha nfs-ganesha-vfs rpcbind"
	$(GO) run ./systemtest/benchnfs

# The simulation with fresh seeds until one fails (told after each 1,000) or it is stopped.
sim:
	$(GO) test ./systemtest/sim -run '^TestForever$$' -timeout 0 -v -forever

# The memory of 1 TiB of sparse volumes, and what 1,000 volumes, or 1,000,000 files in a share, add to a take-over.
scale: build
	$(GO) run ./systemtest/scale
