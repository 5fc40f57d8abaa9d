//! A builder for the pools of tests, and a function that drains a pool before the pool is deleted.

use anyhow::Result;
use bobbin_crds::AddressPool;
use bobbin_crds::pool::{AddressPoolSpec, Subnet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::cluster::Cluster;

/// A builder for an AddressPool. [`Pool::build`] returns the object.
#[derive(Clone, Debug)]
pub struct Pool {
    name: String,
    spec: AddressPoolSpec,
}

impl Pool {
    /// Creates a pool without subnets. The pool has blocks of 16 addresses and, because tests are short, a cool-down of one
    /// second.
    pub fn named(name: &str) -> Self {
        let spec = AddressPoolSpec { block_size_bits: 4, cooldown_seconds: 1, ..AddressPoolSpec::default() };
        Self { name: name.to_owned(), spec }
    }

    /// Adds a subnet with IPv4 and IPv6 ranges.
    #[must_use]
    pub fn subnet(mut self, ipv4: &str, ipv6: &str) -> Self {
        self.spec.subnets.push(Subnet { ipv4: Some(ipv4.to_owned()), ipv6: Some(ipv6.to_owned()) });
        self
    }

    /// Sets the size of the pool's blocks to 2^bits addresses.
    #[must_use]
    pub fn bits(mut self, bits: i64) -> Self {
        self.spec.block_size_bits = bits;
        self
    }

    /// Sets how long the pool's freed addresses cool down.
    #[must_use]
    pub fn cooldown(mut self, seconds: i64) -> Self {
        self.spec.cooldown_seconds = seconds;
        self
    }

    /// Lets only the pods of one namespace use the pool.
    #[must_use]
    pub fn for_namespace(mut self, namespace: &str) -> Self {
        self.spec.namespace_selector = Some(label("kubernetes.io/metadata.name", namespace));
        self
    }

    /// Lets only one node use the pool.
    #[must_use]
    pub fn for_node(mut self, node: &str) -> Self {
        self.spec.node_selector = Some(label("kubernetes.io/hostname", node));
        self
    }

    /// Sets the pool to draining.
    #[must_use]
    pub fn draining(mut self) -> Self {
        self.spec.draining = true;
        self
    }

    /// Returns the AddressPool object.
    pub fn build(self) -> AddressPool {
        AddressPool::new(&self.name, self.spec)
    }
}

impl Cluster {
    /// Sets a pool to draining, because a pool in use can be deleted only while it is draining. Also succeeds if the
    /// pool does not exist.
    pub async fn drain_pool(&self, name: &str) -> Result<()> {
        let draining = Patch::Merge(json!({"spec": {"draining": true}}));
        match Api::<AddressPool>::all(self.client()).patch(name, &PatchParams::default(), &draining).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            answer => Ok(answer.map(drop)?),
        }
    }
}

fn label(key: &str, value: &str) -> LabelSelector {
    LabelSelector { match_labels: Some([(key.to_owned(), value.to_owned())].into()), ..LabelSelector::default() }
}
