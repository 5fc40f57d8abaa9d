# The menu. Everything runs as root on one Linux machine; nothing outside its own namespaces, target/ and ~/.cache/bobbin is touched.
.DEFAULT_GOAL := help
.PHONY: help prepare programs product image demo test bench lint

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1	/' | expand -t 20

prepare: ## check for the Debian packages that the test cluster needs, and install what is missing
	@e2e/prepare

programs: ## build the programs of the test cluster (Kubernetes, etcd, containerd, Helm) once, into ~/.cache/bobbin
	@e2e/programs/build >/dev/null

product: ## build what goes into Bobbin's image
	@cargo run --quiet --locked --package bobbin-e2e --bin artifacts

image: ## pack Bobbin's image into target/bobbin-image.tar (a docker-archive, to be pushed to your registry)
	@cargo run --quiet --locked --package bobbin-e2e --bin artifacts -- target/bobbin-image.tar

demo: prepare ## a cluster of three nodes with Bobbin on it, and every path between its pods (KEEP=1 leaves it)
	@cargo run --quiet --locked --package bobbin-e2e --bin demo

test: prepare ## all tests, or those whose name contains T (make test T=spoofed)
	@e2e/run-tests $(T)

bench: prepare ## ADD and DEL against the reference plugins, in one run
	@cargo run --quiet --locked --release --package bobbin-e2e --bin bench

lint: ## what a change must pass beside the tests: format, lints, dependency rules
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo run --quiet --locked --package bobbin-crds --bin crdgen -- --check
	if command -v cargo-deny >/dev/null; then cargo deny check; fi
