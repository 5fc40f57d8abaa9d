//! Tests faults of watches.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_e2e::api_proxy::Fault;
use bobbin_e2e::single_node::{SingleNode, WAIT_TIMEOUT};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams, WatchEvent, WatchParams};

use super::clients::{config_map, direct, requests, through_proxy, was_created};

type Events = BoxStream<'static, kube::Result<WatchEvent<ConfigMap>>>;

async fn watch(api: &Api<ConfigMap>) -> Result<Events> {
    // Disable bookmarks. A bookmark that the API server sent before a fault could arrive during the fault, although the
    // watch must then be silent.
    Ok(api.watch(&WatchParams::default().disable_bookmarks(), "0").await?.boxed())
}

async fn create(node: &SingleNode, name: &str) -> Result<()> {
    direct(node).create(&PostParams::default(), &config_map(name)).await?;
    Ok(())
}

/// Fails if the watch shows an event or ends.
fn is_silent(events: &mut Events) -> Result<()> {
    let seen = events.next().now_or_never();
    ensure!(seen.is_none(), "the frozen watch shows {seen:?}");
    Ok(())
}

/// Reads events until one shows that an object with this name was added. Returns the names of all added objects.
async fn added_until(events: &mut Events, name: &str, within: Duration) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let read = async {
        while let Some(event) = events.next().await {
            if let WatchEvent::Added(object) = event? {
                names.push(object.metadata.name.unwrap_or_default());
                if names.last().is_some_and(|last| last == name) {
                    return Ok(());
                }
            }
        }
        anyhow::bail!("the watch ended too early")
    };
    tokio::time::timeout(within, read).await.with_context(|| format!("the watch has shown no event for {name}"))??;
    Ok(names)
}

pub async fn frozen(node: &mut SingleNode) -> Result<()> {
    let api = through_proxy(node).await?;
    let mut frozen = watch(&api).await?;
    create(node, "before").await?;
    added_until(&mut frozen, "before", WAIT_TIMEOUT).await?;
    let freeze = node.api()?.inject(requests(&["watch"]), Fault::Freeze);
    create(node, "during").await?;
    create(node, "later").await?;
    let mut witness = watch(&api).await?;
    added_until(&mut witness, "later", WAIT_TIMEOUT).await?;
    is_silent(&mut frozen)?;
    // A frozen watch stays silent even after the fault has ended. To the client it looks like an idle watch.
    drop(freeze);
    create(node, "last").await?;
    added_until(&mut witness, "last", WAIT_TIMEOUT).await?;
    is_silent(&mut frozen)?;
    for name in ["before", "during", "later", "last"] {
        ensure!(was_created(node, name).await?, "{name} does not exist");
    }
    Ok(())
}

pub async fn frozen_then_reset(node: &mut SingleNode) -> Result<()> {
    let api = through_proxy(node).await?;
    let mut frozen = watch(&api).await?;
    create(node, "after-reset").await?;
    added_until(&mut frozen, "after-reset", WAIT_TIMEOUT).await?;
    let freeze = node.api()?.inject(requests(&["watch"]), Fault::FreezeThenReset);
    create(node, "hidden").await?;
    let mut witness = watch(&api).await?;
    added_until(&mut witness, "hidden", WAIT_TIMEOUT).await?;
    is_silent(&mut frozen)?;
    drop(freeze);
    let end = tokio::time::timeout(WAIT_TIMEOUT, frozen.next()).await.context("the watch must end after the fault")?;
    ensure!(!matches!(end, Some(Ok(_))), "the frozen watch must fail after the fault, but shows {end:?}");
    added_until(&mut watch(&api).await?, "hidden", WAIT_TIMEOUT).await.map(drop)
}

pub async fn dropped(node: &mut SingleNode) -> Result<()> {
    let api = through_proxy(node).await?;
    let mut events = watch(&api).await?;
    let dropped = node.api()?.inject(requests(&["event"]).named("missed").once(), Fault::DropEvents);
    for name in ["before", "missed", "after"] {
        create(node, name).await?;
    }
    let names = added_until(&mut events, "after", WAIT_TIMEOUT).await?;
    ensure!(
        names.iter().any(|name| name == "before"),
        "the watch did not show the event before the dropped event: {names:?}"
    );
    ensure!(!names.iter().any(|name| name == "missed"), "the watch showed the dropped event: {names:?}");
    // The fault drops only one event of the object. Delete the object, create it again, and expect the second event.
    ensure!(was_created(node, "missed").await?, "the object does not exist");
    create(node, "missed").await?;
    added_until(&mut events, "missed", WAIT_TIMEOUT).await?;
    drop(dropped);
    for name in ["before", "missed", "after"] {
        ensure!(was_created(node, name).await?, "{name} does not exist");
    }
    Ok(())
}
