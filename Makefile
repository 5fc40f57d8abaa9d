# The menu. Everything runs as root on one Linux machine; nothing outside its own namespaces, target/ and ~/.cache/bobbin is touched.
.DEFAULT_GOAL := help
.PHONY: help prepare programs artifacts product image release docs demo chaos test bench lint lint-tools

# Built by `make lint` when they are missing, about six minutes on two cores.
CARGO_TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/bobbin/cargo-tools
CARGO_DENY := $(CARGO_TOOLS)/cargo-deny@0.20.2
CARGO_MACHETE := $(CARGO_TOOLS)/cargo-machete@0.9.2
MDBOOK := $(CARGO_TOOLS)/mdbook@0.4.52
# Builds all programs with the features that the tests need too. With `cargo run --package`, cargo would build most
# dependencies again for each program, with other features.
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
BUILD := cargo build --quiet --locked --workspace --bins --examples --target-dir $(TARGET_DIR)
BUILT := $(TARGET_DIR)/debug

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1	/' | expand -t 20

prepare: ## check for the Debian packages that the test cluster needs, and install what is missing
	@e2e/prepare

programs: ## build the programs of the test cluster (Kubernetes, etcd, containerd, Helm, krew, CoreDNS, Prometheus) once, into ~/.cache/bobbin
	@cargo xtask programs >/dev/null

artifacts: ## build Bobbin's two executables, and print their paths
	@cargo xtask artifacts

product: artifacts

image: ## pack Bobbin's image into target/bobbin-image.tar (a docker-archive, to be pushed to your registry)
	@cargo xtask image target/bobbin-image.tar

release: ## build what a release publishes, for amd64 and arm64, in target/release-artifacts
	@rustup target add x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu
	@cargo xtask release

docs: $(MDBOOK) ## build the book of docs/ into target/book
	@$(MDBOOK) build docs

demo: prepare ## a cluster of three nodes with Bobbin on it, and every path between its pods (KEEP=1 leaves it)
	@cargo run --quiet --locked --package bobbin-e2e --bin demo

chaos: prepare ## random faults on a cluster of three nodes for MINUTES=10; SEED= repeats a plan
	@cargo run --quiet --locked --package bobbin-e2e --bin chaos

test: prepare ## all tests, or those whose name contains T (make test T=spoofed)
	@$(BUILD)
	@$(BUILT)/xtask test $(if $(T),"$(T)")

bench: prepare ## ADD and DEL against the reference plugins, or against the executables in BEFORE=<directory> (ONLY=stolen-token: one part)
	@cargo run --quiet --locked --release --package bobbin-e2e --bin bench $(if $(BEFORE),-- --before $(BEFORE))$(if $(ONLY),-- --only $(ONLY))

lint: $(CARGO_DENY) $(CARGO_MACHETE) ## what a change must pass beside the tests: format, lints, dependency rules, language
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(BUILD)
	$(BUILT)/crdgen --check
	$(BUILT)/xtask chart-readme --check
	$(BUILT)/xtask messages --check
	$(BUILT)/examples/metricsgen --check
	$(BUILT)/xtask flags --check
	$(CARGO_DENY) --locked check bans licenses sources
	$(CARGO_MACHETE)
	$(BUILT)/xtask lint-language
	$(BUILT)/xtask lint-architecture

lint-tools: $(CARGO_DENY) $(CARGO_MACHETE)

$(CARGO_TOOLS)/cargo-%:
	@echo "lint: building cargo-$(firstword $(subst @, ,$*)) (once; kept in $(CARGO_TOOLS))" >&2
	@cargo install --quiet --locked --force --no-default-features --root $(CARGO_TOOLS)/build cargo-$*
	@mv $(CARGO_TOOLS)/build/bin/cargo-$(firstword $(subst @, ,$*)) $@

$(MDBOOK):
	@echo "docs: building mdbook (once; kept in $(CARGO_TOOLS))" >&2
	@cargo install --quiet --locked --force --version $(lastword $(subst @, ,$@)) --no-default-features --features search --root $(CARGO_TOOLS)/build mdbook
	@mv $(CARGO_TOOLS)/build/bin/mdbook $@
