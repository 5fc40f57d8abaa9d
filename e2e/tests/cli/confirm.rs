//! `nodes confirm-deletion`.

use anyhow::Result;
use bobbin_e2e::single_node::SingleNode;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;

use crate::{expect, kubectl_bobbin};

pub async fn distinguishes(node: &mut SingleNode) -> Result<()> {
    let confirm = |flags: &[&str]| kubectl_bobbin(node, &[&["nodes", "confirm-deletion"], flags].concat());
    expect(&confirm(&["--yes", "--bobbin-namespace", "nowhere"])?, 1, "Namespace nowhere does not exist")?;
    expect(&confirm(&["--yes"])?, 3, "the operator has not written ConfigMap bobbin-system/bobbin-deleted-nodes yet")?;
    let maps: Api<ConfigMap> = Api::namespaced(node.client.clone(), "default");
    let map = |entry: serde_json::Value| {
        serde_json::from_value::<ConfigMap>(
            json!({"metadata": {"name": "bobbin-deleted-nodes"}, "data": {"gone": entry.to_string()}}),
        )
    };
    // Use the namespace `default`. The operator does not write there, so the ConfigMap stays as the test writes it.
    let (made, other) = (PostParams::default(), ["--bobbin-namespace", "default"]);
    maps.create(&made, &map(json!({"state": "Done", "deletedAt": "2026-01-01T00:00:00Z"}))?).await?;
    expect(&confirm(&other)?, 0, "nothing to confirm")?;
    maps.replace("bobbin-deleted-nodes", &made, &map(json!({"state": "Held", "deletedAt": "2026-01-01T00:00:00Z"}))?)
        .await?;
    // The command can't ask for a confirmation, because its stdin is not a terminal in this test.
    expect(&confirm(&other)?, 3, "nothing is confirmed, because the input is not a terminal")?;
    expect(
        &confirm(&["--yes", "--bobbin-namespace", "default"])?,
        0,
        "the operator releases the addresses of one tenth of these nodes",
    )?;
    maps.delete("bobbin-deleted-nodes", &DeleteParams::default()).await?;
    Ok(())
}
