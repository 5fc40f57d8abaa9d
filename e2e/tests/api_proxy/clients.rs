//! The API clients of these tests, and tests of faults that hit only one client.

use anyhow::{Result, ensure};
use bobbin_e2e::api_proxy::{Client, Fault, RequestCount, Selector};
use bobbin_e2e::control_plane::ADMIN;
use bobbin_e2e::single_node::{OPERATOR_USER, SingleNode};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, PostParams, WatchParams};

/// An administrator's API for ConfigMaps. Its requests pass the proxy.
pub async fn through_proxy(node: &SingleNode) -> Result<Api<ConfigMap>> {
    config_maps(node, ADMIN).await
}

/// An API for ConfigMaps. Its requests go to the API server without the proxy.
pub fn direct(node: &SingleNode) -> Api<ConfigMap> {
    Api::namespaced(node.client.clone(), "default")
}

/// The test's requests for ConfigMaps. The agent sends none.
pub fn requests(verbs: &'static [&'static str]) -> Selector {
    Selector::verbs(verbs).by(ADMIN).of("configmaps")
}

pub fn config_map(name: &str) -> ConfigMap {
    let mut object = ConfigMap::default();
    object.metadata.name = Some(name.to_owned());
    object
}

/// Asks the API server directly, not through the proxy, whether a ConfigMap exists. Then deletes the ConfigMap.
pub async fn was_created(node: &SingleNode, name: &str) -> Result<bool> {
    let exists = direct(node).get_opt(name).await?.is_some();
    if exists {
        direct(node).delete(name, &DeleteParams::default()).await?;
    }
    Ok(exists)
}

async fn config_maps(node: &SingleNode, token: &str) -> Result<Api<ConfigMap>> {
    let client = node.control_plane.client_through(node.api()?.address(), token).await?;
    Ok(Api::namespaced(client, "default"))
}

pub async fn cut_off(node: &mut SingleNode) -> Result<()> {
    let (ours, other) = (through_proxy(node).await?, config_maps(node, OPERATOR_USER).await?);
    let watch = ours.watch(&WatchParams::default(), "0").await?;
    futures::pin_mut!(watch);
    ours.create(&PostParams::default(), &config_map("seen")).await?;
    while let Some(event) = watch.try_next().await? {
        if matches!(&event, kube::api::WatchEvent::Added(one) if one.metadata.name.as_deref() == Some("seen")) {
            break;
        }
    }
    let cut = node.api()?.inject(Selector::any().by(ADMIN), Fault::Reset);
    let end = watch.next().await;
    ensure!(!matches!(end, Some(Ok(_))), "the cut-off client's watch must fail, but it shows {end:?}");
    let answer = ours.create(&PostParams::default(), &config_map("cut-off")).await;
    ensure!(
        answer.is_err() && !was_created(node, "cut-off").await?,
        "a cut-off client could create an object: {answer:?}"
    );
    other.create(&PostParams::default(), &config_map("other")).await?;
    drop(cut);
    ours.get("other").await?;
    ensure!(was_created(node, "other").await? && was_created(node, "seen").await?, "an object does not exist");
    Ok(())
}

pub async fn counted(node: &mut SingleNode) -> Result<()> {
    let ours = through_proxy(node).await?;
    let count = |verb: &str| -> Result<u64> {
        let client = Client { user: ADMIN.to_owned(), node: String::new() };
        let is_it = |one: &RequestCount| one.client == client && one.verb == verb && one.resource == "configmaps";
        Ok(node.api()?.counts().into_iter().find(is_it).map_or(0, |one| one.count))
    };
    let (created, read) = (count("create")?, count("get")?);
    for name in ["one", "two"] {
        ours.create(&PostParams::default(), &config_map(name)).await?;
    }
    ours.get("one").await?;
    let (now_created, now_read) = (count("create")?, count("get")?);
    ensure!(
        now_created == created + 2 && now_read == read + 1,
        "the proxy must count two creates and one get, but it counted {} and {}",
        now_created - created,
        now_read - read
    );
    ensure!(was_created(node, "one").await? && was_created(node, "two").await?, "an object does not exist");
    Ok(())
}
