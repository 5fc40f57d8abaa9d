//! Pools as tests write them, one word after another.

use bobbin_crds::AddressPool;
use bobbin_crds::pool::{AddressPoolSpec, Subnet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// A pool that is to be. [`Pool::build`] gives the object.
#[derive(Clone, Debug)]
pub struct Pool {
    name: String,
    spec: AddressPoolSpec,
}

impl Pool {
    /// A pool without subnets yet: blocks of 16, and a rest of one second, for tests are short.
    pub fn named(name: &str) -> Self {
        let spec = AddressPoolSpec { block_size_bits: 4, cooldown_seconds: 1, ..AddressPoolSpec::default() };
        Self { name: name.to_owned(), spec }
    }

    /// With a subnet of both families.
    #[must_use]
    pub fn subnet(mut self, ipv4: &str, ipv6: &str) -> Self {
        self.spec.subnets.push(Subnet { ipv4: Some(ipv4.to_owned()), ipv6: Some(ipv6.to_owned()) });
        self
    }

    /// With blocks of 2^bits addresses.
    #[must_use]
    pub fn bits(mut self, bits: i64) -> Self {
        self.spec.block_size_bits = bits;
        self
    }

    /// With another rest for freed addresses.
    #[must_use]
    pub fn cooldown(mut self, seconds: i64) -> Self {
        self.spec.cooldown_seconds = seconds;
        self
    }

    /// For one namespace only.
    #[must_use]
    pub fn for_namespace(mut self, namespace: &str) -> Self {
        self.spec.namespace_selector = Some(label("kubernetes.io/metadata.name", namespace));
        self
    }

    /// For one node only.
    #[must_use]
    pub fn for_node(mut self, node: &str) -> Self {
        self.spec.node_selector = Some(label("kubernetes.io/hostname", node));
        self
    }

    /// Draining.
    #[must_use]
    pub fn draining(mut self) -> Self {
        self.spec.draining = true;
        self
    }

    /// The object.
    pub fn build(self) -> AddressPool {
        AddressPool::new(&self.name, self.spec)
    }
}

fn label(key: &str, value: &str) -> LabelSelector {
    LabelSelector { match_labels: Some([(key.to_owned(), value.to_owned())].into()), ..LabelSelector::default() }
}
