//! Tests watches after a restore to an older snapshot. The watches have already shown a resourceVersion that is higher
//! than every resourceVersion of the restored API server.

use std::time::Instant;

use anyhow::Result;
use bobbin_e2e::bare_nodes::BareNodes;
use bobbin_e2e::control_plane::Revision;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::fixture::{Pods, await_outage, make_pool, restore};

/// The number of writes after the snapshot. The restored API server itself makes fewer writes when it starts, so its
/// resourceVersions stay lower than those before the restore.
const WRITES_AFTER_SNAPSHOT: usize = 3000;

pub async fn see_new_objects(nodes: &mut BareNodes) -> Result<()> {
    make_pool(nodes).await?;
    let snapshot = nodes.control_plane.save_snapshot()?;
    raise_revision(nodes).await?;
    // Let the watches of all kinds see a resourceVersion that the restored API server has not reached.
    let mut pods = Pods::default();
    for node in 1..=3 {
        pods.add(nodes, node, 1)?;
    }
    let spec = json!({"subnets": [{"ipv4": "10.91.0.0/27"}], "blockSizeBits": 2});
    nodes.apply_pool("seen", &spec, 1).await?;
    let stopped = Instant::now();
    nodes.control_plane.stop();
    await_outage(stopped).await?;
    restore(nodes, &snapshot, Revision::OfSnapshot).await?;
    let spec = json!({"subnets": [{"ipv4": "10.92.0.0/27"}], "blockSizeBits": 2});
    nodes.apply_pool("new", &spec, 1).await?;
    pods.end(nodes).await
}

async fn raise_revision(nodes: &BareNodes) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(nodes.client.clone(), "default");
    let map = serde_json::from_value(json!({"metadata": {"name": "revision"}}))?;
    maps.create(&PostParams::default(), &map).await?;
    for number in 0..WRITES_AFTER_SNAPSHOT {
        let data = Patch::Merge(json!({"data": {"number": number.to_string()}}));
        maps.patch("revision", &PatchParams::default(), &data).await?;
    }
    Ok(())
}
